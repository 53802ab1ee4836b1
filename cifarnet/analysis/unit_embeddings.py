"""Embeddings on the unit sphere, as numpy arrays with their labels: of a split or its unseen classes, or of image files."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.errors import Failed, Refused, plural, printable
from cifarnet.core.known import unknown
from cifarnet.data import AnySplit, Loader
from cifarnet.data.selection import held_out_classes
from cifarnet.data.shaping import canonical_order, of_classes
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.open_split import Opened
from cifarnet.engine.predict import read_batches
from cifarnet.losses.base import LOSS_KEY
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

CLASSES = ("unseen", "seen", "all")
NAMED = 3  # images named in a message
TINY = 1e-12  # a shorter feature has no direction

T = TypeVar("T")


@dataclass(frozen=True)
class UnitEmbeddings:
    """Unit rows [N, D] float32, their labels int64 [N] (places in `classes`), and the image's name each."""

    vectors: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def followed_by(self, others: "UnitEmbeddings") -> "UnitEmbeddings":
        """These, then those of other classes."""
        labels = np.concatenate([self.labels, others.labels + len(self.classes)])
        vectors = np.concatenate([self.vectors, others.vectors])
        return UnitEmbeddings(vectors, labels, self.classes + others.classes, self.names + others.names)


def embed_classes(opened: Opened, classes: str | None = None, flip: bool = False) -> UnitEmbeddings:
    """The unit embeddings of an opened split, of the classes that the model was trained on, of the others, or of all.

    Args:
        classes: as `open_classes`.
        flip: add the mirrored image's features before normalising.

    Raises:
        Refused: as `open_classes`; else as `embed_split`.
    """
    first, *others = [embed_split(part, flip) for part in open_classes(opened, classes)]
    return first.followed_by(others[0]) if others else first


def open_classes(opened: Opened, classes: str | None = None) -> list[Opened]:
    """The same model and split with the images of some classes, once for those that it was trained on and once for the others.

    Args:
        classes: unseen (those of `hold_out_classes`), seen or all (seen, then unseen); None: unseen where there are any.

    Raises:
        Refused: as `checked_classes`.
    """
    classes = checked_classes(opened.shaping, opened.split, classes)
    if classes == "seen":
        return [opened]
    unseen = open_unseen(opened)
    return [opened, unseen] if classes == "all" else [unseen]


def checked_classes(config: TrainConfig, split: str, classes: str | None) -> str:
    """The meaning of `classes` for a run and a split: unseen, seen or all (seen where nothing was held out).

    Raises:
        Refused: another word; the run held no classes out; the split is that of the validation images.
    """
    held_out = config.hold_out_classes is not None
    if classes is None:
        return "unseen" if held_out and split != "val" else "seen"
    if classes not in CLASSES:
        raise unknown("classes", classes, CLASSES)
    if classes == "seen" or (classes == "all" and not held_out):
        return "seen"
    if not held_out:
        raise Refused("classes", "the run held no classes out", "train one with `hold_out_classes`, or choose seen")
    if split == "val":
        raise Refused("classes", "the validation images are of the seen classes", "choose test or train, or seen")
    return classes


def open_unseen(opened: Opened) -> Opened:
    """The same model and split with the images of the classes that the run held out; `info.classes` are these.

    Raises:
        Refused: it held none out, or the split is that of the validation images, which are of the other classes.
    """
    checked_classes(opened.shaping, opened.split, "unseen")
    config, data = opened.shaping, opened.data
    assert config.hold_out_classes is not None
    part: AnySplit = data.test if opened.split == "test" else data.train
    if config.canonical_order:
        part = part.subset(canonical_order(part))
    held = held_out_classes(data.classes, config.hold_out_classes)
    names, info = tuple(data.classes[n] for n in held), opened.info
    chosen = of_classes(part, held)
    loader = Loader(chosen, opened.loader.batch_size, opened.device, mean=info.mean, std=info.std, shuffle=False)
    return replace(opened, loader=loader, info=replace(info, classes=names))


