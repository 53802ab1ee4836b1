"""A split's images by their classes: of those that the model was trained on, of those that the run held out, or of both."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown
from cifarnet.data import AnySplit, Loader
from cifarnet.data.identity import identity_of_split
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.selection import held_out_classes
from cifarnet.data.shaping import canonical_order, of_classes, relabelled
from cifarnet.data.sources.synthetic import FeatureSplit
from cifarnet.engine.open_split import Opened

CLASSES = ("unseen", "seen", "all")


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


def images_of(parts: Sequence[Opened]) -> tuple[tuple[str, ...], int, int]:
    """The names of the classes, the number of images, and a digest of both: equal for two measurements of the same images.

    Args:
        parts: as `open_classes` makes them. How the classes are divided among them makes no difference, nor does the order
            of images in memory; that of images on the disk counts within a class.
    """
    names = sorted(name for part in parts for name in part.info.classes)
    place = {name: number for number, name in enumerate(names)}
    count, content = 0, 0
    for part in parts:
        split = part.loader.split
        if not isinstance(split, FeatureSplit):  # which has no labels but those of its samples
            split = relabelled(split, torch.tensor([place[name] for name in part.info.classes])[split.labels.cpu()])
        for piece in by_class(split) if isinstance(split, StreamedSplit) else [split]:
            found = identity_of_split(piece)
            count, content = count + found.images, content + int(found.content, 16)
    return tuple(names), count, content % 2**256  # as the content of images in memory is a sum itself


def by_class(split: StreamedSplit) -> list[StreamedSplit]:
    """The images of each class that has some, in their order."""
    order, sizes = split.labels.argsort(stable=True), split.labels.bincount()
    return [split.subset(index) for index in order.split(sizes[sizes > 0].tolist())]
