"""Paired tests of two models on the same images, and the interval of one model's accuracy."""

from dataclasses import dataclass

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


def wilson(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, right of `count` (E. B. Wilson 1927): it stays within [0, 1], near its ends too."""
    from scipy.stats import binomtest

    low, high = binomtest(right, count).proportion_ci(level, method="wilson")
    return float(low), float(high)