def embed_split(opened: Opened, flip: bool = False) -> UnitEmbeddings:
    """The unit embeddings of all images of an opened split, in its order.

    Raises:
        Refused: `flip` where the model takes features. Failed: some have no direction (NaN, infinite or zero features).
    """
    if flip and opened.info.config.arch == IDENTITY:
        raise Refused("flip", "the model takes features, which have no mirror image", "leave it out")
    rows, sound, labels = [], [], []
    batches = opened.loader.epoch(0)
    for embedded, targets in features_of(opened.model, batches, opened.device, opened.precision, flip):
        units, usable = normalised(embedded.cpu().numpy())
        rows.append(units)
        sound.append(usable)
        labels.append(targets.cpu().numpy())
    numbers, classes = np.concatenate(labels), tuple(opened.info.classes)
    names = tuple(f"image {place} ({classes[label]})" for place, label in enumerate(numbers.tolist()))
    lost = [names[place] for place in np.flatnonzero(~np.concatenate(sound))]
    if lost:
        raise Failed("embeddings", without_direction(lost), "take an earlier checkpoint, or look at these images")
    return UnitEmbeddings(np.concatenate(rows), numbers, classes, names)


def embed_files(
    model: Classifier,
    info: ModelInfo,
    files: Sequence[Any],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    *,
    device: torch.device | None = None,
    flip: bool = False,
    crop: bool = False,
) -> tuple[UnitEmbeddings, list[str], list[str]]:
    """The unit embeddings of image files; a file that cannot be used is left out and named, the others are done.

    Args:
        model, info: as `load_model` returns them.
        files: as `cifarnet.engine.predict.predict_images` takes them; labels: the place of each in `classes`.
        flip, crop: as `embed_split` and `predict_images`.

    Returns:
        the embeddings; one line for each file left out; remarks on files. All are fit for the user.
    """
    device = device or torch.device("cpu")
    batches = read_batches(files, info, device, crop)
    rows, kept, names, errors, remarks, place = [], [], [], [], [], 0
    for embedded, found in features_of(model.to(device), batches, device, "fp32", flip):
        units, usable = normalised(embedded.cpu().numpy())
        row = 0
        for one in found:
            remarks += one.warnings
            if one.error is not None:
                errors.append(one.error)
            else:
                if usable[row]:
                    rows.append(units[row])
                    kept.append(int(labels[place]))
                    names.append(one.file)
                else:
                    errors.append(f"{printable(one.file)}: {without_direction()}")
                row += 1
            place += 1
    vectors = np.stack(rows) if rows else np.empty((0, model.head.in_features), np.float32)
    return UnitEmbeddings(vectors, np.array(kept, np.int64), tuple(classes), tuple(names)), errors, remarks


@torch.inference_mode()
def features_of(
    model: Classifier, batches: Iterable[tuple[Tensor, T]], device: torch.device, precision: str, flip: bool
) -> Iterator[tuple[Tensor, T]]:
    """Features [B, E] fp32 of each batch; with `flip` those of the mirrored images are added."""
    if not flip:
        for features, beside in embed_batches(model, batches, device, precision):
            yield features.float(), beside
        return
    views = (view for images, beside in batches for view in ((images, beside), (images.flip(3), beside)))
    embedded = embed_batches(model, views, device, precision)
    for features, beside in embedded:
        mirrored, _ = next(embedded)
        yield features.float() + mirrored.float(), beside


def normalised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length one, float32 [N, D], and where the features [N, D] have a direction, bool [N] (elsewhere zeros)."""
    wide = features.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    usable = np.isfinite(lengths) & (lengths > TINY)
    units = np.zeros(features.shape, np.float32)
    units[usable] = (wide[usable] / lengths[usable, None]).astype(np.float32)
    return units, usable


def without_direction(names: Sequence[str] = ()) -> str:
    """In words, that these images have no usable embedding."""
    why = "the features are not finite, or all zero"
    if not names:
        return why
    more = ", …" if len(names) > NAMED else ""
    return f"{why}, of {plural(len(names), 'image')}: {', '.join(names[:NAMED])}{more}"


def model_digests(model: Classifier) -> tuple[str, str]:
    """The model's digest, and that without its loss's name, which has no part in an embedding.

    A gallery or threshold of before `uniface` and `sphereface2` kept theirs has the second one.
    """
    return model_digest(model), model_digest(model, leave_out=(f"head.{LOSS_KEY}",))


def model_digest(model: Classifier, leave_out: Sequence[str] = ()) -> str:
    """64 hex digits over names, types, shapes and values of a model's weights: the same wherever its file lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name in leave_out:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
