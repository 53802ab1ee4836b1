"""What a loss in pure torch sees of a batch, and what it may say of it. A loss is a subclass, known by its name in LOSSES.

Unlike the margins of `losses.margins`, which the compiled head has too, it sees all cosines and may keep tables of its own.
Shapes: N samples of this rank, C classes, D feature size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.angles import Angles, normalize
from cifarnet.losses.margin_loss import softmax_losses
from cifarnet.losses.options import MarginOptions
from cifarnet.losses.sharded.collectives import gathered

OBJECTIVES: dict[str, "Objective"] = {}


@dataclass
class Batch:
    """A batch before its loss.

    unit [N, D] and norm [N]: of the features; cosine [N, C], clamped; labels [N]; memory: what the head keeps, by name ("state",
    the tables, what it learns besides W); training: in a training step; ranks: those whose batches make up the step's.
    """

    unit: Tensor
    norm: Tensor
    cosine: Tensor
    labels: Tensor
    memory: dict[str, Tensor]
    training: bool = False
    ranks: Ranks = ALONE

    @cached_property
    def own(self) -> Tensor:
        """[N, C]: is it the sample's own class?"""
        return torch.zeros_like(self.cosine, dtype=torch.bool).scatter_(1, self.labels[:, None], True)

    @cached_property
    def target(self) -> Tensor:
        """The cosine to the own class [N]."""
        return self.cosine.gather(1, self.labels[:, None]).squeeze(1)

    @property
    def angles(self) -> Angles:
        """The targets as `losses.margins` takes them."""
        return Angles(self.target, self.norm, self.memory["state"])


class Objective:
    """The plain normalised softmax, s fixed: a subclass says what differs. `class Name(Objective, name="its-name")`."""

    moves: ClassVar[bool] = False  # a training step changes what the head keeps

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            OBJECTIVES[name] = cls()

    def shape(self, classes: int, size: int, options: MarginOptions) -> tuple[int, ...]:
        """The shape of W."""
        return classes, size

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        """What the head keeps besides W, at its start; a "state" here takes the place of the row's."""
        return {}

    def learned(self, classes: int, options: MarginOptions) -> dict[str, Tensor]:
        """What the head learns besides W, without weight decay, at its start."""
        return {}

    def cosines(self, unit: Tensor, weight: Tensor) -> Tensor:
        """[N, C], of unit features [N, D]."""
        return unit @ normalize(weight)[0].T

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        """In training, what is kept after this step, by name; the step itself uses it already. Of the batch of all ranks."""
        return {}

    def scale(self, batch: Batch, options: MarginOptions) -> Tensor:
        """s [N] of the samples."""
        return torch.full_like(batch.norm, options.scale)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        """psi [N], the cosine that takes the place of the target's."""
        return batch.target

    def others(self, batch: Batch, options: MarginOptions) -> Tensor:
        """[N, C], the cosines as the other classes' logits take them; the own class's is not read."""
        return batch.cosine

    def losses(self, batch: Batch, options: MarginOptions) -> Tensor:
        """[N], whose mean is the loss: softmax cross-entropy over s psi and s times the others."""
        target, scale = self.target(batch, options), self.scale(batch, options)
        return softmax_losses(batch.own, target, scale, self.others(batch, options))[0]

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        """The logits of inference [N, C], of the cosines [N, C] and the features' norms [N]."""
        return options.scale * cosine

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        """What is kept before the first step of `epoch` (from 0, of `epochs`), by name, where it changes."""
        return {}


def everywhere(ranks: Ranks, mine: Tensor) -> tuple[Tensor, slice]:
    """The rows [n, ...] of all ranks in their order, and which of them are this rank's."""
    if ranks.world == 1:
        return mine, slice(0, len(mine))
    sizes = ranks.concatenated(torch.tensor([len(mine)])).tolist()
    start = sum(sizes[: ranks.rank])
    return gathered(ranks, mine, sizes), slice(start, start + len(mine))


def held(value: Tensor, carrier: Tensor) -> Tensor:
    """`value` with the derivative of `carrier` (characteristic gradient detachment); both of one shape."""
    return value.detach() + (carrier - carrier.detach())
