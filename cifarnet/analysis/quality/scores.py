"""Four numbers of a model that may stand for the quality of an image. Higher is better in each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cifarnet.core.arrays import as_array
from cifarnet.core.errors import Refused
from cifarnet.core.known import same_name, unknown

SCORES: dict[str, str] = {
    "norm": "length of the feature before the head, |z|",
    "max-cosine": "cosine to the nearest class prototype",
    "margin": "cosine to the nearest class prototype, less that to the next",
    "entropy": "minus the entropy of the class probabilities, nats",
}


def check_scores(names: Sequence[str]) -> list[str]:
    """The names of scores, each once. Raises Refused for an unknown one, or none at all."""
    return known_names("scores", names, tuple(SCORES))


def known_names(what: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """`names` as they are spelt in `known`, each once; they may be in any case. Raises Refused: unknown, or none."""
    if not names:
        raise Refused(what, "none is named", f"choose from {', '.join(known)}")
    found = {name: same_name(name, known) for name in names}
    for name, spelt in found.items():
        if spelt is None:
            raise unknown(what, name, known)
    return [spelt for spelt in dict.fromkeys(found.values()) if spelt]


def quality_scores(features: np.ndarray, cosines: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    """All of `SCORES` of N images, float64 [N] each.

    Args:
        features: z [N, E], what the head takes.
        cosines: [N, C] of each feature to each class's prototype, C at least 2.
        logits: [N, C] without margin, whose softmax is the probability.
    """
    features = features.astype(np.float64)
    second, first = np.partition(cosines.astype(np.float64), -2, axis=1)[:, -2:].T
    return {
        "norm": np.linalg.norm(features, axis=1),
        "max-cosine": first,
        "margin": first - second,
        "entropy": -entropy(logits),
    }


def entropy(logits: np.ndarray) -> np.ndarray:
    """The entropy [N], in nats, of the softmax of logits [N, C]."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=1)
    return np.log(total) - (weights * shifted).sum(axis=1) / total


def by_name(scores: Any) -> Mapping[str, Any]:
    """The scores. Raises Refused where they have no names."""
    if not isinstance(scores, Mapping):
        raise Refused("scores", f"are of type {type(scores).__name__}", 'give a mapping of names to them: {"mine": …}')
    return scores


def checked_numbers(name: str, numbers: Any, count: int) -> np.ndarray:
    """A number of each of `count` images, as float64 [count]. Raises Refused for another shape, or NaN."""
    values = as_array(numbers).astype(np.float64)
    if values.shape != (count,):
        raise Refused(name, f"has the shape {list(values.shape)}", f"give one number for each of {count:,} images")
    if missing := int(np.isnan(values).sum()):
        raise Refused(name, f"{missing:,} of {count:,} are NaN", "leave these images out")
    return values


def correlations(severity: Any, values: Mapping[str, Any]) -> dict[str, float | None]:
    """Spearman's rho of each score [N] with how badly the images [N] are degraded; equal values share their mean rank.

    None where it is not defined: all severities or all values are the same.

    Raises:
        Refused: a score that is NaN, or not one number for each severity.
    """
    from scipy.stats import spearmanr

    severity = checked_numbers("severity", severity, len(severity))
    found: dict[str, float | None] = {}
    for name, given in by_name(values).items():
        value = checked_numbers(f"score {name}", given, len(severity))
        varies = len(value) > 1 and np.ptp(value) > 0 and np.ptp(severity) > 0
        found[name] = float(spearmanr(severity, value).statistic) if varies else None
    return found
