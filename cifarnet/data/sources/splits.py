"""Which part of a set is for training and which for testing: told by a name, else made here, the same for every run."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.core.warn import warn
from cifarnet.data.images.index import names
from cifarnet.data.sources.layouts import TEST, TRAIN, VAL, role_of

EACH = 10  # one image of so many of each class is a test image, where nothing says which are


@dataclass(frozen=True)
class Parts:
    """Which of some files belong to which part, by their numbers; `test` is empty where none is there."""

    train: list[int]
    test: list[int]
    left: list[int]


def parts_by_name(called: Sequence[str]) -> Parts:
    """The parts that the words in names tell: `test` before `val`, which is then left out; what has no such word trains.

    Where a name has the word `train`, others without any such word are left out too.
    """
    roles = [roles_of(name) for name in called]
    tested = [n for n, found in enumerate(roles) if TEST in found]
    held = [n for n, found in enumerate(roles) if VAL in found and n not in tested]
    others = [n for n in range(len(called)) if n not in {*tested, *held}]
    trained = [n for n in others if TRAIN in roles[n]] or others
    tested = tested or held
    return Parts(trained, tested, sorted({*range(len(called))} - {*tested, *trained}))


def roles_of(name: str) -> set[str]:
    """The parts that words of a name stand for: {"train"} of `train-00000-of-00002`."""
    return {role for word in re.findall(r"[a-z]+", name.lower()) if (role := role_of(word))}


def stratified(what: str, classes: Sequence[str], labels: np.ndarray, called: Iterable[bytes]) -> tuple[Tensor, Tensor]:
    """Numbers of the training images and of the test images, int64 each, in order: a tenth of each class is for testing,
    and at least one.

    Which they are follows from their names alone: the same for every run and every copy, and nearly the same when images
    come or go.

    Args:
        what: the set, for the line that says so; classes: their names.
        labels: int64 [N].
        called: the name of each image, unlike all others.

    Raises:
        Refused: a class has a single image.
    """
    draws = np.frombuffer(
        b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in called), dtype="<u8", count=len(labels)
    )
    order = np.lexsort((draws, labels))  # by class, within it by the draw
    counts = np.bincount(labels)
    if single := [classes[n] for n in (counts == 1).nonzero()[0]]:
        has = "has a single image" if len(single) == 1 else "have a single image each"
        why = f"has no test set, and {names(single)} {has}, which cannot be in both"
        raise Refused(what, why, "add an image to each such class, or a folder or file for testing")
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    test = place < np.maximum(1, (counts + EACH // 2) // EACH)[labels]
    warn(
        f"{what}: no test set, so one image of {EACH} of each class, and at least one, is taken for it "
        f"({int(test.sum()):,} of {len(labels):,}), the same ones in every run"
    )
    return torch.from_numpy((~test).nonzero()[0]), torch.from_numpy(test.nonzero()[0])


def check_trained(what: str, classes: Sequence[str], labels: np.ndarray, train: Tensor, fix: str) -> None:
    """Raises Refused where there is a single class, or one without a training image."""
    if len(classes) < 2:
        raise Refused(what, "all images have one label", fix)
    empty = (np.bincount(labels[train.numpy()], minlength=len(classes)) == 0).nonzero()[0]
    if len(empty):
        raise Refused(what, f"no training images of {names([classes[n] for n in empty])}", fix)
