"""Held-out images -> temperature and threshold of a model; how well probabilities are calibrated."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.errors import Refused, plural
from cifarnet.engine.metrics import CALIBRATION_BINS, check_finite
from cifarnet.models.calibration import TEMPERATURES, Calibration, energy_scores, probabilities

ACCEPTED = 0.99  # of the held-out images are taken for one of the classes


@dataclass(frozen=True)
class CalibrationScores:
    """ece in [0, 1], with 15 bins of equal numbers of images; brier in [0, 2]; nll in nats."""

    ece: float
    brier: float
    nll: float


def fit_calibration(logits: Tensor, labels: Tensor, source: str) -> Calibration:
    """The temperature of least cross-entropy on held-out logits [N, C] with labels [N], and the score that 99% of them reach.

    The cross-entropy is convex in 1/T; its only zero of the derivative is found by Brent's method (C. Guo et al. 2017).

    Raises:
        Refused: no finite temperature is best: each image is right, or the model is no better than chance here.
        Diverged: logits that are not finite.
    """
    from scipy.optimize import brentq

    check_finite(logits)
    logits, labels = logits.double().cpu(), labels.cpu()
    own = logits.gather(1, labels[:, None]).mean()

    def slope(log_inverse: float) -> float:
        """The derivative of the mean cross-entropy by 1/T."""
        p = (logits * math.exp(log_inverse)).softmax(dim=1)
        return float((p * logits).sum(dim=1).mean() - own)

    low, high = (-math.log(temperature) for temperature in reversed(TEMPERATURES))
    many = plural(len(labels), "held-out image")
    if slope(low) >= 0:
        raise Refused("calibration", f"on {many} the model is no better than chance", "train it for longer")
    if slope(high) <= 0:
        raise Refused("calibration", f"the model has {many} all right, so that no temperature is best", "hold more out")
    temperature = math.exp(-brentq(slope, low, high, xtol=1e-12))
    scores = energy_scores(logits, temperature).sort().values
    least = scores[int((1 - ACCEPTED) * len(scores))]
    return Calibration(temperature, float(least), len(labels), source)


def calibration_scores(logits: Tensor, labels: Tensor, calibration: Calibration | None = None) -> CalibrationScores:
    """Of logits [N, C] against labels [N], divided by the temperature if there is one.

    Brier's score is the sum of (p_c - y_c)^2 over the classes, averaged over the images (G. Brier 1950).
    """
    labels = labels.cpu()
    p = probabilities(logits.cpu(), calibration)
    confidence, predicted = p.max(dim=1)
    correct = (predicted == labels).numpy()
    mean_confidence, accuracy, count = equal_mass_bins(confidence.numpy(), correct)
    ece = float((count * np.abs(mean_confidence - accuracy)).sum() / len(labels))
    brier = float((p - F.one_hot(labels, p.shape[1])).square().sum(dim=1).mean())
    scaled = logits.cpu().double() / (calibration.temperature if calibration else 1.0)
    return CalibrationScores(ece, brier, float(F.cross_entropy(scaled, labels)))


def equal_mass_bins(
    confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of each bin that holds any, from the least confidence up.

    An image's bin is that of its rank. Equal confidences have their mean rank, and so one bin, whatever the images' order.
    """
    _, place, ties = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (ties.cumsum() - ties / 2) / len(confidence)  # in [0, 1], of each different confidence
    index = (bins * middle).astype(int)[place]
    count = np.bincount(index, minlength=bins)
    used = count > 0
    means = (np.bincount(index, weights=values, minlength=bins)[used] / count[used] for values in (confidence, correct))
    return *means, count[used]  # type: ignore[return-value]


def calibration_document(logits: Tensor, labels: Tensor, calibration: Calibration | None) -> dict[str, Any]:
    """Plain JSON values: `before` and `after` the temperature (None without one), and where it came from."""
    return {
        "fitted": vars(calibration) if calibration else None,
        "before": vars(calibration_scores(logits, labels)),
        "after": vars(calibration_scores(logits, labels, calibration)) if calibration else None,
    }
