"""A stretch of the sorted scores, under the weights of a resample: TAR@FAR and EER exactly as without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cifarnet.analysis.verification.pairs import AnyPairs
from cifarnet.analysis.verification.rates import between, most_accepted
from cifarnet.analysis.verification.weights import Draws

Ends = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Pairs of one kind in a stretch: their scores, descending, and the two images of each."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def counted(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """int64 [n + 1]: the weights of the first 0, 1, …, n pairs together; a pair (i, j) weighs left_i * right_j."""
        weights = left[self.first]
        weights *= right[self.second]
        counts = np.zeros(len(weights) + 1, np.int64)
        np.cumsum(weights, out=counts[1:])
        return counts


@dataclass(frozen=True)
class Counts:
    """Of one resample: the weights above each place of a stretch, and those of all pairs."""

    genuine: np.ndarray
    impostor: np.ndarray
    all_genuine: int
    all_impostor: int


@dataclass(frozen=True)
class Stretch:
    """All pairs whose scores lie between two scores, both included.

    Args:
        genuine, impostor: the pairs.
        anchor: a score in the stretch, from which on the weights are known; infinity: nothing lies above the stretch.
        to_bottom: does it reach down to the lowest score?
    """

    genuine: Part
    impostor: Part
    anchor: float
    to_bottom: bool

    @cached_property
    def anchors(self) -> tuple[int, int]:
        """How many genuine and impostor pairs of the stretch score at least the anchor."""
        genuine, impostor = (
            np.searchsorted(-part.scores, -part.scores.dtype.type(self.anchor), side="right")
            for part in (self.genuine, self.impostor)
        )
        return int(genuine), int(impostor)

    @cached_property
    def above(self) -> np.ndarray:
        """For each impostor pair, how many genuine pairs of the stretch score higher."""
        return np.searchsorted(-self.genuine.scores, -self.impostor.scores, side="left")

    @cached_property
    def accepted(self) -> tuple[np.ndarray, np.ndarray]:
        """How many genuine and impostor pairs score at least each observed score of the stretch, from the highest down."""
        observed = np.unique(np.concatenate([-self.genuine.scores, -self.impostor.scores]))
        genuine, impostor = (
            np.searchsorted(-part.scores, observed, side="right") for part in (self.genuine, self.impostor)
        )
        return genuine, impostor

    def count(self, draws: Draws, resample: int, known: tuple[int, int, int, int] | None) -> Counts:
        """The weights of one resample.

        Args:
            known: those of the genuine and of the impostor pairs from the anchor on, and of all of both kinds; None: the
                stretch holds all pairs.
        """
        both, images = draws.of_both(resample), draws.of_images(resample)
        genuine, impostor = self.genuine.counted(both, images), self.impostor.counted(both, both)
        if known is None:
            return Counts(genuine, impostor, int(genuine[-1]), int(impostor[-1]))
        at_genuine, at_impostor = self.anchors
        genuine += known[0] - genuine[at_genuine]
        impostor += known[1] - impostor[at_impostor]
        return Counts(genuine, impostor, known[2], known[3])

    def tar(self, counts: Counts, far: float) -> float | None:
        """TAR@FAR of a resample; None where its threshold lies outside the stretch."""
        limit = most_accepted(far, counts.all_impostor)
        place = int(np.searchsorted(counts.impostor, limit, side="right"))  # the first pairs that weigh more
        if place == 0 or (place == len(counts.impostor) and not self.to_bottom):
            return None
        if place == len(counts.impostor):
            return 1.0
        return float(counts.genuine[self.above[place - 1]]) / counts.all_genuine

    def eer(self, counts: Counts) -> float | None:
        """The EER of a resample; None where it lies outside the stretch."""
        genuine, impostor = self.accepted

        def point(place: int) -> tuple[float, float]:
            accepted = counts.genuine[genuine[place]] if place >= 0 else counts.genuine[0]
            false = counts.impostor[impostor[place]] if place >= 0 else counts.impostor[0]
            return float(false) / counts.all_impostor, 1 - float(accepted) / counts.all_genuine

        low, high = -1, len(genuine)  # FMR < FNMR at `low`, not at `high`
        start = point(-1)
        if start[0] >= start[1]:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            fmr, fnmr = point(middle)
            low, high = (middle, high) if fmr < fnmr else (low, middle)
        return None if high == len(genuine) else between(point(low), point(high))


def stretch(pairs: AnyPairs, low: float = -np.inf, high: float = np.inf, anchor: float = np.inf) -> Stretch:
    """The pairs that score from `low` to `high`."""
    genuine = part(pairs.genuine, pairs.genuine_ends, low, high)
    return Stretch(genuine, part(pairs.impostor, pairs.impostor_ends, low, high), anchor, low == -np.inf)


def part(scores: np.ndarray, ends: Ends, low: float, high: float) -> Part:
    """The pairs of one kind that score from `low` to `high`, descending."""
    kind = scores.dtype.type
    index = np.flatnonzero((scores >= kind(low)) & (scores <= kind(high)))
    index = index[np.argsort(-scores[index], kind="stable")]
    return Part(scores[index], *ends(index))
