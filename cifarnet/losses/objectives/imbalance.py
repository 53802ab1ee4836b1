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

    n_j is the head's table `counts`, 1 for each class until it is told (`Head.count`). The state is the part of the epochs that has
    passed, and n_min, the count of the rarest class that has samples.
    """

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"counts": torch.ones(classes, dtype=torch.int64)}

    def counted(self, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
        counts = memory["counts"]
        least = torch.where(counts > 0, counts, counts.amax().clamp_min(1)).amin()
        return {"state": torch.stack([memory["state"][0], least.to(memory["state"])])}

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return batch.cosine - self.margins(batch, options)

    def margins(self, batch: Batch, options: MarginOptions) -> Tensor:
        """Delta_y [N] (eq. 13): m for the rarest class, and for one without samples."""
        least = batch.state[1]
        return options.margin * (least / batch.memory["counts"][batch.labels].clamp_min(least)) ** 0.25

    def weights(self, batch: Batch, options: MarginOptions) -> Tensor | None:
        """w_y / mean w_y of the batch of all ranks, w_j = (1-beta) / (1-beta^n_j); 1 before they are due."""
        if not options["drw"]:
            return None
        counts = batch.memory["counts"][batch.labels].to(batch.state.dtype)
        weights = (
            (-1 / torch.expm1(counts.clamp_min(1) * math.log(options["beta"]))) if options["beta"] else counts * 0 + 1
        )
        weights = torch.where(batch.state[0] >= DEFERRED - 1e-6, weights, 1.0)
        if batch.ranks.world == 1:
            return weights / weights.mean()
        total, count = batch.ranks.sum(torch.stack([weights.sum(), torch.full_like(weights[0], len(weights))]))
        return weights * (count / total)  # the mean over all ranks is sum w l / sum w of the whole batch

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        margins = self.margins(batch, options)
        return Kernel("cosface", options.scale, margins=margins, weights=self.weights(batch, options))

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        passed = torch.full_like(memory["state"][0], epoch / epochs)
        return {"state": torch.stack([passed, memory["state"][1]])}
