"""Does a quality score find the images that verification fails on? Error against discard, beside random discard and the best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from cifarnet.analysis.quality.discard import DiscardCurve, best_area, best_at, discard_curve, share_of_best
from cifarnet.analysis.quality.pairs import check_labels, failures_by_image, identities
from cifarnet.analysis.quality.scores import by_name, checked_numbers
from cifarnet.analysis.verification.measure import checked
from cifarnet.analysis.verification.pairs import all_pairs
from cifarnet.analysis.verification.rates import OperatingPoint, at_far

LIMITS = (0.2, 1.0)  # of pAUC
GRID = np.arange(100) / 100  # fractions at which a curve is written down
DRAWS, FEW_DRAWS = 100, 20  # random orders of the images; few where there are many pairs
MANY = 5e7  # pairs of one class, in both directions


def reach_of_chance(draws: int) -> float:
    """Within so many standard deviations of the mean of some random orders the next one lies in 95 of 100 cases (Student)."""
    return float(stdtrit(draws - 1, 0.975)) * (1 + 1 / draws) ** 0.5


@dataclass(frozen=True)
class Utility:
    """Curves of several scores over the same genuine pairs, in error where they lie below the threshold of `point`.

    genuine, impostor: how many pairs there are; draws: the curves of the images in random orders.
    """

    point: OperatingPoint
    genuine: int
    impostor: int
    curves: dict[str, DiscardCurve]
    draws: list[DiscardCurve]

    @property
    def fnmr(self) -> float:
        """The part of all genuine pairs that is in error."""
        return self.draws[0].start

    def chance(self, limit: float) -> tuple[float, float]:
        """The range of pAUC up to `limit` within which random orders lie in 95 of 100 cases."""
        areas = [curve.area(limit) for curve in self.draws]
        middle, spread = float(np.mean(areas)), reach_of_chance(len(areas)) * float(np.std(areas, ddof=1))
        return middle - spread, middle + spread

    def verdict(self, name: str, limit: float = LIMITS[0]) -> str:
        """ "better" than chance, "as chance", "worse", or "unknown" where no genuine pair is in error, or all are."""
        if not 0 < self.fnmr < 1:
            return "unknown"
        low, high = self.chance(limit)
        area = self.curves[name].area(limit)
        return "better" if area < low else "worse" if area > high else "as chance"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: threshold, curves at whole percents, areas."""
        start, draws = self.fnmr, np.stack([curve.at(GRID) for curve in self.draws])
        spread = reach_of_chance(len(draws)) * draws.std(axis=0, ddof=1)
        band = np.clip(draws.mean(axis=0) + np.array([[-1], [1]]) * spread, 0, 1)
        chance = {f"{limit:g}": self.chance(limit) for limit in LIMITS}
        return {
            "far": self.point.far,
            "achieved_fmr": self.point.fmr,
            "few": self.point.few,
            "threshold": self.point.threshold,
            "genuine_pairs": self.genuine,
            "impostor_pairs": self.impostor,
            "fnmr": start,
            "random": {
                f"{limit:g}": {"pauc": start * limit, "low": chance[f"{limit:g}"][0], "high": chance[f"{limit:g}"][1]}
                for limit in LIMITS
            },
            "best": {f"{limit:g}": best_area(start, limit) for limit in LIMITS},
            "curve": {
                "discarded": GRID.tolist(),
                "random": [start] * len(GRID),
                "random_low": band[0].tolist(),
                "random_high": band[1].tolist(),
                "best": best_at(start, GRID).tolist(),
                "scores": {name: curve.at(GRID).tolist() for name, curve in self.curves.items()},
            },
            "scores": {name: self._of_score(name) for name in self.curves},
        }

    def _of_score(self, name: str) -> dict[str, Any]:
        curve = self.curves[name]
        areas = {f"{limit:g}": curve.area(limit) for limit in LIMITS}
        shares = {f"{limit:g}": share_of_best(curve.area(limit), self.fnmr, limit) for limit in LIMITS}
        after = float(curve.at(LIMITS[0]))
        return {
            "fnmr_after_discard": after,
            "pauc": areas,
            "share_of_best": shares,
            "against_chance": self.verdict(name),
        }


def error_versus_discard(
    embeddings: Any, labels: Any, scores: Mapping[str, Any], far: float = 1e-3, seed: int = 17
) -> Utility:
    """How the false non-match rate falls as the pairs with the least quality are left out.

    The threshold is that of all pairs at the false match rate `far`, and stays. A pair's quality is the lesser of its images'.

    Args:
        embeddings: [N, D], of any length, compared by their cosine; labels: [N], the identity of each, numbers or names.
        scores: name -> quality of each image [N]; higher is better.
        seed: of the random orders beside them.

    Raises:
        Refused: no genuine or no impostor pair, too few for `far`; embeddings that are not finite; scores without names, a score that is NaN.
    """
    units, numbers = checked(embeddings, labels)
    check_labels(numbers, far)
    qualities = [checked_numbers(f"score {name}", score, len(units)) for name, score in by_name(scores).items()]
    pairs = all_pairs(units, numbers)
    point = at_far(np.sort(pairs.genuine), np.sort(pairs.impostor), far)
    many = sum((end - first) ** 2 for first, end in identities(pairs)) > MANY
    random = np.random.default_rng(seed)
    drawn = [random.permutation(len(units)) for _ in range(FEW_DRAWS if many else DRAWS)]
    orders = np.stack([*qualities, *drawn])
    counts, failures = failures_by_image(pairs, point.threshold, orders)
    curves = [discard_curve(*rows) for rows in zip(orders, failures, counts, strict=True)]
    named = dict(zip(scores, curves, strict=False))
    return Utility(point, len(pairs.genuine), len(pairs.impostor), named, curves[len(scores) :])
