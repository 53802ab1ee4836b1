"""One step of a loss in pure torch: from features and W to the loss, and to what the head keeps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.angles import clamp_cosine, normalize
from cifarnet.losses.contract import full_precision, working_type
from cifarnet.losses.objectives.base import Batch, Objective
from cifarnet.losses.options import MarginOptions


def objective_loss(
    objective: Objective,
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    options: MarginOptions,
    memory: Mapping[str, Tensor],
    training: bool,
    ranks: Ranks,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The mean loss of this rank's rows, three numbers of each row, and what the head keeps from now on.

    Args:
        features: [N, D], any float dtype and any norm; labels: [N], int64 in [0, C).
        memory: all that the head keeps besides W, by name.
        training: whether that moves; it does not where the loss of any of the `ranks` is not finite.

    Returns:
        a scalar, fp32 (float64 of float64 features); [N, 3], detached: |z|, c_y and the largest other cosine (see
        `margin_loss.correct`); by name, in the types of `memory`.
    """
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        cosine = clamp_cosine(objective.cosines(unit, weight.to(working)))
        batch = Batch(unit, norm, cosine, labels, _as(working, memory))
        if training:
            batch.training, batch.ranks = True, ranks
            # A batch of its own: what it has computed carries no gradient.
            still = Batch(unit.detach(), norm.detach(), cosine.detach(), labels, batch.memory, True, ranks)
            with torch.no_grad():
                moved = objective.next(still, options)
            batch.memory |= moved
        else:
            moved = {}
        loss = objective.losses(batch, options).mean()
        if moved:
            broken = ranks.largest((~loss.detach().isfinite()).float()) > 0
            moved = {
                name: torch.where(broken, memory[name], value.to(memory[name].dtype)) for name, value in moved.items()
            }
        with torch.no_grad():
            highest = cosine.masked_fill(batch.own, -torch.inf).amax(dim=1)
            rows = torch.stack([norm, batch.target, highest], dim=1)
    return loss, rows, moved


def objective_logits(
    objective: Objective, features: Tensor, weight: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]
) -> Tensor:
    """The logits of inference [N, C]; fp32, of float64 features float64."""
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        return objective.logits(objective.cosines(unit, weight.to(working)), norm, options, _as(working, memory))


def _as(working: torch.dtype, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(working) for name, value in memory.items()}
