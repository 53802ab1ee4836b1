"""The scores of pairs: all unordered pairs of a set of embeddings, or those of a list."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cifarnet.core.errors import Refused, plural

ROWS = 256  # embeddings that are multiplied with all others at a time
LISTED = 1 << 14  # pairs of a list that are scored at a time
MOST = 500_000_000  # pairs whose scores are kept, 4 bytes each and as much again to sort them


@dataclass(frozen=True)
class AllPairs:
    """The scores of all pairs of N embeddings, which lie in the order of their labels; each pair once, row by row.

    Args:
        order: int64 [N], the row that the user gave for each place.
        labels: int64 [N], ascending, in that order: the identity of each place.
        ends: int64 [N], the place after the last one of the same identity.
        genuine: float32, of each place i its scores with i + 1 to ends[i] - 1.
        impostor: float32, of each place i its scores with ends[i] to N - 1.
    """

    order: np.ndarray
    labels: np.ndarray
    ends: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray

    @cached_property
    def genuine_images(self) -> np.ndarray:
        """int64 [n]: the places, ascending, of the images that have a genuine pair."""
        return np.flatnonzero(np.bincount(self.labels)[self.labels] > 1)

    @cached_property
    def genuine_rows(self) -> np.ndarray:
        """int64 [N + 1]: where in `genuine` the row of each place begins."""
        return begins(self.ends - np.arange(len(self.ends)) - 1)

    @cached_property
    def impostor_rows(self) -> np.ndarray:
        """int64 [N + 1]: where in `impostor` the row of each place begins."""
        return begins(len(self.ends) - self.ends)

    def genuine_ends(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (i, j) of the genuine pairs at `index` int64 [n]: two arrays int64 [n]."""
        rows = np.searchsorted(self.genuine_rows, index, side="right") - 1
        return rows, index - self.genuine_rows[rows] + rows + 1

    def impostor_ends(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (i, j) of the impostor pairs at `index` int64 [n]: two arrays int64 [n]."""
        rows = np.searchsorted(self.impostor_rows, index, side="right") - 1
        return rows, index - self.impostor_rows[rows] + self.ends[rows]


@dataclass(frozen=True)
class ListedPairs:
    """The scores of listed pairs: those of one identity, `genuine`, and those of two, `impostor`, each with its two images.

    Args:
        labels: int64 [N], the identity of each image.
        genuine_places, impostor_places: int64 [P, 2], places of images.
    """

    labels: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray
    genuine_places: np.ndarray
    impostor_places: np.ndarray

    @cached_property
    def genuine_images(self) -> np.ndarray:
        """int64 [n]: the places, ascending, of the images that have a genuine pair."""
        return np.unique(self.genuine_places)

    def genuine_ends(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (i, j) of the genuine pairs at `index` int64 [n]: two arrays int64 [n]."""
        return self.genuine_places[index, 0], self.genuine_places[index, 1]

    def impostor_ends(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (i, j) of the impostor pairs at `index` int64 [n]: two arrays int64 [n]."""
        return self.impostor_places[index, 0], self.impostor_places[index, 1]


AnyPairs = AllPairs | ListedPairs


def begins(lengths: np.ndarray) -> np.ndarray:
    """int64 [n + 1]: where each of n pieces of these lengths begins that lie one after the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def all_pairs(units: np.ndarray, labels: np.ndarray) -> AllPairs:
    """The cosines of all pairs of unit rows [N, D] with labels int64 [N], computed block by block.

    In float64, and kept in float32: pairs of equal rows have equal scores, and are ties. Products in float32 differ from place
    to place by more than the step between two float32 numbers.

    Raises:
        Refused: more pairs than memory is meant for; no genuine or no impostor pair.
    """
    order = np.argsort(labels, kind="stable")
    units, labels = exact_units(units[order]), labels[order]
    count = len(labels)
    ends = np.searchsorted(labels, labels, side="right")
    genuine_count, impostor_count = int((ends - np.arange(count) - 1).sum()), int((count - ends).sum())
    check_pairs(genuine_count, impostor_count, len(np.unique(labels)))
    genuine, impostor = np.empty(genuine_count, np.float32), np.empty(impostor_count, np.float32)
    pairs = AllPairs(order, labels, ends, genuine, impostor)
    for first, last in row_blocks(count):
        scores = units[first:last] @ units[first:].T
        for place in range(first, last):
            row, end = scores[place - first], ends[place] - first
            genuine[pairs.genuine_rows[place] : pairs.genuine_rows[place + 1]] = row[place - first + 1 : end]
            impostor[pairs.impostor_rows[place] : pairs.impostor_rows[place + 1]] = row[end:]
    return pairs


def exact_units(rows: np.ndarray) -> np.ndarray:
    """The rows [N, D] with a length of one to float64's digits; float32's own rounding would give an image a cosine of
    1 + 1e-7 with itself, and another image one of 1 - 1e-7.
    """
    exact = np.ascontiguousarray(rows, np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def cosines_of(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """float32 [P]: the cosines of the pairs `places` [P, 2] of rows [N, D], as `all_pairs` has them."""
    units, scores = exact_units(rows), np.empty(len(places), np.float32)
    for first in range(0, len(places), LISTED):
        some = places[first : first + LISTED]
        scores[first : first + LISTED] = np.einsum("pd,pd->p", units[some[:, 0]], units[some[:, 1]])
    return scores


def row_blocks(count: int) -> Iterator[tuple[int, int]]:
    """(first, last) of blocks of rows that cover `count` rows."""
    for first in range(0, count, ROWS):
        yield first, min(first + ROWS, count)


def check_pairs(genuine: int, impostor: int, identities: int) -> None:
    """Refuses a set of pairs that nothing can be measured on, or that is too large."""
    if identities < 2 or not impostor:
        why = (
            f"{plural(identities, 'class')} make no impostor pairs" if identities < 2 else "there are no impostor pairs"
        )
        raise Refused("verify", why.replace("1 class make", "1 class makes"), "give images of two classes or more")
    if not genuine:
        raise Refused(
            "verify", "there are no genuine pairs: no class has two images", "give two images of some classes"
        )
    if genuine + impostor > MOST:
        images = f"{genuine + impostor:,} pairs; at most {MOST:,} are scored"
        raise Refused("verify", f"the images make {images}", "take fewer images, or a list of pairs with `pairs`")
