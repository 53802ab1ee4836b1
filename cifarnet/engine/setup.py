"""From a configuration and its data to a run that is ready to train; what cannot be trained is refused."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.devices import check_compiler, pick_device, pick_precision
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused, plural
from cifarnet.data import AnySplit, Dataset, Loader
from cifarnet.data.dataset import Channels
from cifarnet.data.images.normalize import normalize
from cifarnet.data.shaping import shape
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.optim import build_optimizer, keep_rate_on_device
from cifarnet.engine.step import BatchLoss, compiled
from cifarnet.engine.step_graph import StepGraph
from cifarnet.engine.train_state import RunningSums, TrainState
from cifarnet.losses import LOSSES, kernels
from cifarnet.losses.sharded.compiled import resolve_shards
from cifarnet.models.checkpoint import WithoutDrawing, load_model
from cifarnet.models.classifier import Classifier, build_model, check_model, layers_before_head

FIT_IMAGES = 5000  # images that a first layer is fitted to: ample for 12 x 12 covariances


def build_run(config: TrainConfig, dataset: Dataset, init_from: Path | None = None, ranks: Ranks = ALONE) -> TrainState:
    """Everything that training needs, at its start; of several ranks this one's, not yet joined to the others (`wrap_ddp`).

    Its `config` says which precision `auto` came to.

    Args:
        dataset: as it was loaded: what the configuration makes of its training split is made here.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss, split, ranks).
    """
    device, precision, backend = resolve_execution(config, ranks)
    config = dataclasses.replace(config, precision=precision)  # what is saved: a resume elsewhere keeps it
    shaped = shape(dataset, config)
    dataset, train = shaped.dataset, shaped.train
    model = build_model(config, len(dataset.classes), ranks)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    mean, std = (dataset.mean, dataset.std) if config.normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    loader = partial(build_loader, config=config, device=device, mean=mean, std=std, ranks=ranks)
    if init_from is not None:
        copy_weights(model, config, init_from)
    elif fit_to := getattr(model.backbone, "fit_to", None):
        fit_to(sample_images(train, mean, std))
    model.head.count(train.labels)
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    run = TrainState(
        config=config,
        classes=dataset.classes,
        data=shaped.identity(),
        device=device,
        precision=precision,
        backend=backend,
        model=model,
        average=copy.deepcopy(model).requires_grad_(False).eval() if config.ema or config.swa else None,
        optimizer=build_optimizer(model, config),
        forward=compiled(BatchLoss(model, device, precision), config),
        train=loader(train, training=True),
        test=loader(dataset.test, training=False),
        validation=loader(shaped.validation, training=False) if shaped.validation is not None else None,
        mean=mean,
        std=std,
        sums=RunningSums(device),
        not_finite=torch.zeros((), device=device),
        ranks=ranks,
    )
    check_ranks(run)
    if config.cuda_graph:
        use_graph(run)
    return run


def use_graph(run: TrainState) -> None:
    """From now on the steps of whole batches are one CUDA graph."""
    keep_rate_on_device(run.optimizer, run.device)
    run.graph = StepGraph()


def resolve_execution(config: TrainConfig, ranks: Ranks = ALONE) -> tuple[torch.device, str, str]:
    """The device, the precision and the head's backend that `config` comes to; all that can be refused without data is.

    Raises:
        Refused: an option that cannot be met (device, precision, backend, architecture, loss).
    """
    check_options(config)
    device = pick_device(config.device, ranks)
    if config.compile:
        check_compiler(device)
    if config.cuda_graph and device.type != "cuda":
        raise Refused("cuda_graph", f"is for a CUDA GPU, and this is {device}", "leave it out")
    if config.cuda_graph and ranks.world > 1:
        raise Refused("cuda_graph", f"is for one GPU, and there are {ranks.world} ranks", "leave it out")
    if config.sync_bn and device.type != "cuda":
        raise Refused("sync_bn", f"torch has it for CUDA only, and this is {device}", "leave it out")
    precision = pick_precision(config.precision, device)
    check_model(config)
    if config.batch_size == 1:
        with torch.device("meta"), WithoutDrawing():
            check_batch_of_one(build_model(config, num_classes=3), config)
    kernels.asked(config.backend)  # a wrong word is refused also where no margin head reads it
    backend = "torch"
    if LOSSES[config.loss].angular:
        resolve = resolve_shards if config.head_parallel else kernels.resolve
        backend = resolve(config.backend, device.type, loss=config.loss)
    return device, precision, backend


def check_batch_of_one(model: Classifier, config: TrainConfig) -> None:
    """Refuses to train by one image at a time where BatchNorm then has one value a channel (after a neck, on a 1x1 map).

    Args:
        model: on the meta device, where it is tried without computing anything.
    """
    side = config.progressive or config.image_size
    shape = (1, config.dim) if config.arch == IDENTITY else (1, 3, side, side)
    try:
        model.train().features(torch.empty(shape, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        fix = "use 2 or more, or `neck=none`" if config.neck == "bn" else "use 2 or more"
        raise Refused(
            "batch_size", "of one image BatchNorm has a single value a channel, no statistics", fix
        ) from error


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


def sample_images(split: AnySplit, mean: Channels, std: Channels) -> Tensor:
    """Up to FIT_IMAGES images from all over a training split, normalised, float32 [N, 3, H, W] on the CPU."""
    count = min(len(split), FIT_IMAGES)
    images = next(iter(split.batches([torch.arange(count) * len(split) // count]))).cpu()
    return normalize(images, mean, std)


def check_ranks(run: TrainState) -> None:
    """Refuses what several ranks cannot do."""
    config, ranks = run.config, run.ranks
    if ranks.world == 1 and len(run.train.split) == 1:
        check_batch_of_one(copy.deepcopy(run.model).to("meta"), config)
    least, smallest = run.train.size(run.steps - 1), 2 * ranks.world  # the last batch of an epoch
    if ranks.world > 1 and least < smallest:
        images = len(run.train.split)
        fits = [size for size in range(smallest, config.batch_size) if not 1 < images % size < smallest]
        raise Refused(
            "batch_size",
            f"{config.batch_size} leaves a batch of {plural(least, 'image')} for {ranks.world} ranks, fewer than two for each",
            f"choose another, for example {fits[-1]}, or fewer ranks" if fits else "use fewer ranks",
        )


def copy_weights(model: Classifier, config: TrainConfig, path: Path) -> None:
    """Starts from the weights of another checkpoint; a head of another shape (other classes, other loss) keeps its own.

    Raises:
        Refused: the backbone there is another one, or what lies between backbone and head.
    """
    source, info = load_model(path, of_features=True)
    theirs, mine = source.state_dict(), model.state_dict()
    head = {name.removeprefix("head."): theirs.pop(name) for name in list(theirs) if name.startswith("head.")}
    theirs |= {f"head.{name}": value for name, value in model.head.taken_from(head, info.config.loss).items()}
    if theirs["head.weight"].shape != mine["head.weight"].shape:
        # Its state, and a bias that it learned, are of its own classes.
        theirs = {name: value for name, value in theirs.items() if not name.startswith("head.")}
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    body = [name for name in mine if not name.startswith("head.")]
    lost = [name for name in body if name not in fitting]
    if lost and lost[0].startswith("neck."):
        raise Refused(
            "init_from",
            f"{path} has {layers_before_head(info.config, len(info.classes))} between backbone and head, and this run "
            f"{layers_before_head(config, model.head.num_classes)}",
            "use the same `neck`, `embed_dim` and `prototypes`",
        )
    if lost:
        raise Refused(
            "init_from",
            f"{path} is a {info.config.arch} whose {lost[0]} does not fit",
            "use the same `arch` and `stem`",
        )
    model.load_state_dict(fitting, strict=False)
