"""ElasticFace: a margin drawn anew for each sample and step (arXiv 2109.09416).

A draw follows from the head's state (steps, seed) and the sample's place in the batch of all ranks, so that a resumed run, and one
on other ranks, draws the same.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax, everywhere
from cifarnet.losses.objectives.originals import angular_margin
from cifarnet.losses.options import MarginOptions

SEEDS = 2**24  # as many as fp32 tells apart
Draws = Callable[[Tensor, int, int, float, float], Tensor]
# splitmix64's multipliers and its increment, as int64 holds them
MIX = tuple(number - 2**64 for number in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))


class ElasticFace(Softmax):
    """m_i ~ N(m, sigma) in training, m in evaluation; with plus, the smallest draw goes to the largest c_y.

    The authors' code pairs draws and samples by another permutation, nearly at random; this is the paper's.
    """

    moves = True

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"state": torch.cat([torch.zeros(1), torch.randint(SEEDS, (1,)).float()])}

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        steps, seed = batch.state
        return {"state": torch.stack([steps + 1, seed])}

    def margins(self, batch: Batch, options: MarginOptions, draws: Draws) -> Tensor:
        """m_i [N] in training."""
        labels, mine = everywhere(batch.ranks, batch.labels)
        margins = draws(batch.state, 0 if batch.moved else 1, len(labels), options.margin, options["sigma"])
        if options["plus"]:
            targets, _ = everywhere(batch.ranks, batch.cosine.detach())
            order = targets.argsort(descending=True, stable=True)
            margins = torch.empty_like(margins).scatter_(0, order, margins.sort().values)
        return margins[mine]

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        if not batch.training:
            return self.under_margin(batch, torch.full_like(batch.cosine, options.margin))
        return self.under_margin(batch, self.margins(batch, options, normal_draws))

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        never, draws = [0.0, 0.0], torch.ops.cifarnet.normal_draws
        if not batch.training:
            return Kernel(options.loss, options.scale, options.margin, never)
        if batch.ranks.world > 1:
            return Kernel(options.loss, options.scale, constants=never, margins=self.margins(batch, options, draws))
        margins = draws(batch.state, 0 if batch.moved else 1, len(batch.labels), options.margin, options["sigma"])
        return Kernel(options.loss, options.scale, constants=[0.0, float(options["plus"])], margins=margins)

    @abstractmethod
    def under_margin(self, batch: Batch, margin: Tensor) -> Tensor:
        """psi [N]."""


class ElasticArcFace(ElasticFace, name="elastic-arcface"):
    """psi = cos(theta_y + m_i), past pi ArcFace's line."""

    def under_margin(self, batch: Batch, margin: Tensor) -> Tensor:
        return angular_margin(batch, margin, easy=False)


class ElasticCosFace(ElasticFace, name="elastic-cosface"):
    """psi = c_y - m_i."""

    def under_margin(self, batch: Batch, margin: Tensor) -> Tensor:
        return batch.cosine - margin


def normal_draws(state: Tensor, ahead: int, count: int, mean: float, std: float) -> Tensor:
    """[count] draws of N(mean, std); the extension has the same."""
    return mean + std * standard_normal(count, state, ahead)


def standard_normal(count: int, state: Tensor, ahead: int = 0) -> Tensor:
    """[count] draws of N(0, 1) that follow from `state` (steps + ahead, seed) alone; its dtype and device, and no waiting for it.

    Each place is hashed with splitmix64 (Steele, Lea and Flood, 2014); 24 bits of it, so |x| < 5.5.
    """
    steps, seed = state.long()
    bits = torch.arange(count, device=state.device) + ((steps + ahead) << 20) + hashed(seed)
    uniform = ((hashed(bits) >> 40) & (SEEDS - 1)).to(state.dtype) * 2 + (1 - SEEDS)
    return math.sqrt(2) * torch.erfinv(uniform / SEEDS)


def hashed(number: Tensor) -> Tensor:
    """splitmix64's output function of int64 numbers, modulo 2^64."""
    number = number * MIX[2] + MIX[2]
    number = (number ^ _shifted(number, 30)) * MIX[0]
    number = (number ^ _shifted(number, 27)) * MIX[1]
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, by: int) -> Tensor:
    """To the right, zeros from the left."""
    return (number >> by) & ((1 << (64 - by)) - 1)
