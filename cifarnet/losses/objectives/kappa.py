"""KappaFace: wider margins for classes that are spread, or that have few samples (arXiv 2201.07394)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax
from cifarnet.losses.objectives.originals import angular_margin
from cifarnet.losses.options import MarginOptions

CLOSEST = 1 - 1e-6  # rho^2 goes no further: samples that are all the same would be concentrated without bound


class KappaFace(Softmax, name="kappaface"):
    """psi = cos(theta_y + m psi_y), past pi ArcFace's line; psi [C] is 1 in the first epoch, then once an epoch `margin_factors`.

    `sums` [C, D+1] holds each class's unit features of the epoch added up, and how many these were.
    """

    collects = True

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"psi": torch.ones(classes), "sums": torch.zeros(classes, size + 1)}

    def collect(self, batch: Batch, loss: Tensor) -> None:
        batch.add_unit(batch.memory["sums"], loss)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return angular_margin(batch, options.margin * batch.memory["psi"][batch.labels], easy=False)

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        margins = options.margin * batch.memory["psi"][batch.labels]
        return Kernel("arcface", options.scale, constants=[0.0], margins=margins)

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        sums = memory["sums"]
        if epoch == 0 or not bool(sums[:, -1].any()):
            return {}
        factors = margin_factors(sums.cpu().double(), options["temperature"], options["gamma"])
        return {"psi": factors.to(sums), "sums": torch.zeros_like(sums)}


def margin_factors(sums: Tensor, temperature: float, gamma: float) -> Tensor:
    """psi [C] in [0, 1], of the sums [C, D+1] of an epoch, float64.

    psi = gamma (1 - sigmoid(T k)) + (1 - gamma) (1 + cos(pi n / (1.05 n_max))) / 2, with k the concentrations
    rho (D - rho^2) / (1 - rho^2), rho = |S|/n, standardised over the classes; 0 where they are all equal. One sample says
    nothing of how spread its class is: of such a class k is 0, and the others' mean and deviation are taken without it (the
    paper's formula has rho = 1 there, a concentration without bound beside which all others are alike).
    """
    features, seen = sums[:, :-1], sums[:, -1]
    size = features.shape[1]
    rho = features.norm(dim=1) / seen.clamp_min(1)
    square = rho.square().clamp_max(CLOSEST)
    kappa = square.sqrt() * (size - square) / (1 - square)
    several = seen > 1
    known, standard = kappa[several], torch.zeros_like(kappa)
    if len(known) > 1 and known.std() > 1e-9 * known.mean():
        standard[several] = (known - known.mean()) / known.std()
    concentrated = gamma * (1 - torch.sigmoid(temperature * standard))
    return concentrated + (1 - gamma) * (1 + torch.cos(math.pi * seen / (1.05 * seen.max()))) / 2
