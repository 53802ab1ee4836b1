"""Accuracy of listed pairs, fold by fold: the threshold comes from the other folds (the protocol of LFW)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cifarnet.core.errors import Refused


@dataclass(frozen=True)
class FoldAccuracy:
    """The share of pairs that are told right in each fold, their mean, and its standard error."""

    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]
    mean: float
    standard_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        thresholds = [value if np.isfinite(value) else None for value in self.thresholds]
        values = {"mean": self.mean, "standard_error": self.standard_error}
        return values | {"accuracies": list(self.accuracies), "thresholds": thresholds}


def fold_accuracy(genuine: np.ndarray, impostor: np.ndarray, folds: np.ndarray) -> FoldAccuracy:
    """The accuracy of each fold at the threshold that is best on the others (the highest of several).

    Args:
        genuine, impostor: scores, in any order.
        folds: int64, the fold of each genuine pair, then of each impostor pair.

    Raises:
        Refused: fewer than two folds.
    """
    names = np.unique(folds)
    if len(names) < 2:
        raise Refused("folds", "the pairs have a single fold", "give a list with two or more, or leave `folds` out")
    scores = np.concatenate([genuine, impostor]).astype(np.float64)
    same = np.arange(len(scores)) < len(genuine)
    accuracies, thresholds = [], []
    for name in names:
        here = folds == name
        threshold = best_threshold(scores[~here], same[~here])
        thresholds.append(threshold)
        accuracies.append(float(((scores[here] >= threshold) == same[here]).mean()))
    error = float(np.std(accuracies, ddof=1)) / len(names) ** 0.5
    return FoldAccuracy(tuple(accuracies), tuple(thresholds), float(np.mean(accuracies)), error)


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The highest of infinity and the observed scores at which most pairs are told right."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    gain = np.cumsum(np.where(same[order], 1, -1))  # right answers won by accepting the first 1, 2, …
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last of equal scores
    gains = np.concatenate([[0], gain[ends]])
    best = int(np.argmax(gains))
    return float(ordered[ends[best - 1]]) if best else np.inf
