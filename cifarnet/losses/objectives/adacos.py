"""AdaCos: no margin, and a scale that the number of classes and the batch decide (arXiv 1905.00292)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.losses.objectives.base import Batch, Objective, everywhere
from cifarnet.losses.options import MarginOptions

LEAST = 0.01  # the dynamic s stays positive, also where prototypes have fallen together


class FixedAdaCos(Objective, name="adacos-fixed"):
    """s = sqrt(2) log(C - 1), eq. 12."""

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        first_scale(classes, options)
        return {}

    def scale(self, batch: Batch, options: MarginOptions) -> Tensor:
        return torch.full_like(batch.norm, first_scale(batch.cosine.shape[1], options))

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return first_scale(cosine.shape[1], options) * cosine


class AdaCos(Objective, name="adacos"):
    """s = log B / cos(min(pi/4, median theta_y)), B the mean over samples of sum_{j != y} exp(s c_j) at the old s, eq. 15.

    No gradient goes through s. It is the head's state, moved before it is used.
    """

    moves = True

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"state": torch.tensor([first_scale(classes, options)])}

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        sums = (batch.memory["state"] * batch.cosine).masked_fill(batch.own, -math.inf).logsumexp(dim=1)
        both, _ = everywhere(batch.ranks, torch.stack([sums, batch.target.acos()], dim=1))
        log_b = both[:, 0].logsumexp(dim=0) - math.log(len(both))
        median = both[:, 1].median()  # the lower one of an even number
        return {"state": (log_b / median.clamp_max(math.pi / 4).cos()).clamp_min(LEAST)[None]}

    def scale(self, batch: Batch, options: MarginOptions) -> Tensor:
        return batch.memory["state"].expand_as(batch.norm)

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return memory["state"] * cosine


def first_scale(classes: int, options: MarginOptions) -> float:
    """sqrt(2) log(C - 1). Raises Refused for two classes, where it is 0 and nothing would be learned."""
    if classes < 3:
        raise Refused("num_classes", f"with {classes} classes {options.loss}'s scale is 0", "use another loss")
    return math.sqrt(2) * math.log(classes - 1)
