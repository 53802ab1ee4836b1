"""A trained model together with a split of the data that it was trained on, or of another set of the same classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import pick_device, pick_precision, precision_here
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_count, check_path
from cifarnet.core.known import unknown
from cifarnet.data import DATASETS, AnySplit, Dataset, Loader, load, load_options
from cifarnet.data.given import checked_dataset, only_in_python
from cifarnet.data.identity import DataIdentity, identity_of_split, parse_identity
from cifarnet.data.known_folders import is_known, remember_folder
from cifarnet.data.shaping import Shaped, in_class_order, shape
from cifarnet.engine.same_data import unlike, unlike_training
from cifarnet.losses import LOSSES
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

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
    data: Dataset  # as it was loaded, its classes in the model's order
    shaping: TrainConfig  # what makes the split of it
    as_in_training: bool | None = None  # are these the images that the run was begun with? None: not known

    @property
    def images(self) -> Tensor:
        """The pictures of the split, uint8 [N, 3, H, W], on the CPU."""
        return next(iter(self.loader.split.batches([torch.arange(len(self.loader.split))]))).cpu()

    @cached_property
    def identity(self) -> DataIdentity | None:
        """That of the data as the run would take it; None where its training split cannot be made of this set."""
        try:
            return shape(self.data, self.shaping).identity()
        except Refused:
            return None

    @property
    def of_own_data(self) -> bool:
        """Is the split one of the run's own data, as far as is known?"""
        return self.dataset == self.info.config.dataset and self.as_in_training is not False

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
    dataset: str | Dataset | None = None,
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
        dataset, data_dir: None takes the run's; a `Dataset` is one that is loaded already.
        precision: None takes the run's, or auto where bf16 would be the slower here.
        load: reads a data set, as `cifarnet.data.load` does.

    Raises:
        Refused: an unknown split or precision, a batch of no image, data that is missing, classes that are not
            the model's, a run that held nothing out.
    """
    config = info.config
    check_count("batch_size", batch_size)
    check_path("data_dir", data_dir)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if split == "val" and config.val_fraction == 0:
        raise Refused("split", "the run held no validation images out", "choose test or train")
    target = pick_device(device)
    chosen = pick_precision(precision, target) if precision is not None else precision_here(config.precision, target)
    name, data = read_data(config, dataset, data_dir, load)
    data = in_class_order(data, info.classes)
    asked = shape_of(config, data, info.classes)
    shaped = shape(data, of_test(asked) if split == "test" else asked)
    if shaped.dataset.classes != info.classes:
        found = unlike(shaped.dataset.classes, info.classes)
        raise Refused("dataset", found, "name data of the classes that the model knows")
    images = {"test": shaped.dataset.test, "train": shaped.train, "val": shaped.validation}[split]
    assert images is not None
    loader = Loader(images, batch_size, target, mean=info.mean, std=info.std, shuffle=False)
    own = name == config.dataset or isinstance(dataset, Dataset)
    same = is_as_in_training(shaped, images, split, info) if own else None
    return Opened(path, model.to(target), info, name, split, loader, target, chosen, data, asked, same)


def read_data(
    config: TrainConfig, dataset: str | Dataset | None, data_dir: str | Path | None, load: Callable[..., Dataset]
) -> tuple[str, Dataset]:
    """A data set and its name: the one that is given, the one that is named, or the run's. Raises as `open_split`."""
    if isinstance(dataset, Dataset):
        if data_dir is not None:
            raise Refused("data_dir", "stands beside a data set that is loaded already", "leave one of them out")
        return dataset.name, checked_dataset(dataset, config)
    if dataset is not None and not isinstance(dataset, str):
        raise Refused("dataset", f"is of type {type(dataset).__name__}", "give a name, or a cifarnet.data.Dataset")
    name = dataset or config.dataset
    if name not in DATASETS and name == config.dataset:
        raise only_in_python(name, "cifarnet.evaluate")
    data = load(name, folder_of(config, name, data_dir), **load_options(config, name))
    if data_dir is not None:
        remember_folder(data_dir)
    return name, data


def shape_of(config: TrainConfig, data: Dataset, classes: Sequence[str]) -> TrainConfig:
    """The run's configuration, without held-out classes where another set has the model's `classes` and no others."""
    other = data.name != config.dataset and data.classes == classes
    return replace(config, hold_out_classes=None) if other else config


def of_test(config: TrainConfig) -> TrainConfig:
    """The configuration as far as it shapes the test split: the training images of another set may not suffice for more."""
    return replace(config, subset=0, imbalance=1.0, label_noise=0.0, val_fraction=0.0)


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


def is_as_in_training(shaped: Shaped, images: AnySplit, split: str, info: ModelInfo) -> bool | None:
    """Are these the images that the run was trained or measured on? None where its checkpoint does not say.

    What was held out was drawn from the whole by the run's seed: of other data it is other images.
    """
    if split == "val":
        changed = unlike_training(info, shaped)
        return None if changed is None else not changed
    known = parse_identity(info.data)
    if known is None:
        return None
    return identity_of_split(images).same_images(known.test if split == "test" else known.train)
