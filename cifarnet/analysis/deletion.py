"""The deletion score of a heat map: how fast the probability of a class falls as the pixels that it marks are removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from cifarnet.analysis.cam import upsample
from cifarnet.core.torch_settings import own_modes
from cifarnet.engine.metrics import check_finite
from cifarnet.models.calibration import Calibration, probabilities
from cifarnet.models.classifier import Classifier

STEPS = 32  # equal parts in which the pixels are removed
DRAWS = 10  # random orders of pixels, and random maps
PIXELS_AT_ONCE = 1 << 16  # of a batch of images, for the sake of memory


@dataclass(frozen=True)
class Deletion:
    """The probability of a class over the fraction of pixels removed (Petsiuk et al., RISE, arXiv 1806.07421).

    removed: from 0 to 1 [S + 1]; probabilities: the most marked pixels first [S + 1]. To compare with: random: pixels in
    random orders [R, S + 1]; random_maps: by maps of random numbers, as coarse as the layer's [R, S + 1]. Single pixels
    missing everywhere disturb a network more than a hole does, so that a coarse map may be good and yet above `random`.
    """

    removed: Tensor
    probabilities: Tensor
    random: Tensor
    random_maps: Tensor

    @property
    def area(self) -> float:
        """The deletion score, 0 to 1: the area under the curve by the trapezoidal rule. The lower, the better the map."""
        return float(torch.trapezoid(self.probabilities, self.removed))

    def areas(self, curves: Tensor) -> list[float]:
        """The same of random curves [R, S + 1]."""
        areas: list[float] = torch.trapezoid(curves, self.removed.expand_as(curves)).tolist()
        return areas

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of the random orders and maps the areas, their mean, and the mean curve."""
        values = {"area": self.area, "removed": self.removed.tolist(), "probabilities": self.probabilities.tolist()}
        for name, curves in (("random", self.random), ("random_map", self.random_maps)):
            areas = self.areas(curves)
            values |= {f"{name}_area": fmean(areas), f"{name}_areas": areas}
            values[f"{name}_probabilities"] = curves.mean(dim=0).tolist()
        return values


def colour_of_removed(mean: Sequence[float]) -> str:
    """The colour that a removed pixel gets, zero after normalisation by this `mean`: of a model that takes pixels as they are it is black."""
    return "the mean colour" if any(mean) else "black"


class Eraser:
    """Removes the pixels of one image step by step: a removed one is zero after normalisation (see `colour_of_removed`).

    Args:
        model: in evaluation mode.
        image: normalised, [3, S, S].
        coarse: height and width of the maps that are scored, before they are scaled up.
        calibration: the model's; probabilities are those that `predict` gives.
    """

    def __init__(
        self, model: Classifier, image: Tensor, coarse: Sequence[int], calibration: Calibration | None = None
    ) -> None:
        self.model, self.image, self.calibration = model.eval(), image, calibration
        self.pixels = image.shape[1] * image.shape[2]
        self.counts = torch.linspace(0, self.pixels, STEPS + 1, dtype=torch.float64).round().long()
        generators = [torch.Generator().manual_seed(seed) for seed in range(DRAWS)]
        self.orders = [torch.randperm(self.pixels, generator=generator) for generator in generators]
        maps = [upsample(torch.rand(*coarse, generator=generator), image.shape[2]) for generator in generators]
        self.random = torch.stack([self.probabilities(order) for order in self.orders])  # [R, S + 1, C]
        self.random_maps = torch.stack([self.probabilities(self.order_of(heat)) for heat in maps])

    def order_of(self, heat: Tensor) -> Tensor:
        """The pixels of a map [S, S], the most marked first; equal ones, as those without any heat, in a random order."""
        first = self.orders[0]
        return first[heat.flatten()[first].argsort(descending=True, stable=True)]

    @own_modes()
    @torch.no_grad()
    def probabilities(self, order: Tensor) -> Tensor:
        """Those of all classes [S + 1, C] as the pixels, numbered row by row, are removed in this order."""
        rank = order.argsort().view(1, 1, *self.image.shape[1:])
        at_once = max(1, PIXELS_AT_ONCE // self.pixels)
        parts = [
            probabilities(self.model(torch.where(rank < counts.view(-1, 1, 1, 1), 0.0, self.image)), self.calibration)
            for counts in self.counts.split(at_once)
        ]
        found = torch.cat(parts)
        check_finite(found, "probabilities")
        return found

    def score(self, heat: Tensor, target: int) -> Deletion:
        """The curve of a heat map [S, S] and class, beside the random ones."""
        found = self.probabilities(self.order_of(heat))
        curves = (found[:, target], self.random[:, :, target], self.random_maps[:, :, target])
        return Deletion(self.counts.double() / self.pixels, *curves)
