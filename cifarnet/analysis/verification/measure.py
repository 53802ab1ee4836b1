"""Embeddings or scored pairs -> everything that `cifarnet verify` prints, as one result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from cifarnet.analysis.verification.bootstrap import interval, resampled, with_few_errors
from cifarnet.analysis.verification.folds import FoldAccuracy, fold_accuracy
from cifarnet.analysis.verification.pairs import AnyPairs, ListedPairs, all_pairs, check_pairs
from cifarnet.analysis.verification.rates import (
    RULE_OF_30,
    OperatingPoint,
    area,
    at_far,
    check_far,
    d_prime,
    equal_error,
    supports,
)
from cifarnet.analysis.verification.weights import FEWEST, draw
from cifarnet.core.arrays import as_array, as_labels, as_rates, directions
from cifarnet.core.errors import Refused, plural

USUAL_FARS = (1e-1, 1e-2, 1e-3, 1e-4)
FEWEST_RESAMPLES, MOST_RESAMPLES = 100, 100_000  # of a few dozen the ends of an interval are the least and the largest
NAMED = 3  # rows named in a message

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Intervals:
    """95% intervals: of TAR at each FAR, and of the EER.

    None where more than a twentieth of the resamples have no genuine or no impostor pair: what is left would not be a sample.

    used: the resamples that have pairs of both kinds.
    unit: "identities" (drawn with replacement) or "images" (drawn within the identities, which stay, where fewer than 20 have
    a genuine pair).
    identities: those that have a genuine pair, on which TAR rests.
    """

    tar: tuple[Interval, ...]
    eer: Interval
    resamples: int
    used: int
    seed: int
    unit: str
    identities: int


@dataclass(frozen=True)
class Verification:
    """A measurement; `genuine` and `impostor` are the sorted scores behind it."""

    images: int
    identities: int
    points: tuple[OperatingPoint, ...]
    eer: float
    eer_threshold: float
    auc: float
    d_prime: float | None
    genuine: np.ndarray = field(repr=False)
    impostor: np.ndarray = field(repr=False)
    intervals: Intervals | None = None
    folds: FoldAccuracy | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: rates from 0 to 1, thresholds as cosines (None: no observed score meets the FAR)."""
        rows = []
        for number, point in enumerate(self.points):
            found = self.intervals.tar[number] if self.intervals else None
            threshold = point.threshold if np.isfinite(point.threshold) else None
            row: dict[str, Any] = {"far": point.far, "threshold": threshold, "fmr": point.fmr, "tar": point.tar}
            rows.append(row | {"tar_interval": found and list(found), "fewer_than_30": point.few})
        boot = self.intervals
        about = None
        if boot:
            about = {"resamples": boot.resamples, "used": boot.used, "of": boot.unit, "seed": boot.seed, "level": 0.95}
            about["identities_with_pairs"] = boot.identities
        return {
            "images": self.images,
            "identities": self.identities,
            "genuine_pairs": len(self.genuine),
            "impostor_pairs": len(self.impostor),
            "operating_points": rows,
            "eer": self.eer,
            "eer_threshold": self.eer_threshold,
            "eer_interval": list(boot.eer) if boot and boot.eer else None,
            "auc": self.auc,
            "d_prime": self.d_prime,
            "folds": self.folds and self.folds.to_dict(),
            "bootstrap": about,
        }


def verification(
    embeddings: Any, labels: Any, far: Sequence[float] | float = (1e-2, 1e-3), bootstrap: int = 0, seed: int = 0
) -> Verification:
    """1:1 verification of all pairs of embeddings, scored by their cosine.

    Args:
        embeddings: [N, D], a tensor or anything numpy takes; rows need not have length one.
        labels: [N], the identity of each row: numbers or names.
        far: the false accept rates at which TAR is measured, or one.
        bootstrap: resamples behind the 95% intervals of TAR and EER; 0: none.
        seed: of the resamples.

    Returns:
        counts of images and pairs, TAR at each FAR with the threshold and the FMR that is reached, EER, AUC, d'.

    Raises:
        Refused: rows that are not finite or all zero (named), no genuine or no impostor pair, a FAR below one pair.
    """
    units, identities = checked(embeddings, labels)
    return verify_pairs(all_pairs(units, identities), as_rates(far, "far"), bootstrap, seed)


