"""A trained model together with a split of the data that it was trained on, or of another set of the same classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.core.devices import pick_device, pick_precision, precision_here
from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown
from cifarnet.data import Dataset, Loader, hold_out, load, load_options
from cifarnet.losses import LOSSES
from cifarnet.models.checkpoint import ModelInfo
from cifarnet.models.classifier import Classifier

SPLITS = ("test", "train", "val")


@dataclass(frozen=True)
class Opened:
    """A model on its device, with the loader of a split as the model wants its images."""

    path: Path
    model: Classifier
    info: ModelInfo
    dataset: str
    split: str
    loader: Loader
    device: torch.device
    precision: str

    @property
    def images(self) -> Tensor:
        """The pictures of the split, uint8 [N, 3, H, W], on the CPU."""
        return next(iter(self.loader.split.batches([torch.arange(len(self.loader.split))]))).cpu()

    @property
    def angular(self) -> bool:
        """Does the loss compare angles?"""
        return LOSSES[self.info.config.loss].angular


def open_split(
    path: Path,
    model: Classifier,
    info: ModelInfo,
    split: str = "test",
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    batch_size: int = 500,
    device: str = "auto",
    precision: str | None = None,
    load: Callable[..., Dataset] = load,
) -> Opened:
    """The model of a checkpoint on its device, with a split.

    Args:
        path, model, info: the checkpoint, and what `load_model` makes of it.
        split: test, train, or val (what the run held out).
        dataset, data_dir: None takes the run's.
        precision: None takes the run's, or auto where bf16 would be the slower here.
        load: reads a data set, as `cifarnet.data.load` does.

    Raises:
        Refused: an unknown split, data that is missing, classes that are not the model's, a run that held nothing out.
    """
    config, name = info.config, dataset or info.config.dataset
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if split == "val" and config.val_fraction == 0:
        raise Refused("split", "the run held no validation images out", "choose test or train")
    target = pick_device(device)
    chosen = pick_precision(precision, target) if precision else precision_here(config.precision, target)
    data = load(name, data_dir or config.data_dir, **load_options(config, name))
    if data.classes != info.classes:
        why = f"its {len(data.classes)} classes are not the model's {len(info.classes)}"
        raise Refused("dataset", why, "name the data set that the model was trained on")
    images = data.test if split == "test" else data.train
    if split != "test" and config.val_fraction > 0:
        train, validation = hold_out(data.train, config.val_fraction, config.seed)
        images = train if split == "train" else validation
    loader = Loader(images, batch_size, target, mean=info.mean, std=info.std, shuffle=False)
    return Opened(path, model.to(target), info, name, split, loader, target, chosen)
