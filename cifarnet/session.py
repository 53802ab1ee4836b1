"""What a training run holds in memory: model, optimizer, batches, running sums; built from a configuration and its data."""

import copy
import dataclasses
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarnet import kernels
from cifarnet.checkpoint import SHARDED, ModelInfo, current_versions, load_model
from cifarnet.config import TrainConfig
from cifarnet.data import AnySplit, Dataset, Loader, hold_out
from cifarnet.data.splits import Channels
from cifarnet.devices import pick_device, pick_precision
from cifarnet.distributed import ALONE, Ranks
from cifarnet.errors import Refused
from cifarnet.losses.head import MarginHead
from cifarnet.losses.sharded import ShardedMarginHead
from cifarnet.model import Classifier, build_model
from cifarnet.models import ARCHS
from cifarnet.models.speednet import SpeedNet
from cifarnet.optim import build_optimizer
from cifarnet.state import Progress, load_state, save_state
from cifarnet.step import Forward, SharedStep, TrainingStep, compiled

FIT_IMAGES = 5000  # images that a first layer is fitted to: ample for 12 x 12 covariances


@dataclass
class Session:
    """A run ready to train, on this rank.

    `totals` [4], on the device: sums of loss and of hits over this rank's images, and (on the first rank) of the first
    and last layer's gradient norm.
    """

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
    ranks: Ranks = ALONE
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


def build_session(
    config: TrainConfig, dataset: Dataset, init_from: Path | None = None, ranks: Ranks = ALONE
) -> Session:
    """Everything that training needs, at its start; with several ranks this one's, not yet joined to the others (`join`).

    Its `config` says which precision `auto` came to.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss, split, ranks).
    """
    config.check()
    device = pick_device(config.device, ranks)
    precision = pick_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision)  # what is saved: a resume elsewhere keeps it
    model = build_model(config, len(dataset.classes), ranks)
    check_options(config)
    plain = config.loss in ("ce", "focal") or config.head_parallel
    backend = "torch" if plain else kernels.resolve(config.backend, device.type)
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
            ranks=ranks,
            neighbour=training and (config.mixup > 0 or config.cutmix > 0),
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
    session = Session(
        config=config,
        classes=dataset.classes,
        device=device,
        precision=precision,
        backend=backend,
        model=model,
        average=copy.deepcopy(model).requires_grad_(False).eval() if config.ema or config.swa else None,
        optimizer=build_optimizer(model, config),
        forward=compiled(TrainingStep(model, device, precision), config),
        train=loader(train, training=True),
        test=loader(dataset.test, training=False),
        validation=validation,
        mean=mean,
        std=std,
        totals=torch.zeros(4, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device),
        ranks=ranks,
    )
    check_ranks(session)
    return session


def check_options(config: TrainConfig) -> None:
    """Refuses options that do not go together, of an architecture that is there."""
    if (config.mixup or config.cutmix) and config.loss not in ("ce", "focal"):
        raise Refused(
            "--mixup and --cutmix", f"{config.loss} needs one label an image", "leave them out, or use --loss ce"
        )
    row = ARCHS.get(config.arch)
    small = row is None or row.block == "convnet"
    if config.progressive and small:
        raise Refused("--progressive", f"{config.arch} takes images of one size only", "leave it out, or use a ResNet")
    if config.optimizer == "muon" and small:
        raise Refused(
            "--optimizer", f"muon needs a BatchNorm after each convolution, {config.arch} has none", "use sgd"
        )


def sample_images(split: AnySplit, mean: Channels, std: Channels) -> Tensor:
    """Up to FIT_IMAGES images from all over a training split, normalised, float32 [N, 3, H, W] on the CPU."""
    count = min(len(split), FIT_IMAGES)
    images = next(iter(split.batches([torch.arange(count) * len(split) // count]))).cpu()
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images / 255 - shift) / scale


def check_ranks(session: Session) -> None:
    """Refuses what several ranks cannot do."""
    config, ranks = session.config, session.ranks
    if config.sync_bn and session.device.type != "cuda":
        raise Refused("--sync-bn", f"torch has it for CUDA only, and this is {session.device}", "leave it out")
    least, smallest = session.train.size(session.steps - 1), 2 * ranks.world  # the last batch of an epoch
    if ranks.world > 1 and least < smallest:
        images = len(session.train.split)
        fits = [size for size in range(smallest, config.batch_size) if not 1 < images % size < smallest]
        raise Refused(
            "--batch-size",
            f"{config.batch_size} leaves a batch of {least} images for {ranks.world} ranks, fewer than two for each",
            f"choose another, for example {fits[-1]}, or fewer ranks" if fits else "use fewer ranks",
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


def copy_weights(model: Classifier, path: Path) -> None:
    """Starts from the weights of another checkpoint; a head of another shape (other classes, other loss) keeps its own.

    Raises:
        Refused: the backbone there is another one.
    """
    source, info = load_model(path, of_features=True)
    theirs, mine = source.state_dict(), model.state_dict()
    head = model.head
    if isinstance(head, ShardedMarginHead) and len(theirs[SHARDED]) == head.num_classes:
        theirs[SHARDED] = theirs[SHARDED][head.classes.start : head.classes.stop]
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
