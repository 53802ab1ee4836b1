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
    passed, and n_min, the count of the rarest class that has samples. The tables `margins` and `weights` hold Delta_j and w_j in fp32 for
    the compiled head.
    """

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        ones = torch.ones(classes)
        return {"counts": torch.ones(classes, dtype=torch.int64), "margins": options.margin * ones, "weights": ones}

    def counted(self, memory: Mapping[str, Tensor], options: MarginOptions) -> dict[str, Tensor]:
        counts = memory["counts"]
        least = torch.where(counts > 0, counts, counts.amax().clamp_min(1)).amin()
        state = torch.stack([memory["state"][0], least.to(memory["state"])])
        return {"state": state} | self.of_classes(counts, state, options)

    def of_classes(self, counts: Tensor, state: Tensor, options: MarginOptions) -> dict[str, Tensor]:
        """Delta_j and w_j [n], of the counts [n] of some classes."""
        ones = torch.ones_like(counts, dtype=state.dtype)
        weights = rarity(counts.to(state.dtype), options["beta"]) if options["drw"] and options["beta"] else ones
        due = state[0] >= DEFERRED - 1e-6
        return {"margins": ldam_margins(counts, state[1], options.margin), "weights": torch.where(due, weights, ones)}

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return batch.cosine - ldam_margins(batch.memory["counts"][batch.labels], batch.state[1], options.margin)

    def weights(self, batch: Batch, options: MarginOptions) -> Tensor | None:
        if not options["drw"]:
            return None
        return of_mean_one(
            self.of_classes(batch.memory["counts"][batch.labels], batch.state, options)["weights"], batch
        )

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        margins = batch.memory["margins"][batch.labels]
        weights = of_mean_one(batch.memory["weights"][batch.labels], batch) if options["drw"] else None
        return Kernel("cosface", options.scale, margins=margins, weights=weights)

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        passed = torch.full_like(memory["state"][0], epoch / epochs)
        state = torch.stack([passed, memory["state"][1]])
        return {"state": state} | self.of_classes(memory["counts"], state, options)


def ldam_margins(counts: Tensor, least: Tensor, largest: float) -> Tensor:
    """Delta (eq. 13) of classes with these counts: `largest` for the rarest class, and for one without samples."""
    return largest * (least / counts.clamp_min(least)) ** 0.25


def rarity(counts: Tensor, beta: float) -> Tensor:
    """w of classes with these counts but for a factor, 1 / (1 - beta^n)."""
    return -1 / torch.expm1(counts.clamp_min(1) * math.log(beta))


def of_mean_one(weights: Tensor, batch: Batch) -> Tensor:
    """The weights over their mean in the batch of all ranks: the loss's mean is then sum w l / sum w."""
    if batch.ranks.world == 1:
        return weights / weights.mean()
    total, count = batch.ranks.sum(torch.stack([weights.sum(), torch.full_like(weights[0], len(weights))]))
    return weights * (count / total)
