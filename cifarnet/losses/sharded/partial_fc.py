"""Drawn negatives: a step takes the classes of its own samples and a random part of the others (PartialFC, arXiv 2203.15565).

As there, every positive of the global batch that the shard owns is kept, and classes drawn uniformly from the rest fill up
to the asked fraction. Otherwise than there, the sum is corrected: a drawn class stands for all those it was drawn from, so
exp(s n_j) counts 1/p times, p the probability of being drawn, and the sum's expectation is the sum over all classes.
(PartialFC takes the drawn classes for all there are: its loss is that of an easier problem, lower by about log 1/fraction.)
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """The classes of a shard that a step takes.

    index: int64 [m], ascending; own: [N], where each row's own class stands in `index`, -1: not in this shard;
    offset: [m], log of how many classes each stands for: 0 for the samples' own.
    """

    index: Tensor
    own: Tensor
    offset: Tensor


def draw_classes(own: Tensor, classes: int, fraction: float, key: tuple[int, int, int]) -> Draw:
    """Draws from a shard of `classes` classes; nothing here waits for the device.

    Args:
        own: int64 [N], each row's own class in this shard, -1: not in it.
        fraction: in (0, 1), of the shard's classes; at least N + 1 are taken (all, where there are fewer), so that every
            positive has its place and there is something drawn to stand for the rest.
        key: (seed, step, rank): the same key gives the same draw on the same kind of device.
    """
    digest = hashlib.blake2b("/".join(map(str, ("negatives", *key))).encode(), digest_size=8).digest()
    generator = torch.Generator(own.device).manual_seed(int.from_bytes(digest, "big") >> 1)
    count = min(classes, max(round(fraction * classes), len(own) + 1))
    order = torch.rand(classes + 1, generator=generator, device=own.device)
    # Positives come first; `classes` is a place for none.
    order.index_fill_(0, torch.where(own >= 0, own, classes), 2.0)
    index = order[:classes].topk(count, sorted=False).indices.sort().values
    positive = order[index] == 2.0
    positives = positive.sum()
    stands_for = (classes - positives) / (count - positives).clamp_min(1)
    place = torch.searchsorted(index, own.clamp_min(0))
    return Draw(index, torch.where(own >= 0, place, -1), torch.where(positive, 0.0, stands_for.log()))
