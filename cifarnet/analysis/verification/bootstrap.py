"""Intervals of TAR@FAR and EER: a percentile bootstrap over identities, or where these are few over the images in each.

Pairs are not independent, since each image is in many; identities are, and images within one. Each resample is a set of
weights (see `weights.Draws`) on scores that were computed once, and its rates are exact.

Of millions of pairs a resample needs only those near its own threshold. How much lies above the threshold of the whole set
is counted for all resamples at once, in a matrix product; that tells how far their thresholds lie from it, and each is
found among the pairs between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtr, stdtrit

from cifarnet.analysis.verification.pairs import AllPairs, AnyPairs, row_blocks
from cifarnet.analysis.verification.rates import at_far, crossing, equal_error, fmr_at
from cifarnet.analysis.verification.stretch import Stretch, stretch
from cifarnet.analysis.verification.weights import Draws

SMALL = 1_000_000  # pairs, up to which each resample weighs all of them
SLACK = 200, 0.005  # impostor pairs on either side of where the thresholds are expected: so many, and of those above
UNUSABLE = 0.05  # of the resamples may have no pairs of a kind
EVERYTHING = 64  # so many times wider than expected, a stretch is all there is


@dataclass(frozen=True)
class Known:
    """Weights of each of R resamples: float64 [R] each.

    genuine, impostor: the pairs from a score on; all_genuine, all_impostor: all of them.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    all_genuine: np.ndarray
    all_impostor: np.ndarray

    def of(self, resample: int) -> tuple[int, int, int, int]:
        """The four of one resample."""
        four = (self.genuine, self.impostor, self.all_genuine, self.all_impostor)
        genuine, impostor, all_genuine, all_impostor = (int(values[resample]) for values in four)
        return genuine, impostor, all_genuine, all_impostor

    @property
    def fmr(self) -> np.ndarray:
        """FMR of each resample at the score."""
        return self.impostor / np.maximum(self.all_impostor, 1)

    @property
    def fnmr(self) -> np.ndarray:
        """FNMR of each resample at the score."""
        return 1 - self.genuine / np.maximum(self.all_genuine, 1)


def resampled(
    pairs: AnyPairs, genuine: np.ndarray, impostor: np.ndarray, fars: Sequence[float], draws: Draws
) -> np.ndarray:
    """TAR at each FAR, and last the EER, of each resample: float64 [R, len(fars) + 1], NaN where a resample has no pairs.

    Args:
        pairs: the scores, each with its two images.
        genuine, impostor: the same scores, sorted.
    """
    found = np.full((len(draws), len(fars) + 1), np.nan)
    if isinstance(pairs, AllPairs) and len(genuine) + len(impostor) > SMALL:
        anchors = [at_far(genuine, impostor, far).threshold for far in fars] + [equal_error(genuine, impostor)[1]]
        top = float(max(genuine[-1], impostor[-1]))
        anchors = [min(anchor, top) for anchor in anchors]
        for column, known in enumerate(count_all(pairs, draws, anchors)):
            far = fars[column] if column < len(fars) else None
            rows: Sequence[int] = range(len(draws))
            factor = 1
            while len(rows):
                near = expected(pairs, (genuine, impostor), anchors[column], far, known, factor)
                for row in rows:
                    found[row, column] = value_of(near, draws, row, far, known)
                rows = [row for row in rows if np.isnan(found[row, column]) and known.all_genuine[row] > 0]
                if factor >= EVERYTHING:
                    break
                factor *= 4
        return found
    everything = stretch(pairs)
    for row in range(len(draws)):
        counts = everything.count(draws, row, None)
        if counts.all_genuine and counts.all_impostor:
            values = [everything.tar(counts, far) for far in fars]
            found[row] = [np.nan if value is None else value for value in (*values, everything.eer(counts))]
    return found


def value_of(near: Stretch, draws: Draws, row: int, far: float | None, known: Known) -> float:
    """TAR@FAR (EER where `far` is None) of one resample; NaN where its threshold lies outside the stretch."""
    if not (known.all_genuine[row] and known.all_impostor[row]):
        return np.nan
    counts = near.count(draws, row, known.of(row))
    value = near.eer(counts) if far is None else near.tar(counts, far)
    return np.nan if value is None else value


def expected(
    pairs: AllPairs,
    sorted_scores: tuple[np.ndarray, np.ndarray],
    anchor: float,
    far: float | None,
    known: Known,
    factor: int,
) -> Stretch:
    """The stretch in which the resamples' thresholds are expected, around the anchor; `factor` times as wide on request."""
    genuine, impostor = sorted_scores
    if factor >= EVERYTHING:
        return stretch(pairs, anchor=anchor)
    center = fmr_at(impostor, anchor)
    slack = factor * (SLACK[0] / len(impostor) + SLACK[1] * center)
    if far is None:
        gaps = known.fmr - known.fnmr
        upper = float(crossing(genuine, impostor, -1.2 * factor * max(float(gaps.max()), 0) - slack))
        level = -1.2 * factor * min(float(gaps.min()), 0) + slack
        lower = float(crossing(genuine, impostor, level)) if level < 1 else -np.inf
        return stretch(pairs, min(lower, anchor), max(upper, anchor), anchor)
    least, most = float(known.fmr.min()), float(known.fmr.max())
    down = (center * (far / min(max(least, far / 4), far)) ** (1.2 * factor) + slack) * len(impostor)
    up = (center * (far / max(most, far)) ** (1.2 * factor) - slack) * len(impostor)
    lowest = float(impostor[len(impostor) - int(down)]) if 1 <= down < len(impostor) else -np.inf
    highest = float(impostor[len(impostor) - int(up)]) if up >= 1 else np.inf
    return stretch(pairs, min(lowest, anchor), max(highest, anchor), anchor)


