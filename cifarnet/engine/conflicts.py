"""Options that do not go together, as a list: one row says which, why, and what to do. Checked before anything is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cifarnet.core.config import IDENTITY, SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data.registry import DATASETS, options_of_some
from cifarnet.data.shape_options import OPTIONS as SHAPING
from cifarnet.data.shape_options import asked_classes
from cifarnet.losses import LOSSES, loss_constants
from cifarnet.models import check_arch, find_arch

SPREAD = [name for name, row in LOSSES.items() if row.angular and row.spreads]  # what `head_parallel` can
SMALLEST_SIDE = 16  # pixels: the last stage of a ResNet still has one to work on


@dataclass(frozen=True)
class Conflict:
    """Options that cannot be together where `holds(config)`; the texts may name fields of the configuration in braces."""

    options: str
    holds: Callable[[TrainConfig], Any]
    why: str
    fix: str


def parallel_with(name: str, holds: Callable[[TrainConfig], Any], fix: str = "leave one of them out") -> Conflict:
    """A head whose classes lie apart cannot be with this option."""
    value = "" if isinstance(getattr(TrainConfig, name), bool) else f"={{{name}}}"
    return Conflict("head_parallel", lambda c: c.head_parallel and holds(c), f"cannot be with `{name}{value}`", fix)


def only_with(name: str, datasets: tuple[str, ...]) -> Conflict:
    """An option of some data sets alone, as their rows say."""
    default = getattr(TrainConfig, name)
    return Conflict(
        name,
        lambda c: c.dataset not in datasets and getattr(c, name) != default,
        "{dataset} has no such option",
        f"use it with {' or '.join(f'`dataset={dataset}`' for dataset in datasets)}",
    )


def without_images(name: str) -> Conflict:
    """Features are no images: this option has to stay off."""
    off = "none" if name == "augment" else getattr(TrainConfig, name)
    return Conflict(
        name,
        lambda c: c.dataset == SYNTHETIC and getattr(c, name) != off,
        f"{SYNTHETIC} has no images",
        "leave it out",
    )


CONFLICTS = (
    Conflict(
        "neck", lambda c: c.neck == "bn" and c.embed_dim == 0,
        "bn needs the size of the embedding", "add `embed_dim`, for example 512",
    ),
    Conflict(
        "`ema` and `swa`", lambda c: c.ema and c.swa,
        "are two averages of the weights", "choose one: `ema=0` or `swa=0`",
    ),
    Conflict(
        "`mixup` and `cutmix`", lambda c: (c.mixup or c.cutmix) and LOSSES[c.loss].angular,
        "{loss} needs one label an image", "leave them out, or use `loss=ce`",
    ),
    Conflict(
        "cuda_graph", lambda c: c.cuda_graph and (c.mixup or c.cutmix),
        "cannot be with `mixup` and `cutmix`, which the host draws in each step", "leave one of them out",
    ),
    Conflict(
        "progressive", lambda c: c.progressive and not SMALLEST_SIDE <= c.progressive <= c.image_size,
        "{progressive} is out of range", f"give {SMALLEST_SIDE} to {{image_size}} (`image_size`)",
    ),
    Conflict(
        "arch", lambda c: c.dataset == SYNTHETIC and c.arch != IDENTITY,
        "{arch} does not fit: {dataset} has features", f"use {IDENTITY} with {SYNTHETIC} only",
    ),
    Conflict(
        "arch", lambda c: c.dataset != SYNTHETIC and c.arch == IDENTITY,
        "{arch} does not fit: {dataset} has images", f"use {IDENTITY} with {SYNTHETIC} only",
    ),
    *map(without_images, ("augment", "cutout", "mixup", "cutmix", "progressive", "val_fraction", "tta", *SHAPING)),
    *(only_with(name, datasets) for name, datasets in options_of_some().items()),
    Conflict(
        "hold_out_classes", lambda c: c.hold_out_classes is not None and not asked_classes(c.hold_out_classes),
        "names no class", "give how many, or their names, as in cat,dog",
    ),
    Conflict(
        "data_dir", lambda c: c.data_dir is not None and c.dataset in DATASETS and not DATASETS[c.dataset].takes_folder,
        "{dataset} is read from no files", "leave it out, or name the `dataset` that lies there",
    ),
    Conflict(
        "head_sample", lambda c: c.head_sample < 1 and not c.head_parallel,
        "needs the head whose classes lie apart", "add `head_parallel`",
    ),
    parallel_with("loss", lambda c: not LOSSES[c.loss].angular, "use a margin loss"),
    parallel_with("loss", lambda c: not LOSSES[c.loss].spreads, f"use one of {', '.join(SPREAD)}"),
    parallel_with("prototypes", lambda c: c.prototypes == "simplex"),
    Conflict(
        "prototypes", lambda c: c.prototypes == "simplex" and c.frozen_head,
        "{prototypes} cannot be with `frozen_head`, which keeps random ones", "leave one of them out",
    ),
    parallel_with("init", lambda c: c.init != "kaiming"),
    parallel_with("backend", lambda c: c.backend == "cuda", "leave it out: a GPU runs it in pure torch"),
    parallel_with("compile", lambda c: c.compile),
    parallel_with("cuda_graph", lambda c: c.cuda_graph),
    parallel_with("log_grad", lambda c: c.log_grad),
)  # fmt: skip


def check_options(config: TrainConfig) -> None:
    """Refuses a configuration that cannot be trained, as far as that is known without data, device or ranks.

    Raises:
        Refused: a value out of its range, an unknown name, a constant that the loss does not have, a row of CONFLICTS.
    """
    config.check()
    check_arch(config.arch, config.image_size)
    loss_constants(config.loss, config.loss_options)
    for conflict in CONFLICTS:
        if conflict.holds(config):
            raise Refused(
                conflict.options, conflict.why.format_map(vars(config)), conflict.fix.format_map(vars(config))
            )
    for asked, (why, fix) in find_arch(config.arch).cannot.items():
        name, _, value = asked.partition("=")
        given = getattr(config, name)
        if given == value if value else given:
            raise Refused(name, why.format_map(vars(config)), fix)
