"""A batch as a margin loss sees it, and the base class of the losses. A loss is a subclass, known by its name in LOSSES.

Pure torch, with autograd: the reference for the compiled kernels, and what runs where they do not. A loss speaks of the target's
cosine c_y [N] and, block by block, of the other cosines, so that nothing of size N x C need exist.
Shapes: N samples, C classes, D feature size, [N, c] a block of the classes.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.angles import normalize
from cifarnet.losses.options import MarginOptions
from cifarnet.losses.sharded.collectives import gathered

OBJECTIVES: dict[str, "Objective"] = {}


@dataclass
class Batch:
    """N samples before their loss.

    Attributes:
        cosine: c_y [N], clamped.
        norm: [N], and unit: [N, D], of the features.
        labels: [N].
        memory: what the head keeps, by name: "state", the tables, what it learns besides W.
        log_sum: of s [N], log of the sum over the other classes of exp(s c_j), [N].
        training: in a training step.
        ranks: those whose batches make up the step's.
        moved: the memory is as the step uses it, and not as before the step.
    """

    cosine: Tensor
    norm: Tensor
    unit: Tensor
    labels: Tensor
    memory: dict[str, Tensor]
    log_sum: Callable[[Tensor], Tensor]
    training: bool = False
    ranks: Ranks = ALONE
    moved: bool = True

    @property
    def state(self) -> Tensor:
        """The running state."""
        return self.memory["state"]

    @property
    def sine(self) -> Tensor:
        """sin(theta_y) [N], positive; (1-c)(1+c) keeps its digits where 1 - c^2 loses them."""
        return ((1 - self.cosine) * (1 + self.cosine)).clamp_min(torch.finfo(self.cosine.dtype).tiny).sqrt()

    def finite(self, loss: Tensor) -> Tensor:
        """Is the loss of every rank finite?"""
        finite = loss.isfinite()
        return finite if self.ranks.world == 1 else self.ranks.largest((~finite).float()) == 0

    def add_unit(self, sums: Tensor, loss: Tensor) -> None:
        """Adds each sample's unit features and a 1 to its class's row of `sums` [C, D + 1], if the loss is finite; of all ranks."""
        finite = self.finite(loss)
        unit, _ = everywhere(self.ranks, torch.where(finite, self.unit, 0.0))
        labels, _ = everywhere(self.ranks, self.labels)
        sums[:, :-1].index_add_(0, labels, unit.to(sums.dtype))
        sums[:, -1].index_add_(0, labels, finite.to(sums.dtype).expand(len(labels)))

    def detached(self) -> "Batch":
        """The same samples, without gradients."""
        vectors = self.cosine.detach(), self.norm.detach(), self.unit.detach()
        return Batch(*vectors, self.labels, self.memory, self.log_sum, self.training, self.ranks, self.moved)


@dataclass(frozen=True)
class Kernel:
    """A call of the compiled head: which of its losses, with which constants (in the order of its enum).

    margins: fp32 [N], each sample's m in place of `margin`; weights: fp32 [N], of each sample's softmax part.
    """

    loss: str
    scale: float = 1.0
    margin: float = 0.0
    constants: list[float] = field(default_factory=list)
    margins: Tensor | None = None
    weights: Tensor | None = None


class Objective:
    """A loss over cosines. `class Name(Softmax, name="its-name")` makes it known."""

    moves: ClassVar[bool] = False  # a training step changes what the head keeps
    collects: ClassVar[bool] = False  # and adds to what an epoch adds up, see `collect`
    centres: ClassVar[bool] = False  # a class has several prototypes

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            OBJECTIVES[name] = cls()

    def shape(self, classes: int, size: int, options: MarginOptions) -> tuple[int, ...]:
        """The shape of W."""
        return classes, size

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        """The tensors that the head keeps besides W, at its start; a "state" here takes the place of the row's."""
        return {}

    def learned(self, classes: int, options: MarginOptions) -> dict[str, Tensor]:
        """The parameters that the head learns besides W, without weight decay, at its start."""
        return {}

    def cosines(self, unit: Tensor, weight: Tensor) -> Tensor:
        """[N, C], of unit features [N, D]."""
        return unit @ normalize(weight)[0].T

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        """In training, what is kept after this step, by name; the step itself uses it already. Of the batch of all ranks."""
        return {}

    def counted(self, memory: Mapping[str, Tensor], options: MarginOptions) -> dict[str, Tensor]:
        """The tensors that change, by name, once the training samples of each class are counted."""
        return {}

    def collect(self, batch: Batch, loss: Tensor) -> None:
        """Adds this step to what an epoch adds up, in `batch.memory`, if its loss is finite. Of the batch of all ranks."""

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        """The tensors that change before the first step of `epoch` (from 0, of `epochs`), by name."""
        return {}

    @abstractmethod
    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        """The logits of inference [N, C], of the cosines [N, C] and the features' norms [N]."""


