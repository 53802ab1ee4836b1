"""Rates of genuine and impostor scores: at every threshold, at a FAR, where both errors are equal. Exact, without bins.

All functions take the scores sorted, ascending, both of one floating-point type.
"""

from dataclasses import dataclass

import numpy as np

from cifarnet.core.errors import Refused, plural

NOISE = 1e-6  # an embedding of float32 differs by up to 3e-7 from itself, made alone or among others
RULE_OF_30 = 30  # of fewer errors a rate is hardly known (ISO/IEC 19795-1, "rule of 30")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Rates:
    """FMR and FNMR, float64, at each threshold: infinity, then every observed score, descending."""

    thresholds: np.ndarray
    fmr: np.ndarray
    fnmr: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """The smallest observed score whose FMR is at most `far`, with the FMR and TAR there (infinity, 0 and 0 where none is).

    few: fewer than 30 impostor pairs are expected to be accepted at this FAR.
    """

    far: float
    threshold: float
    fmr: float
    tar: float
    few: bool


def rates(genuine: np.ndarray, impostor: np.ndarray) -> Rates:
    """The rates at every threshold. Takes some 50 bytes a score: of millions use `det_points`."""
    observed = np.unique(np.concatenate([genuine, impostor]))[::-1]
    accepted = len(impostor) - np.searchsorted(impostor, observed, side="left")
    rejected = np.searchsorted(genuine, observed, side="left")
    thresholds = np.concatenate([[np.inf], observed.astype(np.float64)])
    fmr = np.concatenate([[0.0], accepted / len(impostor)])
    return Rates(thresholds, fmr, np.concatenate([[1.0], rejected / len(genuine)]))


def fmr_at(impostor: np.ndarray, threshold: np.floating | float) -> float:
    """The share of impostor scores that are at least `threshold`."""
    return (len(impostor) - int(np.searchsorted(impostor, impostor.dtype.type(threshold)))) / len(impostor)


def fnmr_at(genuine: np.ndarray, threshold: np.floating | float) -> float:
    """The share of genuine scores that are below `threshold`."""
    return int(np.searchsorted(genuine, genuine.dtype.type(threshold))) / len(genuine)


def accepts(threshold: float, score: float) -> bool:
    """Does a threshold accept the score of two images? One that differs from it by `NOISE` at most counts as it: a threshold is
    a score that was observed, and the pair that it was observed of is accepted again.
    """
    return score >= threshold - NOISE


def most_accepted(far: float, total: int) -> int:
    """The largest count whose share of `total`, as it is printed, is at most `far`."""
    count = int(far * total)
    while count and count / total > far:
        count -= 1
    while count < total and (count + 1) / total <= far:
        count += 1
    return count


def supports(rate: float, trials: int) -> bool:
    """Can so many trials tell a rate of errors from none? 1 / trials is the least; as a quotient, which 1/49 * 49 < 1 is not."""
    return trials > 0 and 1 / trials <= rate


def hardly_known(rate: float, trials: int) -> bool:
    """Are there fewer errors than the rule of 30 asks for? Rounded, since 0.0096 * 3,125 is a hair below 30."""
    return round(rate * trials, 6) < RULE_OF_30


def check_far(far: float, impostors: int) -> None:
    """Refuses a FAR that is none, or that so many impostor pairs cannot show."""
    if not 0 < far < 1:
        raise Refused("far", f"{far:g} is not between 0 and 1", "give for example 0.01")
    if not supports(far, impostors):
        why = f"{far:g} is less than one of {plural(impostors, 'impostor pair')}"
        fix = f"give at least {least_far(impostors):.2g}, or more images" if impostors > 1 else "give more images"
        raise Refused("far", why, fix)


def least_far(impostors: int) -> float:
    """The least FAR that so many impostor pairs can show, rounded up to two digits."""
    least = 1 / impostors
    rounded = float(f"{least:.1e}")
    return rounded if supports(rounded, impostors) else float(f"{least * 1.05:.1e}")


def at_far(genuine: np.ndarray, impostor: np.ndarray, far: float) -> OperatingPoint:
    """TAR@FAR: the threshold is the smallest observed score with FMR at most `far`; the FMR reached never exceeds it.

    Raises:
        Refused: `far` is not in (0, 1), or less than one of the impostor pairs.
    """
    total = len(impostor)
    check_far(far, total)
    few = hardly_known(far, total)
    refused = impostor[total - 1 - most_accepted(far, total)]  # the highest impostor score that must not be accepted
    threshold = next_above(genuine, impostor, refused)
    if threshold is None:
        return OperatingPoint(far, np.inf, 0.0, 0.0, few)
    tar = 1 - fnmr_at(genuine, threshold)
    return OperatingPoint(far, float(threshold), fmr_at(impostor, threshold), tar, few)


