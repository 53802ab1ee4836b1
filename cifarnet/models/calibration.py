"""How far a model's probabilities can be believed, learned from images that it was not trained on: one temperature, one threshold."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

TEMPERATURES = (1e-3, 1e3)  # the least and the largest


@dataclass(frozen=True)
class Calibration:
    """Kept in a checkpoint.

    temperature: logits are divided by it before the softmax (C. Guo et al. 2017, section 4.2).
    unknown_at: the energy score (see `energy_scores`) that 99% of the held-out images reach; an image below it is none of the classes.
    images: how many were held out; source: which ones, in words.
    """

    temperature: float
    unknown_at: float
    images: int
    source: str


def probabilities(logits: Tensor, calibration: Calibration | None) -> Tensor:
    """Class probabilities [N, C], float64, of logits [N, C]; without a calibration their plain softmax."""
    return (logits.double() / (calibration.temperature if calibration else 1.0)).softmax(dim=1)


def energy_scores(logits: Tensor, temperature: float) -> Tensor:
    """T log sum_j exp(logit_j / T), float64 [N]: the negative free energy, low for images that are unlike the training's.

    W. Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4.
    """
    return temperature * (logits.double() / temperature).logsumexp(dim=1)


def parse_calibration(values: Any) -> Calibration | None:
    """The calibration in a checkpoint's metadata; None where there is none.

    Raises:
        ValueError: it is not one.
    """
    if values is None:
        return None
    try:
        found = Calibration(**values)
    except TypeError as error:
        raise ValueError("calibration has other fields than it should") from error
    numbers = (found.temperature, found.unknown_at)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
        raise ValueError("a number of its calibration is none")
    if not TEMPERATURES[0] <= found.temperature <= TEMPERATURES[1] or not math.isfinite(found.unknown_at):
        raise ValueError("its calibration is out of range")
    if type(found.images) is not int or found.images < 1:
        raise ValueError("its calibration says of no images")
    if not isinstance(found.source, str) or not found.source.isprintable():
        raise ValueError("its calibration's source is no plain text")
    return found
