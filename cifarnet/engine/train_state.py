"""Everything that a training run holds in memory on this rank: model, optimizer, batches, running sums, progress."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.freed_memory import freed_memory_kept
from cifarnet.data import Loader
from cifarnet.data.augment.progressive import areas
from cifarnet.data.identity import DataIdentity
from cifarnet.engine.ema import Averaging, check_longer
from cifarnet.engine.resume import RunProgress, load_state, save_state
from cifarnet.engine.same_data import check_same_data
from cifarnet.engine.same_run import load_config
from cifarnet.engine.step_graph import StepGraph
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo, current_versions

Mixture = tuple[Tensor, Tensor]  # labels [n] of the images that are mixed in, and the share [] of an image's own label
Forward = Callable[[Tensor, Tensor, Mixture | None], tuple[Tensor, Tensor]]  # -> mean loss, correct answers


class Sums(NamedTuple):
    """Sums over the steps of an epoch: of the loss and of the correct answers over images; of gradient norms over steps."""

    loss: float
    correct: float
    first_gradient: float
    last_gradient: float


class RunningSums:
    """`Sums` of the unfinished epoch, as one tensor [4] on the device; of several ranks each one's own."""

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(len(Sums._fields), dtype=dtype, device=device)

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Adds a step: its mean loss and its correct answers, scalars on the device."""
        self.values[0] += loss.detach() * images
        self.values[1] += correct

    def add_gradients(self, first: Tensor, last: Tensor) -> None:
        """Adds the norms of a step's gradients, scalars on the device."""
        self.values[2] += first
        self.values[3] += last

    def read(self, ranks: Ranks = ALONE) -> Sums:
        """The sums so far, of all these ranks; waits for the device."""
        return Sums(*ranks.sum(self.values).tolist())


@dataclass
class TrainState:
    """A run ready to train, on this rank.

    forward: (images, labels, mixture) -> mean loss and correct answers; compiled or shared with other ranks where asked for.
    not_finite: 1 on the device once a loss or a gradient was not finite, else 0.
    graph: takes the steps of whole batches, where one CUDA graph is to do that.
    trial: the run is one of a search, whose test images are not looked at (see `fit`).
    """

    config: TrainConfig
    classes: Sequence[str]
    data: DataIdentity
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
    sums: RunningSums
    not_finite: Tensor
    ranks: Ranks = ALONE
    progress: RunProgress = field(default_factory=RunProgress)
    graph: StepGraph | None = None
    trial: bool = False

    @property
    def result(self) -> Classifier:
        """The model that is measured and saved: the average where there is one (with --swa at the end only)."""
        if self.average is None or (self.config.swa and self.progress.epoch < self.config.epochs):
            return self.model
        return self.average

    @cached_property
    def averaging(self) -> Averaging:
        """Takes each step's weights into the average, where one is kept; first asked for when the ranks have joined."""
        assert self.average is not None
        return Averaging(self.average, self.model)

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return len(self.train)

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.epochs * self.steps

    @property
    def step(self) -> int:
        """The number of the next step, from 0, over all epochs."""
        return self.progress.epoch * self.steps + self.progress.step

    @property
    def work(self) -> tuple[float, float]:
        """The work done, and the whole of it: in steps, each weighed by its images' area, with which its time goes."""
        if not self.config.progressive:
            return self.step, self.all_steps
        weights = areas(self.config.epochs, self.config.progressive, self.config.image_size)
        epoch = self.progress.epoch
        done = self.steps * sum(weights[:epoch]) + self.progress.step * sum(weights[epoch : epoch + 1])
        return done, self.steps * sum(weights)

    @property
    def images(self) -> int:
        """Images an epoch trains on."""
        return self.seen(self.steps)

    def seen(self, steps: int) -> int:
        """Images in the first `steps` steps of an epoch, over all ranks."""
        return min(len(self.train.split), steps * self.config.batch_size)

    def seen_here(self, steps: int) -> int:
        """Images in the first `steps` steps of an epoch on this rank: those that `sums` counts."""
        full, rest = divmod(self.seen(steps), self.config.batch_size)
        begin, end = self.ranks.part(self.config.batch_size)
        first, last = self.ranks.part(rest)
        return full * (end - begin) + last - first

    @property
    def parameters(self) -> int:
        """Numbers that the model of all ranks learns."""
        return sum(parameter.numel() for parameter in self.model.parameters()) + self.model.head.parameters_elsewhere

    @property
    def models(self) -> dict[str, Classifier]:
        """The models that the training state holds, by name."""
        return {"model": self.model} | ({"average": self.average} if self.average is not None else {})

    def freed_memory_kept(self) -> AbstractContextManager:
        """Within it freed memory is used again; not of a head alone, whose few large tensors would leave holes of their size."""
        return nullcontext() if self.config.arch == IDENTITY else freed_memory_kept(self.device)

    def save(self, path: Path) -> None:
        """Writes the training state of this moment; all ranks call it, and none goes on before the file is there."""
        sums = self.sums.values if self.ranks.world == 1 else self.ranks.concatenated(self.sums.values[None])
        save_state(path, self.models, self.optimizer, sums, self.progress, self.config, self.data, self.ranks)
        self.ranks.wait()

    def load(self, path: Path) -> list[str]:
        """Goes to the moment that `path` was saved at; returns warnings of what has changed since then."""
        warnings = check_same_data(path, self.data, self.classes, self.mean, self.std)
        progress, changed = load_state(path, self.models, self.optimizer, self.sums.values, self.ranks)
        if progress.step > self.steps:
            raise Refused(
                str(path), f"stands at step {progress.step} of {self.steps}", "is this the data it began with?"
            )
        self.progress = progress
        check_longer(self.config, load_config(path).epochs, self.steps, self.step)
        self.model.head.seek(self.step)
        if self.graph is not None:
            self.graph.forget()
        return warnings + changed

    def info(self, metrics: dict[str, Any]) -> ModelInfo:
        """The text of this moment's checkpoint about its model."""
        return ModelInfo(
            config=self.config,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            epoch=self.progress.epoch,
            metrics=metrics,
            data=self.data.to_json(),
            backend=self.backend,
            versions=current_versions(),
        )
