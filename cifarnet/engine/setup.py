"""Builds a session from a configuration and its data, and refuses what cannot be trained."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.devices import keep_freed_memory, pick_device, pick_precision
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused
from cifarnet.data import AnySplit, Dataset, Loader, hold_out
from cifarnet.data.dataset import Channels
from cifarnet.engine.optim import build_optimizer
from cifarnet.engine.step import TrainingStep, compiled
from cifarnet.engine.train_state import Session
from cifarnet.losses import kernels
from cifarnet.losses.heads import LinearHead
from cifarnet.losses.running_state import LOSS_KEY
from cifarnet.losses.sharded.head import ShardedMarginHead
from cifarnet.models import find_arch
from cifarnet.models.checkpoint import SHARDED, load_model
from cifarnet.models.classifier import Classifier, build_model, check_model

FIT_IMAGES = 5000  # images that a first layer is fitted to: ample for 12 x 12 covariances


def build_session(
    config: TrainConfig, dataset: Dataset, init_from: Path | None = None, ranks: Ranks = ALONE
) -> Session:
    """Everything that training needs, at its start; with several ranks this one's, not yet joined to the others (`join`).

    Its `config` says which precision `auto` came to.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss, split, ranks).
    """
    device, precision, backend = settle(config, ranks)
    if config.arch != IDENTITY:  # there is a head alone, whose few large tensors would leave holes of their size
        keep_freed_memory(device)
    config = dataclasses.replace(config, precision=precision)  # what is saved: a resume elsewhere keeps it
    model = build_model(config, len(dataset.classes), ranks)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    mean, std = (dataset.mean, dataset.std) if config.normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    loader = partial(build_loader, config=config, device=device, mean=mean, std=std, ranks=ranks)
    train, validation = dataset.train, None
    if config.val_fraction > 0:
        train, held_out = hold_out(dataset.train, config.val_fraction, config.seed)
        validation = loader(held_out, training=False)
    if init_from is not None:
        copy_weights(model, init_from)
    elif fit_to := getattr(model.backbone, "fit_to", None):
        fit_to(sample_images(train, mean, std))
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


def settle(config: TrainConfig, ranks: Ranks = ALONE) -> tuple[torch.device, str, str]:
    """The device, the precision and the head's backend that `config` comes to; all that can be refused without data is.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss).
    """
    config.check()
    device = pick_device(config.device, ranks)
    precision = pick_precision(config.precision, device)
    check_model(config)
    check_options(config)
    plain = config.loss in ("ce", "focal") or config.head_parallel
    return device, precision, "torch" if plain else kernels.resolve(config.backend, device.type)


def build_loader(
    split: AnySplit,
    training: bool,
    *,
    config: TrainConfig,
    device: torch.device,
    mean: Channels,
    std: Channels,
    ranks: Ranks,
) -> Loader:
    """A split's batches: for training shuffled and augmented, else as they are; of several ranks this one's part."""
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


def check_options(config: TrainConfig) -> None:
    """Refuses options that do not go together, of an architecture that is there."""
    if (config.mixup or config.cutmix) and config.loss not in ("ce", "focal"):
        raise Refused(
            "--mixup and --cutmix", f"{config.loss} needs one label an image", "leave them out, or use --loss ce"
        )
    asked = {
        "progressive": ("--progressive", config.progressive > 0),
        "muon": ("--optimizer", config.optimizer == "muon"),
    }
    for name, (why, fix) in find_arch(config.arch).cannot.items():
        option, wanted = asked[name]
        if wanted:
            raise Refused(option, why.format(arch=config.arch), fix)


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
    # A state of the same size means another thing to another loss.
    if not isinstance(head, LinearHead) and head.options.loss != info.config.loss:
        theirs = {name: value for name, value in theirs.items() if name not in ("head.state", f"head.{LOSS_KEY}")}
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