def next_above(genuine: np.ndarray, impostor: np.ndarray, score: np.floating) -> np.floating | None:
    """The smallest observed score above `score`; None where there is none."""
    above = []
    for scores in (genuine, impostor):
        place = int(np.searchsorted(scores, score, side="right"))
        if place < len(scores):
            above.append(scores[place])
    return min(above) if above else None


def crossing(genuine: np.ndarray, impostor: np.ndarray, level: float = 0.0) -> np.floating:
    """The largest observed score at which FMR - FNMR is at least `level` (< 1)."""
    best = min(genuine[0], impostor[0])  # where everything is accepted
    for scores in (genuine, impostor):
        low, high = -1, len(scores) - 1  # the last place that qualifies is in [low, high]
        while low < high:
            middle = (low + high + 1) // 2
            if fmr_at(impostor, scores[middle]) - fnmr_at(genuine, scores[middle]) >= level:
                low = middle
            else:
                high = middle - 1
        if low >= 0:
            best = max(best, scores[low])
    return best


def equal_error(genuine: np.ndarray, impostor: np.ndarray) -> tuple[float, float]:
    """The EER, where FMR and FNMR cross, linear between the two neighbouring thresholds; and the lower one of these."""
    threshold = crossing(genuine, impostor)
    before = next_above(genuine, impostor, threshold)
    start = (0.0, 1.0) if before is None else (fmr_at(impostor, before), fnmr_at(genuine, before))
    return between(start, (fmr_at(impostor, threshold), fnmr_at(genuine, threshold))), float(threshold)


def between(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Where FMR and FNMR are equal on the line between two points (FMR, FNMR), FMR < FNMR before and not after."""
    gap, next_gap = before[0] - before[1], after[0] - after[1]
    return before[0] + (after[0] - before[0]) * -gap / (next_gap - gap)


def area(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The area under the ROC curve: how often a genuine pair scores higher than an impostor pair, ties counted half."""
    twice = 0  # a Python integer does not overflow
    for first in range(0, len(genuine), CHUNK):
        some = genuine[first : first + CHUNK]
        twice += int(np.searchsorted(impostor, some, side="left").sum(dtype=np.int64))
        twice += int(np.searchsorted(impostor, some, side="right").sum(dtype=np.int64))
    return twice / (2 * len(genuine) * len(impostor))


def d_prime(genuine: np.ndarray, impostor: np.ndarray) -> float | None:
    """d' = |μ_g - μ_i| / sqrt((σ_g² + σ_i²) / 2), of population variances; None where both are zero."""
    (mean, variance), (other, other_variance) = moments(genuine), moments(impostor)
    spread = (variance + other_variance) / 2
    return abs(mean - other) / spread**0.5 if spread > 0 else None


def moments(scores: np.ndarray) -> tuple[float, float]:
    """Mean and variance, without a float64 copy of all scores."""
    chunks = [scores[first : first + CHUNK] for first in range(0, len(scores), CHUNK)]
    mean = sum(float(chunk.sum(dtype=np.float64)) for chunk in chunks) / len(scores)
    squares = sum(float(np.square(chunk.astype(np.float64) - mean).sum()) for chunk in chunks)
    return mean, squares / len(scores)


def det_points(genuine: np.ndarray, impostor: np.ndarray, points: int = 400) -> Rates:
    """The rates at some thresholds that spread over a DET curve evenly, both tails included; exact at each of them.

    Of fewer scores than `points` all thresholds.
    """
    if len(genuine) + len(impostor) <= points:
        return rates(genuine, impostor)
    grid = 1 / (1 + np.exp(-np.linspace(-16, 16, points // 2)))  # as evenly in the logit
    chosen = [scores[np.unique(np.round(grid * (len(scores) - 1)).astype(np.int64))] for scores in (genuine, impostor)]
    observed = np.unique(np.concatenate(chosen))[::-1]
    fmr = (len(impostor) - np.searchsorted(impostor, observed, side="left")) / len(impostor)
    return Rates(observed.astype(np.float64), fmr, np.searchsorted(genuine, observed, side="left") / len(genuine))
