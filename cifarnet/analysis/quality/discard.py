"""Error against discard: how far the errors fall as what has the least quality is left out (Grother & Tabassi 2007).

Areas under the curve are those of Schlett et al., arXiv 2303.13294: stepwise, over the fraction discarded from 0 to a limit.
"""

from dataclasses import dataclass

import numpy as np

from cifarnet.core.errors import Refused


@dataclass(frozen=True)
class DiscardCurve:
    """A step function, K steps: from `discarded[k]` of the pairs on, until the next step, the rate is `errors[k]`.

    discarded [K] rises from 0, below 1; errors [K] in [0, 1] are of the pairs that are kept. What has the same quality goes
    at once, so that between two steps nothing more can be discarded.
    """

    discarded: np.ndarray
    errors: np.ndarray

    @property
    def start(self) -> float:
        """The error rate of all pairs."""
        return float(self.errors[0])

    def at(self, fraction: np.ndarray | float) -> np.ndarray:
        """The error rate after at most `fraction` (any shape, in [0, 1]) of the pairs is discarded."""
        return self.errors[np.searchsorted(self.discarded, fraction, side="right") - 1]

    def area(self, limit: float) -> float:
        """pAUC: the area under the steps from 0 to `limit` in (0, 1]."""
        edges = np.minimum(np.append(self.discarded, 1.0), limit)
        return float(np.diff(edges) @ self.errors)


def discard_curve(quality: np.ndarray, errors: np.ndarray, pairs: np.ndarray | None = None) -> DiscardCurve:
    """The curve of things that are discarded in the order of their quality, the least first.

    Args:
        quality: [M], of each; higher is better. Of a pair of images it is the lesser of theirs.
        errors: [M], how many of its pairs are in error; of single pairs booleans.
        pairs: [M], how many pairs stand behind each; None: one.

    Raises:
        Refused: there is no pair, or a quality is NaN.
    """
    quality, errors = np.asarray(quality), np.asarray(errors, dtype=np.int64)
    pairs = np.ones_like(errors) if pairs is None else np.asarray(pairs, dtype=np.int64)
    if not pairs.sum():
        raise Refused("quality", "there is no genuine pair", "give two images or more of a class")
    if np.isnan(quality).any():
        raise Refused("quality", f"{int(np.isnan(quality).sum()):,} of {len(quality):,} are NaN", "leave them out")
    order = np.argsort(quality, kind="stable")
    first = np.unique(quality[order], return_index=True)[1]  # of those of one quality, infinities too
    kept = np.cumsum(np.add.reduceat(pairs[order], first)[::-1])[::-1]
    wrong = np.cumsum(np.add.reduceat(errors[order], first)[::-1])[::-1]
    # Images that are the lesser one of no pair move nothing: the steps without pairs fall together.
    there = np.flatnonzero(np.diff(kept, append=0))
    total = pairs.sum()
    return DiscardCurve((total - kept[there]) / total, wrong[there] / kept[there])  # not 1 - 0.7, which is above 0.3


def best_at(start: float, fraction: np.ndarray | float) -> np.ndarray:
    """The error rate if errors alone were discarded: (e - d) / (1 - d), and 0 from the fraction d = e = `start` on."""
    fraction = np.asarray(fraction, dtype=np.float64)
    kept = np.where(fraction < start, 1 - fraction, 1.0)
    return np.where(fraction < start, (start - fraction) / kept, 0.0)


def best_area(start: float, limit: float) -> float:
    """The area under `best_at` from 0 to `limit`: x + (1 - e) ln(1 - x), x the lesser of limit and e = `start`."""
    end = min(start, limit)
    return limit if start >= 1 else end + (1 - start) * float(np.log1p(-end))


def share_of_best(area: float, start: float, limit: float) -> float | None:
    """Where an area lies between random discard (0: the line at `start`) and the best (1); negative: worse than random.

    None where there is nothing to gain: no pair is in error, or all are.
    """
    random, best = start * limit, best_area(start, limit)
    return None if random - best <= 1e-12 else (random - area) / (random - best)
