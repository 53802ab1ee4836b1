"""A trained model together with a split of the data that it was trained on, or of another set of the same classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import pick_device, pick_precision, precision_here
from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown
from cifarnet.data import DATASETS, AnySplit, Dataset, Loader, hold_out, load, load_options
from cifarnet.data.identity import identify_split, parse_identity
from cifarnet.data.known_folders import is_known, remember_folder
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
    as_in_training: bool | None = None  # are these the images that the run was begun with? None: not known

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
    data = load(name, folder_of(config, name, data_dir), **load_options(config, name))
    if data_dir is not None:
        remember_folder(data_dir)
    if data.classes != info.classes:
        raise Refused("dataset", unlike(data.classes, info.classes), "name data of the classes that the model knows")
    images = data.test if split == "test" else data.train
    if split != "test" and config.val_fraction > 0:
        train, validation = hold_out(data.train, config.val_fraction, config.seed)
        images = train if split == "train" else validation
    loader = Loader(images, batch_size, target, mean=info.mean, std=info.std, shuffle=False)
    same = is_as_in_training(images, split, info) if name == config.dataset else None
    return Opened(path, model.to(target), info, name, split, loader, target, chosen, same)


def folder_of(config: TrainConfig, name: str, data_dir: str | Path | None) -> str | Path | None:
    """Where the data is read from: what the user named, else the run's own folder if a command here has named it before.

    Raises:
        Refused: images are read from files, and the folder that the checkpoint names is not known here.
    """
    row = DATASETS.get(name)
    if data_dir is not None or row is None or not row.takes_folder:
        return data_dir
    own = config.data_dir if name == config.dataset else None
    if own is None or is_known(own):
        return own
    if row.from_files:
        raise Refused(
            "data_dir", f"the checkpoint names {own}, which no command here has read", f"add `data_dir={own}`"
        )
    return None


def unlike(mine: Sequence[str], model: Sequence[str]) -> str:
    """In words, how the classes of a data set differ from a model's."""
    if len(mine) != len(model):
        return f"it has {len(mine):,} classes, the model {len(model):,}"
    pairs = [(number, one, other) for number, (one, other) in enumerate(zip(mine, model, strict=True)) if one != other]
    number, one, other = pairs[0]
    more = f", and {len(pairs) - 1} more differ" if len(pairs) > 1 else ""
    return f"class {number} is {one} here and {other} in the model{more}"


def is_as_in_training(images: AnySplit, split: str, info: ModelInfo) -> bool | None:
    """Are these the images that the run was trained or measured on? None where its checkpoint does not say."""
    known = parse_identity(info.data)
    if known is None or split == "val":
        return None
    return identify_split(images) == (known.test if split == "test" else known.train)
