"""One shard's part of a margin loss: sums over the other classes and both gradients, without ever holding N x C numbers.

A shard is C_k of the C classes. The classes go through in blocks, so that a block's cosines stay in the cache. Every sum is
in the features' dtype, fp32 or float64, whatever the weight's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.angles import COSINE_LIMIT, NORM_FLOOR, normalize

# Cosines a block: 4 MB in fp32 on the CPU, 64 MB on a GPU, which needs larger products.
BLOCK = {"cpu": 2**20, "cuda": 2**24}
FEWEST = 256  # classes a block, however large the batch

Shape = Callable[[Tensor], Tensor]  # of a block's cosines [N, c], as the loss takes them; it may return its argument


def plain(cosine: Tensor) -> Tensor:
    """The cosines as they are."""
    return cosine


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

    def log_sum(self, scale: Tensor) -> Tensor:
        """log of the sum [N]."""
        return scale * self.peak + self.rest.log()


def others_of(
    unit_features: Tensor,
    weight: Tensor,
    own: Tensor,
    scale: Tensor,
    shape: Shape = plain,
    offset: Tensor | None = None,
) -> Others:
    """The sum over this shard's other classes, and the largest other cosine.

    Args:
        unit_features: [N, D], of length 1, fp32 or float64.
        weight: [C_k, D], of any length and float dtype.
        own: int64 [N], where each row's own class stands in this shard; -1: not in it.
        scale: s [N]; shape: n_j of the cosines c_j.
        offset: [C_k], added to a class's logit (the log of how many classes a drawn one stands for).
    """
    lowest = torch.finfo(unit_features.dtype).min
    highest = torch.full_like(scale, lowest)
    peak, rest = highest.clone(), torch.zeros_like(highest)
    for rows, _, _, cosine in _blocks(unit_features, weight):
        fill_own(cosine, own - rows.start, -torch.inf)
        highest = torch.maximum(highest, cosine.amax(dim=1))
        others = shape(cosine)
        risen = highest
        if others is not cosine:
            fill_own(others, own - rows.start, -torch.inf)
            risen = torch.maximum(peak, others.amax(dim=1))
        powers = others.sub_(risen[:, None]).mul_(scale[:, None])
        if offset is not None:
            powers += offset[rows]
        rest = rest * (scale * (peak - risen)).exp() + powers.exp_().sum(dim=1)
        peak = risen
    none = highest == lowest
    return Others(peak.masked_fill(none, -torch.inf), rest, highest.masked_fill(none, -torch.inf))


def sum_over_others(
    unit_features: Tensor, weight: Tensor, own: Tensor, value: Callable[[Tensor, slice], Tensor]
) -> tuple[Tensor, Tensor]:
    """The sum over this shard's other classes of value(cosines [N, c], rows) [N, c], and the largest other cosine; [N] each."""
    highest, total = torch.full_like(unit_features[:, 0], -torch.inf), torch.zeros_like(unit_features[:, 0])
    for rows, _, _, cosine in _blocks(unit_features, weight):
        values = value(cosine, rows)
        fill_own(values, own - rows.start, 0.0)
        total += values.sum(dim=1)
        fill_own(cosine, own - rows.start, -torch.inf)
        highest = torch.maximum(highest, cosine.amax(dim=1))
    return total, highest


def shard_gradients(
    unit_features: Tensor,
    weight: Tensor,
    own: Tensor,
    slope: Callable[[Tensor, slice, Tensor], Tensor],
    by_target: Tensor,
    want: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a loss of which the derivatives by the cosines are known.

    Args:
        unit_features, weight, own: as given to `others_of`.
        slope: of cosines [N, c], their rows and the own classes' columns [N], the derivatives of the loss by them [N, c]; the
            cosines are its to overwrite.
        by_target: the derivative by the own class's cosine [N].
        want: whether the gradient of the features, and of the weight, is needed.

    Returns:
        By the unit features, this shard's part [N, D], and by the weight [C_k, D] (projected: W's length does not matter).
    """
    features = torch.zeros_like(unit_features) if want[0] else None
    gradient = torch.empty_like(weight) if want[1] else None
    for rows, unit, length, cosine in _blocks(unit_features, weight):
        share = slope(cosine, rows, own - rows.start)
        fill_own(share, own - rows.start, by_target)
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
    size = max(BLOCK.get(weight.device.type, BLOCK["cpu"]) // max(len(unit_features), 1), FEWEST)
    for start in range(0, len(weight), size):
        rows = slice(start, min(start + size, len(weight)))
        unit, length = normalize(weight[rows].to(unit_features.dtype))
        yield rows, unit, length, (unit_features @ unit.T).clamp_(-COSINE_LIMIT, COSINE_LIMIT)


def fill_own(block: Tensor, column: Tensor, value: Tensor | float) -> None:
    """Puts `value` at each row's own class where `column` [N] lies in `block` [N, c]; no sync with the host."""
    inside = (column >= 0) & (column < block.shape[1])
    index = column.clamp(0, block.shape[1] - 1)[:, None]
    if not isinstance(value, Tensor):
        value = torch.full_like(block[:, 0], value)  # filled on the device: a copy from the host would wait for it
    block.scatter_(1, index, torch.where(inside[:, None], value[:, None], block.gather(1, index)))
