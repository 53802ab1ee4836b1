"""The loss of a batch under a margin, in pure torch, and the logits of inference. Shapes: N samples, D feature size, C classes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.angles import COSINE_LIMIT, clamp_cosine, normalize
from cifarnet.losses.contract import check_features, full_precision, refuse_meta, working_type
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Batch, Objective, OneVsAll, Softmax, softplus
from cifarnet.losses.options import MarginOptions

Memory = Mapping[str, Tensor]


def margin_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    options: MarginOptions,
    memory: Memory,
    training: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The mean loss of this rank's rows, three numbers of each row, and what the head keeps from now on.

    Args:
        features: z [N, D], any float dtype and any norm; computed in fp32 at least.
        weight: class prototypes W [C, D], any norm; [C, K, D] for a loss with several a class.
        labels: y [N], int64 in [0, C).
        options: the loss and its constants.
        memory: all that the head keeps besides W, by name: "state", tables, what it learns.
        training: whether that moves; it does not where the loss of any of the `ranks` is not finite.

    Returns:
        loss: a scalar, fp32 (float64 for float64 features); rows [N, 3], detached: |z|, c_y and the largest other cosine (see
        `correct`); what has moved, by name, in the types of `memory`.
    """
    objective = OBJECTIVES[options.loss]
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        cosine = clamp_cosine(objective.cosines(unit, weight.to(working)))
        own = torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, labels[:, None], True)

        def log_sum(scale: Tensor) -> Tensor:
            return (scale[:, None] * cosine).masked_fill(own, -math.inf).logsumexp(dim=1)

        target = cosine.gather(1, labels[:, None]).squeeze(1)
        batch = Batch(
            target, norm, unit, labels, in_type(working, memory), log_sum, training, ranks if training else ALONE
        )
        moved = next_memory(objective, batch, options) if training else {}
        loss = losses_of(objective, batch, options, cosine, own).mean()
        moved = settle(objective, batch, loss, memory, moved)
        with torch.no_grad():
            highest = cosine.masked_fill(own, -math.inf).amax(dim=1)
            rows = torch.stack([norm, target, highest], dim=1)
    return loss, rows, moved


def losses_of(objective: Objective, batch: Batch, options: MarginOptions, cosine: Tensor, own: Tensor) -> Tensor:
    """The loss of each sample [N], of all cosines [N, C]; own [N, C]: is it the sample's own class?"""
    if isinstance(objective, OneVsAll):
        logits = objective.other_logits(cosine, batch.memory, options)
        return objective.losses(batch, options, softplus(logits.masked_fill(own, -math.inf)).sum(dim=1))
    assert isinstance(objective, Softmax)
    others = objective.others(cosine, batch, options)
    peak = others.detach().masked_fill(own, -math.inf).amax(dim=1)
    logits = objective.scale(batch.norm, options, batch.memory)[:, None] * (others - peak[:, None])
    return objective.losses(batch, options, peak, logits.masked_fill(own, -math.inf).logsumexp(dim=1))


@torch.no_grad()
def next_memory(objective: Objective, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
    """The running state that this training step moved, and uses already: `batch.memory` has it too."""
    moved = objective.next(batch.detached(), options)
    batch.memory |= moved
    batch.moved = True
    return moved


@torch.no_grad()
def settle(
    objective: Objective, batch: Batch, loss: Tensor, memory: Memory, moved: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The moved state, in the types of `memory`; unchanged where the loss of any rank is not finite. Sums are collected in place."""
    if batch.training and objective.collects:
        batch.memory |= memory  # the head's own tensors
        objective.collect(batch, loss.detach())
    if not moved:
        return {}
    return where_finite(batch.finite(loss.detach()), moved, memory)


def where_finite(finite: Tensor, moved: Mapping[str, Tensor], memory: Memory) -> dict[str, Tensor]:
    """The state that has moved, in the types of `memory`; that which is kept there already where the scalar bool `finite` is False."""
    return {name: torch.where(finite, value.to(memory[name].dtype), memory[name]) for name, value in moved.items()}


def correct(rows: Tensor) -> Tensor:
    """Of rows [N, 3 or more], as a loss returns them: is each sample nearest to its own class [N]? A tie is not."""
    return rows[:, 1].clamp(max=COSINE_LIMIT) > rows[:, 2]  # as the others are


def inference_logits(features: Tensor, weight: Tensor, options: MarginOptions, memory: Memory) -> Tensor:
    """Logits [N, C] without margin or label, of most losses s cos(theta_j); fp32, of float64 features float64."""
    check_features(features, weight.shape[-1])
    refuse_meta("weight", weight, features)
    objective = OBJECTIVES[options.loss]
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        cosine = objective.cosines(unit, weight.to(working))
        return objective.logits(cosine, norm, options, in_type(working, memory))


def in_type(working: torch.dtype, memory: Memory) -> dict[str, Tensor]:
    """The memory in the type that a head computes in."""
    return {name: value.to(working) for name, value in memory.items()}