class Softmax(Objective):
    """Softmax cross-entropy over s psi and s times the others, s fixed, no margin: a subclass says what differs."""

    @abstractmethod
    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        """The compiled call. The batch's angles are taken when they are asked for: a loss that can do without is faster."""

    def scales_by_norm(self, options: MarginOptions) -> bool:
        """Is s the features' norm?"""
        return False

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        """s [N], of the features' norms [N]."""
        return torch.full_like(norm, options.scale)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        """psi [N], the cosine that takes the place of the target's."""
        return batch.cosine

    def others(self, cosine: Tensor, batch: Batch, options: MarginOptions) -> Tensor:
        """The cosines of other classes [N, c] as their logits take them; the same tensor where nothing changes."""
        return cosine

    def weights(self, batch: Batch, options: MarginOptions) -> Tensor | None:
        """[N], by which each sample's loss is multiplied, or None."""
        return None

    def penalty(self, norm: Tensor, options: MarginOptions) -> Tensor | None:
        """[N], added to each sample's loss, or None."""
        return None

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return self.scale(norm, options, memory)[:, None] * cosine

    def losses(self, batch: Batch, options: MarginOptions, peak: Tensor, log_rest: Tensor) -> Tensor:
        """[N], whose mean is the loss, where the sum over the other classes of exp(s n_j) is exp(s peak + log_rest).

        softplus(log S - s psi): written so, it does not cancel once the model is trained; and cosines are subtracted before
        they are scaled: s (peak - psi) keeps its digits at any s.
        """
        scale = self.scale(batch.norm, options, batch.memory)
        losses = F.softplus(scale * (peak - self.target(batch, options)) + log_rest, threshold=40)
        weights, penalty = self.weights(batch, options), self.penalty(batch.norm, options)
        losses = losses if weights is None else losses * weights
        return losses if penalty is None else losses + penalty


class OneVsAll(Objective):
    """own sp(-f_y) + rest times the sum over j != y of sp(f_j), sp(x) = log(1 + e^x): each class is a yes or no of its own."""

    @abstractmethod
    def kernel(self, options: MarginOptions) -> Kernel:
        """The compiled call, of `one_vs_all`; the first two constants are `parts`."""

    @abstractmethod
    def parts(self, options: MarginOptions) -> tuple[float, float]:
        """The weights of the own class's term and of the others'."""

    @abstractmethod
    def target_logit(self, batch: Batch, options: MarginOptions) -> Tensor:
        """f_y [N]."""

    @abstractmethod
    def other_logits(self, cosine: Tensor, memory: Mapping[str, Tensor], options: MarginOptions) -> Tensor:
        """f_j of other classes [N, c], of their cosines."""

    def losses(self, batch: Batch, options: MarginOptions, others: Tensor) -> Tensor:
        """[N], whose mean is the loss; others [N]: the sum over the other classes of sp(f_j)."""
        own, rest = self.parts(options)
        return own * softplus(-self.target_logit(batch, options)) + rest * others


def softplus(value: Tensor) -> Tensor:
    """log(1 + e^x), elementwise."""
    return F.softplus(value, threshold=40)


def everywhere(ranks: Ranks, mine: Tensor) -> tuple[Tensor, slice]:
    """The rows [n, ...] of all ranks in their order, and which of them are this rank's."""
    if ranks.world == 1:
        return mine, slice(0, len(mine))
    sizes = ranks.concatenated(torch.tensor([len(mine)])).tolist()
    start = sum(sizes[: ranks.rank])
    return gathered(ranks, mine, sizes), slice(start, start + len(mine))


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """`value` with the derivative of `carrier` (characteristic gradient detachment); both of one shape."""
    return value.detach() + (carrier - carrier.detach())
