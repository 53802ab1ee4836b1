"""AdaCos: no margin, and a scale that the number of classes and the batch decide (arXiv 1905.00292)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.losses.objectives.base import Batch, Kernel, Softmax, everywhere
from cifarnet.losses.options import MarginOptions

LEAST = 0.01  # the dynamic s stays positive, also where prototypes have fallen together


class FixedAdaCos(Softmax, name="adacos-fixed"):
    """s = sqrt(2) log(C - 1), eq. 12."""

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        first_scale(options)
        return {}

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return torch.full_like(norm, first_scale(options))

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        return Kernel("cosface", first_scale(options))


class AdaCos(Softmax, name="adacos"):
    """s = log B / cos(min(pi/4, median theta_y)), B the mean over samples of sum_{j != y} exp(s c_j) at the old s, eq. 15.

    No gradient goes through s. It is the head's state, moved before it is used.
    """

    moves = True

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"state": torch.tensor([first_scale(options)])}

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return memory["state"].to(norm.dtype).expand_as(norm)

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        return Kernel(options.loss)

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        sums = batch.log_sum(self.scale(batch.norm, options, batch.memory))
        both, _ = everywhere(batch.ranks, torch.stack([sums, batch.cosine.acos()], dim=1))
        log_b = both[:, 0].logsumexp(dim=0) - math.log(len(both))
        median = both[:, 1].median()  # the lower one of an even number
        return {"state": (log_b / median.clamp_max(math.pi / 4).cos()).clamp_min(LEAST)[None]}


def first_scale(options: MarginOptions) -> float:
    """sqrt(2) log(C - 1). Raises Refused for two classes, where it is 0 and nothing would be learned."""
    if options.classes < 3:
        raise Refused("num_classes", f"with {options.classes} classes {options.loss}'s scale is 0", "use another loss")
    return math.sqrt(2) * math.log(options.classes - 1)
