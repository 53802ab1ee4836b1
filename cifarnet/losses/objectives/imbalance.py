"""LDAM: margins and weights that follow the number of training samples of each class (arXiv 1906.07413)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax
from cifarnet.losses.options import MarginOptions

DEFERRED = 0.8  # of the epochs pass before rare classes weigh more: the authors' 160 of 200


class LDAM(Softmax, name="ldam"):
    """psi = c_y - Delta_y, Delta_j = m (n_min / n_j)^(1/4); with drw a weighted mean late in the training.

    n_j is the head's table `counts`, 1 for each class until it is told (`Head.count`). The state is the part of the
    epochs that has passed.
    """

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"counts": torch.ones(classes, dtype=torch.int64)}

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return batch.cosine - ldam_margins(batch.memory["counts"], options.margin)[batch.labels]

    def weights(self, batch: Batch, options: MarginOptions) -> Tensor | None:
        if not options["drw"]:
            return None
        rare = rarity(batch.memory["counts"], options["beta"])[batch.labels]
        weights = torch.where(batch.state[0] >= DEFERRED - 1e-6, rare, torch.ones_like(rare))
        total, count = batch.ranks.sum(torch.stack([weights.sum(), torch.ones_like(weights).sum()]))
        return weights * (count / total)  # the mean over all ranks is sum w l / sum w of the whole batch

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        margins = ldam_margins(batch.memory["counts"], options.margin)[batch.labels]
        return Kernel("cosface", options.scale, margins=margins, weights=self.weights(batch, options))

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        return {"state": torch.full_like(memory["state"], epoch / epochs)}


def ldam_margins(counts: Tensor, largest: float) -> Tensor:
    """Delta [C] (eq. 13): `largest` for the rarest class that has samples, and for one that has none."""
    least = torch.where(counts > 0, counts, math.inf).amin()
    least = torch.where(least.isfinite(), least, 1.0)
    return largest * (least / counts.clamp_min(least)) ** 0.25


def rarity(counts: Tensor, beta: float) -> Tensor:
    """w_j [C] = (1-beta) / (1-beta^n_j) times what makes their mean 1 over the classes that have samples."""
    if beta == 0:
        return torch.ones_like(counts)
    weights = (beta - 1) / torch.expm1(counts.clamp_min(1) * math.log(beta))
    present = (counts > 0).to(weights.dtype)
    mean = (weights * present).sum() / present.sum().clamp_min(1)
    return weights / torch.where(mean > 0, mean, 1.0)
