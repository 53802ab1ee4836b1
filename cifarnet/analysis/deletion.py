"""The deletion score of a heat map: how fast the probability of a class falls as the pixels that it marks are removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from cifarnet.engine.metrics import check_finite
from cifarnet.models.classifier import Classifier

STEPS = 32  # equal parts in which the pixels are removed
RANDOM_ORDERS = 10
PIXELS_AT_ONCE = 1 << 16  # of a batch of images, for the sake of memory


@dataclass(frozen=True)
class Deletion:
    """The probability of a class over the fraction of pixels removed (Petsiuk et al., RISE, arXiv 1806.07421, section 4.2).

    removed: from 0 to 1 [S + 1]; probabilities: the most marked pixels first [S + 1]; random: in random orders
    [R, S + 1].
    """

    removed: Tensor
    probabilities: Tensor
    random: Tensor

    @property
    def area(self) -> float:
        """The deletion score, 0 to 1: the area under the curve by the trapezoidal rule. The lower, the better the map."""
        return float(torch.trapezoid(self.probabilities, self.removed))

    @property
    def random_areas(self) -> list[float]:
        """The same of each random order."""
        areas: list[float] = torch.trapezoid(self.random, self.removed.expand_as(self.random)).tolist()
        return areas

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of the random orders the areas, their mean, and the mean curve."""
        return {
            "area": self.area,
            "random_area": fmean(self.random_areas),
            "random_areas": self.random_areas,
            "removed": self.removed.tolist(),
            "probabilities": self.probabilities.tolist(),
            "random_probabilities": self.random.mean(dim=0).tolist(),
        }


class Eraser:
    """Removes the pixels of one image step by step: a removed one is zero after normalisation, the data's mean colour.

    Args:
        model: in evaluation mode.
        image: normalised, [3, H, W].
    """

    def __init__(self, model: Classifier, image: Tensor) -> None:
        self.model, self.image = model.eval(), image
        self.pixels = image.shape[1] * image.shape[2]
        self.counts = torch.linspace(0, self.pixels, STEPS + 1, dtype=torch.float64).round().long()
        self.orders = [
            torch.randperm(self.pixels, generator=torch.Generator().manual_seed(seed)) for seed in range(RANDOM_ORDERS)
        ]
        self.random = torch.stack([self.probabilities(order) for order in self.orders])  # [R, S + 1, C]

    @torch.no_grad()
    def probabilities(self, order: Sequence[int] | Tensor) -> Tensor:
        """Those of all classes [S + 1, C] as the pixels, numbered row by row, are removed in this order."""
        rank = torch.as_tensor(order).argsort().view(1, 1, *self.image.shape[1:])
        at_once = max(1, PIXELS_AT_ONCE // self.pixels)
        parts = [
            self.model(torch.where(rank < counts.view(-1, 1, 1, 1), 0.0, self.image)).softmax(dim=1)
            for counts in self.counts.split(at_once)
        ]
        found = torch.cat(parts).double()
        check_finite(found, "probabilities")
        return found

    def score(self, heat: Tensor, target: int) -> Deletion:
        """The curve of a heat map [H, W] and class; equal pixels, as those without any heat, go in a random order."""
        first = self.orders[0]
        order = first[heat.flatten()[first].argsort(descending=True, stable=True)]
        probabilities = self.probabilities(order)[:, target]
        return Deletion(self.counts.double() / self.pixels, probabilities, self.random[:, :, target])
