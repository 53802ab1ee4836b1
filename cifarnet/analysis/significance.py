"""Paired tests of two models on the same images, and what several seeds say of a mean or a difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from torch import Tensor


@dataclass(frozen=True)
class Paired:
    """Images that both, only the first, only the second, or neither of two models gets right; the two-sided p."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first_right: Tensor, second_right: Tensor) -> Paired:
    """McNemar's exact test (McNemar 1947): do two models err on different numbers of the same images?

    Under the null hypothesis an image that one of them gets right and the other not falls to either with probability
    1/2, so that p is twice the smaller tail of Binomial(n, 1/2), at most 1.

    Args:
        first_right, second_right: bool [N], image by image.
    """
    from scipy.stats import binomtest

    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    both = int((first_right & second_right).sum())
    apart = first + second
    p = float(binomtest(first, apart).pvalue) if apart else 1.0
    return Paired(both, first, second, len(first_right) - both - apart, p)


@dataclass(frozen=True)
class Interval:
    """A mean over `n` values with their sample standard deviation, and the ends of its interval; NaN where it has none."""

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Are there ends?"""
        return not math.isnan(self.low)


ANY = (-math.inf, math.inf)
ROUNDING = 1e-12  # the differences of accuracies that are alike are so but for this
PART = (0.0, 1.0)  # of an accuracy


def student_interval(
    values: Sequence[float], confidence: float = 0.95, within: tuple[float, float] = ANY
) -> Interval | None:
    """The mean of `values` with Student's t interval: mean ± t sd / √n with n - 1 degrees of freedom (Student 1908).

    It holds where the values are independent and about normal, as scores of seeds are. Of the differences of two losses,
    seed by seed, it is the paired interval: what a seed does to both (order, augmentation, first weights) cancels.

    Args:
        within: what the mean can be; the interval is cut off at its ends. The mean of accuracies is in `PART`, while
            the formula knows no bounds: of two seeds it may reach from −71% to 169%, cut off from 0% to 100%.

    Returns:
        None of fewer than two values: one seed says nothing of the spread. Nor do values that are all alike, as accuracies on
        few images may be: they have a mean, and no interval.
    """
    from scipy.stats import t

    if len(values) < 2:
        return None
    center, sd = mean(values), stdev(values)
    if sd < ROUNDING:
        return Interval(len(values), center, sd, math.nan, math.nan)
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / len(values) ** 0.5
    return Interval(len(values), center, sd, max(within[0], center - half), min(within[1], center + half))


def wilson_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The ends of Wilson's interval of a part `hits` of `count` (Wilson 1927), in [0, 1]; count is 1 or more."""
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
