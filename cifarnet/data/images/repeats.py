"""Repeats that an index of images shows at no cost: test images that are trained on, images with two labels, files listed twice."""

import numpy as np
from torch import Tensor

from cifarnet.core.errors import plural, printable
from cifarnet.core.warn import warn
from cifarnet.data.images.streamed import StreamedSplit


def say_repeats(
    what: str, whole: StreamedSplit, keys: np.ndarray, hashes: np.ndarray, train: Tensor, test: Tensor
) -> None:
    """One line, as a warning, where there is anything of this kind. Where no image is there twice it costs a sort.

    Args:
        what: the set, fit for a terminal.
        whole: the images of both splits.
        keys: int64 [N], what each file is known by.
        hashes: uint8 [N, 32], of the images; 64 bits of them tell ten million apart.
        train, test: int64, which images belong to a split.
    """
    known = hashes.view(np.int64)[:, 0]
    ordered = np.sort(np.concatenate([known[train], known[test]]))
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return
    trained, tested = (part[np.isin(known[part], repeated)] for part in (train.numpy(), test.numpy()))
    both = tested[np.isin(known[tested], known[trained])]
    used = np.concatenate([trained, tested])
    first: dict[int, int] = {}  # of each image the label that it has first
    labels = zip(used.tolist(), known[used].tolist(), whole.labels[used].tolist(), strict=True)
    torn = {image: place for place, image, label in labels if first.setdefault(image, label) != label}
    again = len(used) - len(np.unique(keys[used]))
    said = []
    if len(both):
        kind = "is a training image" if len(both) == 1 else "are training images"
        said.append(f"{plural(len(both), 'test image')} {kind} too ({whole.source.name(int(both[0]))})")
    if torn:
        named = whole.source.name(next(iter(torn.values())))
        said.append(f"{plural(len(torn), 'image')} {'has' if len(torn) == 1 else 'have'} two labels or more ({named})")
    if again:
        said.append(f"{plural(again, 'line')} {'names' if again == 1 else 'name'} a file that another line names")
    if said:
        fix = "remove or correct them, else the accuracy says little"
        warn(f"{printable(what)}: {', '.join(said)}; {fix}")