def count_all(pairs: AllPairs, draws: Draws, scores: Sequence[float]) -> list[Known]:
    """The weights of each resample from each of some scores on."""
    images = draws.images.T.astype(np.float32)  # [N, R]; sums of so small integers are exact in float32
    both = images * draws.identities.T.astype(np.float32)[draws.labels]
    genuine, impostor = (np.zeros((len(scores), len(draws))) for _ in range(2))
    for first, last in row_blocks(len(draws.labels)):
        inside, outside = blocks(pairs, first, last)
        for number, score in enumerate(scores):
            for block, right, total in ((inside, images, genuine), (outside, both, impostor)):
                accepted = (block >= np.float32(score)).astype(np.float32)
                sums = accepted @ right[first : first + block.shape[1]]
                total[number] += np.einsum("nr,nr->r", sums, both[first:last], dtype=np.float64)
    all_genuine, all_impostor = totals(draws)
    return [Known(genuine[n], impostor[n], all_genuine, all_impostor) for n in range(len(scores))]


def blocks(pairs: AllPairs, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the places `first` to `last` with those from `first` on, of genuine and impostor pairs; else -infinity."""
    count = len(pairs.ends)
    inside = np.full((last - first, int(pairs.ends[last - 1]) - first), -np.inf, np.float32)
    outside = np.full((last - first, count - first), -np.inf, np.float32)
    for place in range(first, last):
        row, end = place - first, int(pairs.ends[place])
        inside[row, row + 1 : end - first] = pairs.genuine[pairs.genuine_rows[place] : pairs.genuine_rows[place + 1]]
        outside[row, end - first :] = pairs.impostor[pairs.impostor_rows[place] : pairs.impostor_rows[place + 1]]
    return inside, outside


def totals(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all genuine and of all impostor pairs in each resample, float64 [R] each."""
    order = np.argsort(draws.labels, kind="stable")
    starts = np.searchsorted(draws.labels[order], np.arange(draws.identities.shape[1]))
    genuine, impostor = (np.zeros(len(draws)) for _ in range(2))
    for row in range(len(draws)):
        images, weights = draws.of_images(row)[order], draws.identities[row].astype(np.int64)
        sizes, squares = np.add.reduceat(images, starts), np.add.reduceat(images * images, starts)
        genuine[row] = (weights * (sizes * sizes - squares)).sum() / 2
        weighted = weights * sizes
        impostor[row] = (int(weighted.sum()) ** 2 - int((weighted * weighted).sum())) / 2
    return genuine, impostor


def interval(values: np.ndarray, drawn: int = 0) -> tuple[float, float] | None:
    """The 95% percentile interval of resampled values [R]; None where more than a twentieth of them is not known (NaN).

    Args:
        drawn: how many identities each resample draws. Percentiles of so few are too narrow, by sqrt((n - 1) / n) and by
            the normal distribution in the place of Student's; they are taken a little further out instead (the "expanded
            percentile interval" of T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015). 0: as they are.
    """
    known = values[~np.isnan(values)]
    if len(known) < max(1, (1 - UNUSABLE) * len(values)):
        return None
    tail = float(ndtr(-((drawn / (drawn - 1)) ** 0.5) * stdtrit(drawn - 1, 0.975))) if drawn > 1 else 0.025
    low, high = np.quantile(known, [tail, 1 - tail], method="weibull")
    return float(low), float(high)


def with_few_errors(
    found: tuple[float, float], rate: float, values: np.ndarray, pairs: int, units: int
) -> tuple[float, float]:
    """An interval of a `rate` that few genuine pairs decide, widened: resamples of errors that were not seen show none.

    It reaches at least as far as the exact interval of a proportion (Clopper and Pearson 1934) of as many trials as explain
    the resamples' variance, though not more than there are genuine pairs (E. Korn, B. Graubard, Confidence Intervals for
    Proportions with Small Expected Number of Positive Counts Estimated from Survey Data, 1998). Where no error is seen, or
    nothing but errors, of as many trials as there are `units`.

    Args:
        values: the rate in each resample, [R].
        units: what is independent: identities, or pairs that have no image in common.
    """
    variance = float(np.nanvar(values))
    trials = min(rate * (1 - rate) / variance, pairs) if 0 < rate < 1 and variance > 0 else units
    wrong = rate * trials
    low = float(betaincinv(wrong, trials - wrong + 1, 0.025)) if rate > 0 else 0.0
    high = float(betaincinv(wrong + 1, trials - wrong, 0.975)) if rate < 1 else 1.0
    return min(low, found[0]), max(high, found[1])
