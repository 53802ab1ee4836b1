"""Shared by the commands that draw: opening a model with images of its data, and passing these through it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cifarnet.analysis.embedding import choose_balanced
from cifarnet.analysis.features import Embeddings, embed
from cifarnet.analysis.open_classes import checked_classes
from cifarnet.cli.common import messages
from cifarnet.cli.headline import say_opened
from cifarnet.cli.progress import load_shown
from cifarnet.core.errors import plural
from cifarnet.data import Loader
from cifarnet.engine.evaluate import collect_logits, measure_batches, only_coarse
from cifarnet.engine.metrics import check_finite
from cifarnet.engine.open_split import Opened, open_split
from cifarnet.models.checkpoint import load_model
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.find_checkpoint import need_checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Wanted:
    """Images of a run's data, as the options name them.

    Args:
        split: test, train or val.
        classes: unseen, seen or all (see `open_classes`).
        data_dir: where the data is; None: as `open_split`.
        device: the one that the model runs on.
    """

    split: str
    classes: str | None
    data_dir: str | None
    device: str


def open_wanted(path: Path, model: Classifier, info: ModelInfo, wanted: Wanted) -> Opened:
    """A checkpoint, as `load_model` gives it, with the split of the images that are wanted; their reading is shown on stderr.

    Raises:
        Refused: classes that the split has not, before any data is read; else as `open_split`.
    """
    checked_classes(info.config, wanted.split, wanted.classes)
    load = partial(load_shown, messages())
    return open_split(path, model, info, wanted.split, data_dir=wanted.data_dir, device=wanted.device, load=load)


def open_samples(run: Path | None, data_dir: str | None, split: str, samples: int, seed: int, device: str) -> Opened:
    """A run's model and `samples` images of a split, the same number of each class (0: all).

    Raises:
        Refused: no such run, a broken checkpoint, data missing, an unknown split.
    """
    return open_chosen(need_checkpoint(run), data_dir, split, samples, seed, device, named=run is not None)[0]


def open_chosen(
    path: Path, data_dir: str | None, split: str, samples: int, seed: int, device: str, named: bool
) -> "tuple[Opened, Tensor]":
    """As `open_samples`, of a checkpoint, with the places of these images in the split [N].

    Args:
        named: the user named the run.
    """
    model, info = load_model(path)
    opened = open_wanted(path, model, info, Wanted(split, None, data_dir, device))
    images = opened.loader.split
    indices = torch.arange(len(images))
    if 0 < samples < len(images):
        indices = choose_balanced(images.labels.cpu(), samples, seed)
        part: Any = images.subset(indices)
        chosen = Loader(part, 500, opened.device, mean=info.mean, std=info.std, shuffle=False)
        opened = replace(opened, loader=chosen)
    say_opened(messages(), opened, named=named)
    return opened, indices


def embed_images(opened: Opened) -> Embeddings:
    """Features, logits and labels of the images, with a line on stderr while it lasts."""
    with passing(opened):
        return embed(opened.model, opened.loader.epoch(0), opened.device, opened.precision)


def classify_images(opened: Opened, tta: bool) -> "Tensor":
    """Which images the model gets right, bool [N] on the CPU; `tta`: the logits of six views of each image are averaged, but of
    so many classes that no logits are kept.
    """
    if only_coarse(len(opened.info.classes)):
        with passing(opened):
            return measure_batches(opened.model, opened.loader.epoch(0), opened.device, opened.precision)[1].cpu()
    with passing(opened):
        logits, labels = collect_logits(opened.model, opened.loader.epoch(0), opened.device, opened.precision, tta)
    check_finite(logits)
    return (logits.argmax(dim=1) == labels).cpu()


def passing(opened: Opened) -> Any:
    """The line on stderr that is there while images pass through the model."""
    return messages().status(f"{plural(len(opened.loader.split), 'image')} through {opened.info.config.arch}")