def check_resamples(bootstrap: int) -> None:
    """Refuses a number of resamples that gives no interval, or is too large; 0, none, is taken."""
    if isinstance(bootstrap, bool) or not isinstance(bootstrap, Integral):
        raise Refused("bootstrap", f"{bootstrap!r} is no whole number", "give 0 for none, or for example 1000")
    if bootstrap and not FEWEST_RESAMPLES <= bootstrap <= MOST_RESAMPLES:
        fix = f"give 0, or {FEWEST_RESAMPLES} to {MOST_RESAMPLES:,} resamples"
        raise Refused("bootstrap", f"{bootstrap:,} is out of range", fix)


def checked(embeddings: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [N, D] float64, and identities counted from 0, int64 [N]. Raises Refused."""
    vectors, names = as_array(embeddings), as_labels(labels, "labels")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise Refused("embeddings", f"an array {list(vectors.shape)} of {vectors.dtype}", "give numbers [N, D]")
    if names.shape != (len(vectors),):
        why = f"{plural(len(vectors), 'embedding')} {'has' if len(vectors) == 1 else 'have'} labels of shape {list(names.shape)}"
        raise Refused("labels", why, "give one label for each")
    units, broken = directions(vectors)
    if len(broken):
        first = ", ".join(map(str, broken[:NAMED])) + (", …" if len(broken) > NAMED else "")
        why = f"{plural(len(broken), 'row')} not finite, or all zero: {first}"
        raise Refused("embeddings", why, "leave these out")
    try:
        return units, np.unique(names, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:  # of objects that have no order
        raise Refused("labels", "some cannot be compared with others", "give numbers, or names") from error


def verify_pairs(
    pairs: AnyPairs,
    far: Sequence[float] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    folds: np.ndarray | None = None,
) -> Verification:
    """The same as `verification`, of pairs that have their scores. These are sorted in place where `bootstrap` is 0.

    Args:
        far: None takes 0.1, 0.01, 0.001 and 0.0001, as far as there are impostor pairs enough; of fewer than ten none.
        folds: int64, of the genuine, then of the impostor pairs of a list.
    """
    labels = pairs.labels
    check_resamples(bootstrap)
    identities = len(np.unique(labels))
    check_pairs(len(pairs.genuine), len(pairs.impostor), identities)
    usual = [one for one in USUAL_FARS if supports(one, len(pairs.impostor))]
    fars = tuple(dict.fromkeys(usual if far is None else far))
    for one in fars:
        check_far(one, len(pairs.impostor))
    of_folds = None
    if isinstance(pairs, ListedPairs) and folds is not None:
        of_folds = fold_accuracy(pairs.genuine, pairs.impostor, folds)
    # The scores of all pairs are many: unless the order of the pairs is wanted too, they are sorted where they lie.
    genuine, impostor = (scores.copy() if bootstrap else scores for scores in (pairs.genuine, pairs.impostor))
    genuine.sort()
    impostor.sort()
    points = tuple(at_far(genuine, impostor, one) for one in fars)
    eer, threshold = equal_error(genuine, impostor)
    boot = None
    if bootstrap:
        rates = [*(point.tar for point in points), eer]
        boot = intervals(pairs, (genuine, impostor), fars, rates, bootstrap, seed)
    auc, apart = area(genuine, impostor), d_prime(genuine, impostor)
    return Verification(len(labels), identities, points, eer, threshold, auc, apart, genuine, impostor, boot, of_folds)


def intervals(
    pairs: AnyPairs,
    sorted_scores: tuple[np.ndarray, np.ndarray],
    fars: Sequence[float],
    measured_rates: Sequence[float],
    resamples: int,
    seed: int,
) -> Intervals:
    """The intervals of `measured_rates`: TAR at each FAR, then the EER. `sorted_scores`: genuine, impostor."""
    genuine, impostor = sorted_scores
    # Of each identity with a genuine pair.
    images = np.unique(pairs.labels[pairs.genuine_images], return_counts=True)[1]
    identities = len(images)
    many = identities >= FEWEST
    units = identities if many else int((images // 2).sum())
    draws = draw(pairs.labels, resamples, seed, identities=many, images=not many)
    values = np.concatenate([resampled(pairs, genuine, impostor, fars, group) for group in draws])
    found: list[Interval] = []
    for rate, column in zip(measured_rates, values.T, strict=True):
        one = interval(column, identities if many else 0)
        if one and min(rate, 1 - rate) * len(genuine) < RULE_OF_30:
            one = with_few_errors(one, rate, column, len(genuine), units)
        found.append(one)
    used, unit = int(np.isfinite(values[:, -1]).sum()), "identities" if many else "images"
    return Intervals(tuple(found[:-1]), found[-1], resamples, used, seed, unit, identities)
