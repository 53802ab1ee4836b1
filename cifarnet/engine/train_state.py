"""What a training run holds in memory: model, optimizer, batches, running sums; built from a configuration and its data."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused
from cifarnet.data import Loader
from cifarnet.engine.ema import Averaging
from cifarnet.engine.resume import Progress, load_state, save_state
from cifarnet.engine.step import Forward, SharedStep, compiled
from cifarnet.losses.heads import MarginHead
from cifarnet.losses.sharded.head import ShardedMarginHead
from cifarnet.models.checkpoint import SHARDED, ModelInfo, current_versions
from cifarnet.models.classifier import Classifier


@dataclass
class Session:
    """A run ready to train, on this rank.

    `totals` [4], on the device: sums of loss and of hits over this rank's images, and (on the first rank) of the first
    and last layer's gradient norm.
    """

    config: TrainConfig
    classes: Sequence[str]
    device: torch.device
    precision: str
    backend: str
    model: Classifier
    average: Classifier | None
    optimizer: torch.optim.Optimizer
    forward: Forward
    train: Loader
    test: Loader
    validation: Loader | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    totals: Tensor
    ranks: Ranks = ALONE
    progress: Progress = field(default_factory=Progress)

    @property
    def result(self) -> Classifier:
        """The model that is measured and saved: the average where there is one (with --swa at the end only)."""
        if self.average is None or (self.config.swa and self.progress.epoch < self.config.epochs):
            return self.model
        return self.average

    @cached_property
    def averaging(self) -> Averaging:
        """What takes each step's weights into the average, where one is kept; first asked for when the ranks have joined."""
        assert self.average is not None
        return Averaging(self.average, self.model)

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return len(self.train)

    @property
    def images(self) -> int:
        """Images an epoch trains on."""
        return self.seen(self.steps)

    def seen(self, steps: int) -> int:
        """Images in the first `steps` steps of an epoch, over all ranks."""
        return min(len(self.train.split), steps * self.config.batch_size)

    def seen_here(self, steps: int) -> int:
        """Images in the first `steps` steps of an epoch on this rank: those that `totals` sums over."""
        full, rest = divmod(self.seen(steps), self.config.batch_size)
        begin, end = self.ranks.part(self.config.batch_size)
        first, last = self.ranks.part(rest)
        return full * (end - begin) + last - first

    @property
    def sharded(self) -> bool:
        """Whether the head's classes are spread over the ranks."""
        return isinstance(self.model.head, ShardedMarginHead)

    @property
    def parameters(self) -> int:
        """Numbers that the model of all ranks learns."""
        head, counted = self.model.head, sum(parameter.numel() for parameter in self.model.parameters())
        if isinstance(head, ShardedMarginHead):
            counted += (head.num_classes - len(head.classes)) * head.weight.shape[1]
        return counted

    def whole_loss(self, loss: Tensor, images: int) -> Tensor:
        """What a rank shall differentiate in place of the mean over its own `images`.

        The mean of it over the ranks, which is what DistributedDataParallel makes of gradients, is the mean over the batch.
        """
        if self.ranks.world == 1 or self.sharded:  # a spread head's loss is already that of the whole batch
            return loss
        return loss * (images * self.ranks.world / self.train.size(self.progress.step))

    @property
    def models(self) -> dict[str, Classifier]:
        """What the training state holds."""
        return {"model": self.model} | ({"average": self.average} if self.average is not None else {})

    def save(self, path: Path) -> None:
        """Writes the training state of this moment; all ranks call it, and none goes on before the file is there."""
        totals = self.totals if self.ranks.world == 1 else self.ranks.concatenated(self.totals[None])
        save_state(path, self.models, self.optimizer, totals, self.progress, self.config, self.ranks)
        self.ranks.wait()

    def load(self, path: Path) -> list[str]:
        """Goes to the moment that `path` was saved at; returns warnings of what has changed since then."""
        progress, warnings = load_state(path, self.models, self.optimizer, self.totals, self.ranks)
        if progress.step > self.steps:
            raise Refused(
                str(path), f"stands at step {progress.step} of {self.steps}", "is this the data it began with?"
            )
        self.progress = progress
        if isinstance(self.model.head, ShardedMarginHead):
            self.model.head.step = progress.epoch * self.steps + progress.step
        return warnings

    def info(self, metrics: dict[str, Any]) -> ModelInfo:
        """What the checkpoint of this moment says of its model."""
        return ModelInfo(
            config=self.config,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            epoch=self.progress.epoch,
            metrics=metrics,
            backend=self.backend,
            versions=current_versions(),
        )


def join(session: Session) -> None:
    """Joins the sessions of all ranks: the first one's weights everywhere, gradients averaged. Alone nothing happens."""
    ranks, model = session.ranks, session.model
    if ranks.world == 1:
        return
    apart = [SHARDED] if session.sharded else []  # each rank has its own rows of it
    for shared in session.models.values():
        ranks.copy_from_first(value for name, value in shared.state_dict().items() if name not in apart)
    if isinstance(model.head, MarginHead):
        model.head.ranks = ranks
    if session.config.sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    shared_step = SharedStep(model, session.device, session.precision)
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in apart]
    if not learned:
        return
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        shared_step, [f"model.{name}" for name in apart]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers`")  # its new name is not in every torch from 2.11 on
        # Buffers are not shared step by step: the head's state is equal on all ranks as it is, and BatchNorm's running
        # statistics, which training does not read, are the first rank's wherever they are used.
        step = DistributedDataParallel(shared_step, broadcast_buffers=False)
    # It sorts its buckets anew after its first step, and with them the order in which three and more ranks are summed.
    # A rehearsal takes that first step here, so that a run sums in one order, resumed or not.
    step().backward()
    session.optimizer.zero_grad(set_to_none=True)
    session.forward = compiled(step, session.config)
