"""One shard's part of a margin loss: the other classes' log-sum and both gradients, without ever holding N x C numbers.

A shard is C_k of the C classes. The classes go through in blocks, so that a block's cosines stay in the cache. Every sum is
in the features' dtype, fp32 or float64, whatever the weight's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.angles import COSINE_LIMIT, NORM_FLOOR, normalize
from cifarnet.losses.margin_loss import Targets

BLOCK = {
    "cpu": 2**20,
    "cuda": 2**24,
}  # cosines a block: 4 MB in fp32 on the CPU, 64 MB on a GPU, which needs larger products
FEWEST = 256  # classes a block, however large the batch


@dataclass
class Others:
    """The sum over other classes of exp(s n_j + offset_j) as exp(s peak) rest, and the largest of their cosines; all [N].

    peak and highest are -inf, and rest 0, where there is no other class.
    """

    peak: Tensor
    rest: Tensor
    highest: Tensor

    def of_all(self, ranks: Ranks, scale: Tensor) -> "Others":
        """The same over the classes of all ranks; scale [N]."""
        if ranks.world == 1:
            return self
        peak = ranks.largest(self.peak)
        rest = ranks.sum(self.rest * (scale * (self.peak - peak)).exp())
        return Others(peak, rest, ranks.largest(self.highest))


def others_of(
    unit_features: Tensor, weight: Tensor, own: Tensor, targets: Targets, offset: Tensor | None = None
) -> Others:
    """The sum over this shard's other classes, and the largest other cosine.

    Args:
        unit_features: [N, D], of length 1, fp32 or float64.
        weight: [C_k, D], of any length and float dtype.
        own: int64 [N], where each row's own class stands in this shard; -1: not in it.
        targets: scale and threshold of each row.
        offset: [C_k], added to a class's logit (the log of how many classes a drawn one stands for).
    """
    lowest = torch.finfo(unit_features.dtype).min
    highest = torch.full_like(targets.scale, lowest)
    peak, rest = highest.clone(), torch.zeros_like(highest)
    for rows, _, _, cosine in _blocks(unit_features, weight):
        _fill_own(cosine, own - rows.start, -torch.inf)
        highest = torch.maximum(highest, cosine.amax(dim=1))
        others = targets.others(cosine)
        risen = highest if others is cosine else torch.maximum(peak, others.amax(dim=1))
        powers = others.sub_(risen[:, None]).mul_(targets.scale[:, None])
        if offset is not None:
            powers += offset[rows]
        rest = rest * (targets.scale * (peak - risen)).exp() + powers.exp_().sum(dim=1)
        peak = risen
    none = highest == lowest
    return Others(peak.masked_fill(none, -torch.inf), rest, highest.masked_fill(none, -torch.inf))


def shard_gradients(
    unit_features: Tensor,
    weight: Tensor,
    own: Tensor,
    targets: Targets,
    others: Others,
    by_others: Tensor,
    by_target: Tensor,
    offset: Tensor | None = None,
    want: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a loss of which these are known: d / d log S [N] and d / d c_y [N], S over all shards.

    Args:
        unit_features, weight, own, targets, offset: as given to `others_of`.
        others: of all shards.
        by_others, by_target: the loss's derivative by log S and by the target's cosine, [N] each.
        want: whether the gradient of the features, and of the weight, is needed.

    Returns:
        By the unit features, this shard's part [N, D], and by the weight [C_k, D] (projected: W's length does not matter).
    """
    features = torch.zeros_like(unit_features) if want[0] else None
    gradient = torch.empty_like(weight) if want[1] else None
    pull = by_others * targets.scale / others.rest
    for rows, unit, length, cosine in _blocks(unit_features, weight):
        slope = None  # of n_j by c_j
        if targets.threshold is not None:
            assert targets.t is not None
            slope = torch.where(cosine > targets.threshold[:, None], targets.t + 2 * cosine, 1.0)
        powers = targets.others(cosine).sub_(others.peak[:, None]).mul_(targets.scale[:, None])
        if offset is not None:
            powers += offset[rows]
        share = powers.exp_().mul_(pull[:, None])
        if slope is not None:
            share *= slope
        _fill_own(share, own - rows.start, by_target)
        if features is not None:
            features.addmm_(share, unit)
        if gradient is not None:
            pushed = share.T @ unit_features
            along = (pushed * unit).sum(dim=1, keepdim=True)
            short = (length <= NORM_FLOOR)[:, None]  # without a direction it has no gradient
            gradient[rows] = ((pushed - along * unit) / length[:, None]).masked_fill(short, 0.0)
    return features, gradient


def target_cosines(unit_features: Tensor, weight: Tensor, own: Tensor) -> Tensor:
    """Each row's cosine to its own class [N] (not clamped), 0 where that is not in this shard."""
    unit = normalize(weight[own.clamp_min(0)].to(unit_features.dtype))[0]
    return (unit_features * unit).sum(dim=1) * (own >= 0)


def _blocks(unit_features: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Block by block: its rows of the weight, these on the unit sphere [c, D], their length [c], the cosines [N, c], clamped."""
    size = max(BLOCK.get(weight.device.type, BLOCK["cpu"]) // len(unit_features), FEWEST)
    for start in range(0, len(weight), size):
        rows = slice(start, min(start + size, len(weight)))
        unit, length = normalize(weight[rows].to(unit_features.dtype))
        yield rows, unit, length, (unit_features @ unit.T).clamp_(-COSINE_LIMIT, COSINE_LIMIT)


def _fill_own(block: Tensor, column: Tensor, value: Tensor | float) -> None:
    """Puts `value` at each row's own class where `column` [N] lies in `block` [N, c]; no sync with the host."""
    inside = (column >= 0) & (column < block.shape[1])
    index = column.clamp(0, block.shape[1] - 1)[:, None]
    if not isinstance(value, Tensor):
        value = torch.full_like(block[:, 0], value)  # filled on the device: a copy from the host would wait for it
    block.scatter_(1, index, torch.where(inside[:, None], value[:, None], block.gather(1, index)))
