"""The exchange between ranks that share a head: samples, log-sums, gradients. Alone, nothing is sent."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.distributed import Ranks


@dataclass
class GlobalBatch:
    """The samples of all ranks: unit features [N, D], norms [N], labels [N], where each own class stands here [N] or -1."""

    unit: Tensor
    norm: Tensor
    labels: Tensor
    own: Tensor
    sizes: list[int]
    mine: slice  # this rank's samples

    @classmethod
    def gather(cls, ranks: Ranks, unit: Tensor, norm: Tensor, labels: Tensor, classes: range) -> "GlobalBatch":
        """Collects them; the norm travels as one more column of the features."""
        sizes = ranks.concatenated(torch.tensor([len(unit)])).tolist()  # in main memory: no GPU is waited for
        both = gathered(ranks, torch.cat([unit, norm[:, None]], dim=1), sizes)
        labels = gathered(ranks, labels, sizes)
        own = torch.where((labels >= classes.start) & (labels < classes.stop), labels - classes.start, -1)
        start = sum(sizes[: ranks.rank])
        return cls(both[:, :-1].contiguous(), both[:, -1], labels, own, sizes, slice(start, start + sizes[ranks.rank]))


def gathered(ranks: Ranks, mine: Tensor, sizes: list[int]) -> Tensor:
    """[n, ...] of each rank -> [N, ...], in the order of ranks; what is shorter than the longest is padded on the wire."""
    if ranks.world == 1:
        return mine
    longest = max(sizes)
    every = ranks.concatenated(F.pad(mine, [0, 0] * (mine.dim() - 1) + [0, longest - len(mine)]))
    return torch.cat([part[:size] for part, size in zip(every.split(longest), sizes, strict=True)])


def sum_of_own(ranks: Ranks, parts: Tensor, sizes: list[int]) -> Tensor:
    """Of [N, D] on each rank the sum over ranks, of which each gets the rows of its own samples [n, D]."""
    if ranks.world == 1:
        return parts
    longest = max(sizes)
    padded = [F.pad(part, (0, 0, 0, longest - len(part))) for part in parts.split(sizes)]
    mine = torch.empty_like(padded[0])
    torch.distributed.reduce_scatter(mine, padded)
    return mine[: sizes[ranks.rank]]
