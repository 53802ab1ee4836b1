"""Averages of the weights, which generalise better than the last of them.

A running average (`--ema`; Polyak and Juditsky, 1992) or stochastic weight averaging (`--swa`; Izmailov et al.,
arXiv 1803.05407): the plain mean over the last part of the training, under a constant learning rate (see optim.py). SWA is
taken after every step (the paper's cycle length c = 1), since short trainings have few epochs to average over.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.torch_settings import autocast
from cifarnet.engine.optim import swa_start
from cifarnet.models.classifier import Classifier


def average_share(config: TrainConfig, step: int, total: int) -> float:
    """The share a that the weights after step `step` (from 0) get in the average, in `average += a (weights - average)`.

    ema: 1 - d, where the decay d grows to --ema, so that the start is forgotten. swa: 0 before it starts, then 1/n for the
    n-th weights, which makes the average their mean. 0 where no average is kept.
    """
    if config.ema:
        return 1 - min(config.ema, (1 + step) / (10 + step))
    count = step - swa_start(config.swa, total) + 1
    return 1 / count if config.swa and count > 0 else 0.0


def check_longer(config: TrainConfig, epochs: int, steps: int, done: int) -> None:
    """Refuses more epochs than the `epochs` that a run with --swa was begun for, where its average cannot begin anew.

    Args:
        steps: of an epoch; done: of the run.
    """
    start = swa_start(config.swa, config.epochs * steps)
    if not config.swa or config.epochs == epochs or done <= start:
        return
    enough = math.ceil(done / ((1 - config.swa) * steps) - 1e-9)
    why = f"of {config.epochs} the average would begin after step {start:,}, and the run is at step {done:,}"
    raise Refused("epochs", why, f"ask for {enough:,} or more, or start a new run: the weights since then are not kept")


class Averaging:
    """Moves `average` towards `model`: `average += share (model - average)`, parameters and buffers.

    The lists of their tensors are made once and stay right: training and loading write into the tensors that are there.
    """

    def __init__(self, average: Classifier, model: Classifier) -> None:
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (average, model))
        pairs = list(zip(ours, theirs, strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # BatchNorm's, of batches
        self.numbers, self.counts = (
            ([ours for ours, _ in part], [theirs for _, theirs in part]) for part in (numbers, counts)
        )

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Takes the weights of this moment in; share in [0, 1]."""
        torch._foreach_lerp_(*self.numbers, share)
        if self.counts[0]:
            torch._foreach_copy_(*self.counts)


def measure_batch_norm(
    model: Classifier, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, precision: str
) -> None:
    """Gives BatchNorm the statistics that these weights have: the mean ones of the weights averaged are not theirs.

    Args:
        batches: (images [B, 3, H, W] normalised, labels [B]) of training, on `device`.
    """
    with autocast(device, precision):
        update_bn(batches, model)
