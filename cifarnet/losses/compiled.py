"""The loss of a batch by the compiled head: what a loss adds of its own is taken in torch, on [N] vectors."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses import kernels
from cifarnet.losses.angles import clamp_cosine, normalize
from cifarnet.losses.contract import check_range, full_precision
from cifarnet.losses.margin_loss import next_memory, settle
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Batch, Kernel, OneVsAll, Softmax
from cifarnet.losses.one_vs_all import one_vs_all
from cifarnet.losses.options import MarginOptions


class UnseenBatch(Batch):
    """A batch whose angles are taken only when a loss asks for them, without gradients. At ten classes each call of torch counts."""

    def __init__(
        self, features: Tensor, weight: Tensor, labels: Tensor, memory: dict[str, Tensor], training: bool, ranks: Ranks
    ) -> None:
        self.given, self.labels, self.memory = (features, weight), labels, memory
        self.training, self.ranks, self.moved = training, ranks, False

    def detached(self) -> "UnseenBatch":
        return self

    @property
    def features(self) -> Tensor:
        """[N, D]."""
        return self.given[0].detach()

    @property
    def weight(self) -> Tensor:
        """[C, D], of sub-centres [C, K, D]."""
        return self.given[1].detach()

    @cached_property
    def norm(self) -> Tensor:  # type: ignore[override]
        """[N]."""
        return normalize(self.features.float())[1]

    @cached_property
    def unit(self) -> Tensor:  # type: ignore[override]
        """[N, D]."""
        with full_precision(self.features.device):
            return normalize(self.features.float())[0]

    def add_unit(self, sums: Tensor, loss: Tensor) -> None:
        if sums.device.type == "cpu" and self.ranks.world == 1:
            torch.ops.cifarnet.add_unit(sums, self.features, self.labels, self.norm, loss)
        else:
            super().add_unit(sums, loss)

    @cached_property
    def cosine(self) -> Tensor:  # type: ignore[override]
        """c_y [N]."""
        check_range(self.labels, len(self.weight))
        own = normalize(self.weight[self.labels].float())[0]
        return clamp_cosine((self.unit * own).sum(dim=1))

    def log_sum(self, scale: Tensor) -> Tensor:
        """As `Batch.log_sum`, of an s that is the same for all samples."""
        call = Kernel("adacos")  # no margin, and s from the device
        _, _, rows = kernels.margin_loss(self.features, self.weight, self.labels, call, scale[:1], False)
        self.cosine = clamp_cosine(rows[:, 1])
        return rows[:, 3]


def compiled_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    options: MarginOptions,
    memory: Mapping[str, Tensor],
    training: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """As `margin_loss.margin_loss`; `kernels.resolve` must have allowed it. Computed in fp32.

    The rows are all that the extension keeps of a sample; the first three columns are those of `margin_loss`.
    """
    objective = OBJECTIVES[options.loss]
    if isinstance(objective, OneVsAll):
        call = kernels.numbers_of(objective.kernel(options))
        return *one_vs_all(features, weight, labels, memory["bias"], call), {}
    assert isinstance(objective, Softmax)
    batch = UnseenBatch(features, weight, labels, dict(memory), training, ranks if training else ALONE)
    outside = training and objective.moves and ranks.world > 1
    moved = next_memory(objective, batch, options) if outside else {}
    kernel = objective.kernel(batch, options)
    # A loss that borrows a kernel has no state there.
    state = batch.state if kernel.loss == options.loss else batch.state[:0]
    moves = training and objective.moves and not outside
    if weight.dim() == 3 and weight.shape[1] > 1:
        labels = torch.ops.cifarnet.nearest_centres(batch.features, batch.weight, labels)
    loss, state, rows = kernels.margin_loss(features, weight, labels, kernel, state, moves)
    if moves:
        return loss, rows, {"state": state}
    if outside or objective.collects:
        batch.norm = rows[:, 0]
        moved = settle(objective, batch, loss, memory, moved)
    return loss, rows, moved
