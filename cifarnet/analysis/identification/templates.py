"""Embeddings of known identities -> what a gallery keeps of each: one mean direction, or all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cifarnet.core.arrays import directions
from cifarnet.core.errors import Refused, printable

KINDS = ("mean", "max")
CHUNK = 4096  # rows that are in float64 at a time


@dataclass(frozen=True, eq=False)
class Templates:
    """The identities of a gallery.

    Args:
        vectors: float32 [R, D], rows of length 1, those of an identity next to each other.
        owners: int64 [R], the identity of each row: 0 … I − 1, ascending, none left out.
        names: of the identities, in the order of their numbers.
        kind: mean, a row an identity; max, a row an image, and an identity scores as its best row.
    """

    vectors: np.ndarray
    owners: np.ndarray
    names: tuple[str, ...]
    kind: str = "mean"

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the rows of each identity begin, and where the last one's end: int64 [I + 1]."""
        return np.searchsorted(self.owners, np.arange(len(self.names) + 1))

    def __len__(self) -> int:
        return len(self.names)


def make_templates(embeddings: Any, labels: Any, names: Sequence[str], kind: str = "mean") -> Templates:
    """The templates of a gallery.

    Args:
        embeddings: [n, D], of any length but zero.
        labels: int [n], the identity of each, an index into `names`; each name has one or more.
        kind: mean takes the normalised mean of the normalised embeddings, max keeps them all (the best of k).

    Raises:
        Refused: an unknown kind, embeddings without a direction, an identity without any, or one whose mean is zero.
    """
    if kind not in KINDS:
        raise Refused("template", f"'{kind}' is not known", f"choose from {', '.join(KINDS)}")
    unit, labels = unit_rows(embeddings), np.asarray(labels, dtype=np.int64)
    if labels.shape != (len(unit),) or (len(labels) and not 0 <= labels.min() <= labels.max() < len(names)):
        raise Refused(
            "the labels", f"they are not {len(unit):,} places in the list of names", "give one for each embedding"
        )
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all() or not len(names):
        empty = printable(names[int(counts.argmin())]) if len(names) else "the gallery"
        raise Refused("gallery", f"nothing is enrolled of {empty}", "give each identity an embedding")
    order = np.argsort(labels, kind="stable")
    if kind == "max":
        return Templates(unit[order], labels[order], tuple(names), kind)
    starts = np.concatenate([[0], counts.cumsum()])
    means = np.empty((len(names), unit.shape[1]), dtype=np.float32)
    for label in range(len(names)):
        mean = unit[order[starts[label] : starts[label + 1]]].mean(axis=0, dtype=np.float64)
        length = np.linalg.norm(mean)
        if length < 1e-6:
            fix = "take `template=max`, or fewer images of it"
            raise Refused("gallery", f"the embeddings of {printable(names[label])} cancel out", fix)
        means[label] = mean / length
    return Templates(means, np.arange(len(names)), tuple(names), kind)


def unit_rows(embeddings: Any) -> np.ndarray:
    """The directions of embeddings [n, D], float32 [n, D], each of length 1.

    Raises:
        Refused: not a matrix, values that are not finite, or a row of length zero.
    """
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "fiu":
        why = f"they are {rows.dtype} {list(rows.shape)}"
        raise Refused("the embeddings", why, "give numbers [N, D], a row an image")
    unit = np.empty(rows.shape, dtype=np.float32)
    for begin in range(0, len(rows), CHUNK):
        unit[begin : begin + CHUNK], broken = directions(rows[begin : begin + CHUNK])
        if not len(broken):
            continue
        row = begin + int(broken[0])
        why = "has length zero" if np.isfinite(rows[row]).all() else "holds values that are not finite"
        raise Refused("the embeddings", f"row {row} {why}", "leave it out, or look at the model that made it")
    return unit
