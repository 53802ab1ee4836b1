"""What a training run holds in memory: model, optimizer, batches, running sums; built from a configuration and its data."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifarnet import kernels
from cifarnet.checkpoint import ModelInfo, current_versions, load_model
from cifarnet.config import TrainConfig
from cifarnet.data import AnySplit, Dataset, Loader, hold_out
from cifarnet.data.splits import Channels
from cifarnet.devices import autocast, pick_device, pick_precision
from cifarnet.errors import Refused
from cifarnet.model import Classifier, build_model
from cifarnet.models import ARCHS
from cifarnet.models.speednet import SpeedNet
from cifarnet.optim import build_optimizer
from cifarnet.state import Progress, load_state, save_state

FIT_IMAGES = 5000  # images that a first layer is fitted to: ample for 12 x 12 covariances
Forward = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass
class Session:
    """A run ready to train. `totals` [4], on the device: sums of loss, of hits, and of the first and last layer's gradient norm."""

    config: TrainConfig
    classes: tuple[str, ...]
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
    progress: Progress = field(default_factory=Progress)

    @property
    def result(self) -> Classifier:
        """The model that is measured and saved: the average where there is one (with --swa at the end only)."""
        if self.average is None or (self.config.swa and self.progress.epoch < self.config.epochs):
            return self.model
        return self.average

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return len(self.train)

    @property
    def images(self) -> int:
        """Images an epoch trains on."""
        count, size = len(self.train.split), self.config.batch_size
        return min(count, self.steps * size)

    @property
    def models(self) -> dict[str, Classifier]:
        """What the training state holds."""
        return {"model": self.model} | ({"average": self.average} if self.average is not None else {})

    def save(self, path: Path) -> None:
        """Writes the training state of this moment."""
        save_state(path, self.models, self.optimizer, self.totals, self.progress, self.config)

    def load(self, path: Path) -> list[str]:
        """Goes to the moment that `path` was saved at; returns warnings of changed versions."""
        progress, warnings = load_state(path, self.models, self.optimizer, self.totals)
        if progress.step > self.steps:
            raise Refused(
                str(path), f"stands at step {progress.step} of {self.steps}", "is this the data it began with?"
            )
        self.progress = progress
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


def build_session(config: TrainConfig, dataset: Dataset, init_from: Path | None = None) -> Session:
    """Everything that training needs, at its start; its `config` says which precision `auto` came to.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss, split).
    """
    config.check()
    if (config.mixup or config.cutmix) and config.loss not in ("ce", "focal"):
        raise Refused(
            "--mixup and --cutmix", f"{config.loss} needs one label an image", "leave them out, or use --loss ce"
        )
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision)  # what is saved: a resume elsewhere keeps it
    model = build_model(config, len(dataset.classes))
    if config.progressive and ARCHS[config.arch].block == "convnet":
        raise Refused("--progressive", f"{config.arch} takes images of one size only", "leave it out, or use a ResNet")
    if config.optimizer == "muon" and ARCHS[config.arch].block == "convnet":
        raise Refused(
            "--optimizer", f"muon needs a BatchNorm after each convolution, {config.arch} has none", "use sgd"
        )
    backend = "torch" if config.loss in ("ce", "focal") else kernels.resolve(config.backend, device.type)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    mean, std = (dataset.mean, dataset.std) if config.normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def loader(split: AnySplit, training: bool) -> Loader:
        return Loader(
            split,
            config.batch_size if training else max(config.batch_size, 250),
            device,
            mean=mean,
            std=std,
            augment=config.augment if training else "none",
            cutout=config.cutout if training else 0,
            seed=config.seed,
            shuffle=training,
            workers=config.workers,
        )

    train, validation = dataset.train, None
    if config.val_fraction > 0:
        train, held_out = hold_out(dataset.train, config.val_fraction, config.seed)
        validation = loader(held_out, training=False)
    if init_from is not None:
        copy_weights(model, init_from)
    elif isinstance(model.backbone, SpeedNet):
        model.backbone.fit_to(sample_images(train, mean, std))
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    return Session(
        config=config,
        classes=dataset.classes,
        device=device,
        precision=precision,
        backend=backend,
        model=model,
        average=copy.deepcopy(model).requires_grad_(False).eval() if config.ema or config.swa else None,
        optimizer=build_optimizer(model, config),
        forward=make_forward(model, config, device, precision),
        train=loader(train, training=True),
        test=loader(dataset.test, training=False),
        validation=validation,
        mean=mean,
        std=std,
        totals=torch.zeros(4, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device),
    )


def sample_images(split: AnySplit, mean: Channels, std: Channels) -> Tensor:
    """Up to FIT_IMAGES images from all over a training split, normalised, float32 [N, 3, H, W] on the CPU."""
    count = min(len(split), FIT_IMAGES)
    images = next(iter(split.batches([torch.arange(count) * len(split) // count]))).cpu()
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images / 255 - shift) / scale


def make_forward(model: Classifier, config: TrainConfig, device: torch.device, precision: str) -> Forward:
    """(images, labels, share) -> (loss with its graph, hits): the part of a step that torch.compile takes.

    `share` [] is that of an image's own label where images are mixed with their neighbours, else None.
    """

    def forward(images: Tensor, labels: Tensor, share: Tensor | None) -> tuple[Tensor, Tensor]:
        with autocast(device, precision):
            features = model.features(images)
        loss = model.head(features, labels)
        if share is not None:
            loss = share * loss + (1 - share) * model.head(features, labels.roll(1))
        hits = (model.head.logits(features.detach()).argmax(dim=1) == labels).sum()
        return loss, hits

    if not config.compile:
        return forward
    torch.compiler.config.cache_key_tag = kernels.build_tag()
    return torch.compile(forward)


def copy_weights(model: Classifier, path: Path) -> None:
    """Starts from the weights of another checkpoint; a head of another shape (other classes, other loss) keeps its own.

    Raises:
        Refused: the backbone there is another one.
    """
    source, info = load_model(path)
    theirs, mine = source.state_dict(), model.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    body = [name for name in mine if not name.startswith("head.")]
    lost = [name for name in body if name not in fitting]
    if lost:
        raise Refused(
            "--init-from",
            f"{path} is a {info.config.arch} whose {lost[0]} does not fit",
            "use the same --arch and --stem",
        )
    model.load_state_dict(fitting, strict=False)
