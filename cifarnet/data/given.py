"""A data set that a caller made: is it what training takes? Found out before anything is begun."""

import math
from typing import Any

from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused, plural
from cifarnet.data.dataset import AnySplit, Dataset, Split
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.sources.synthetic import FeatureSplit


def check_dataset(dataset: Any, config: TrainConfig) -> None:
    """Refuses what cannot be trained on under `config`; no image is opened.

    Raises:
        Refused: no `Dataset`, an empty split, a label that names no class, images of another side than `image_size`,
            features in place of images or the reverse, statistics that no pixel can be normalised by.
    """
    if not isinstance(dataset, Dataset):
        why = f"is of type {type(dataset).__name__}"
        raise Refused("dataset", why, "give a cifarnet.data.Dataset, as cifarnet.data.load and make_dataset return it")
    numbers = [*dataset.mean, *dataset.std]
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)) or min(dataset.std) <= 0:
        why = f"its mean {dataset.mean} and std {dataset.std} normalise no image"
        raise Refused("dataset", why, "give three finite numbers each, those of std above 0")
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        if not isinstance(split, (Split, StreamedSplit, FeatureSplit)):
            why = f"its {name} split is of type {type(split).__name__}"
            raise Refused("dataset", why, "give a cifarnet.data.Split of images and labels")
        check_split(name, split, len(dataset.classes), config)


def check_split(name: str, split: AnySplit, classes: int, config: TrainConfig) -> None:
    """Refuses a split as `check_dataset` says."""
    if not len(split):
        raise Refused("dataset", f"its {name} split is empty", "give it an image or more")
    features = isinstance(split, FeatureSplit)
    if features != (config.dataset == SYNTHETIC):
        found = "features" if features else "images"
        raise Refused("dataset", f"its {name} split is of {found}, and the configuration names {config.dataset}",
                      f"set `dataset` to {SYNTHETIC} for features, and to no such name for images")  # fmt: skip
    if isinstance(split, FeatureSplit):
        if split.source.dim != config.dim:
            why = f"its features have {split.source.dim} dimensions, and `dim` is {config.dim}"
            raise Refused("dataset", why, f"set `dim` to {split.source.dim}")
        return  # whose labels follow from their numbers
    least, most = (int(value) for value in split.labels.aminmax())
    if least < 0 or most >= classes:
        why = f"its {name} split has labels from {least} to {most}, and there are {plural(classes, 'class')}"
        raise Refused("dataset", why, f"give labels from 0 to {classes - 1}, or name all classes")
    sides = tuple(split.images.shape[-2:]) if isinstance(split, Split) else (split.image_size,) * 2  # type: ignore[attr-defined]
    if sides != (config.image_size, config.image_size):
        why = f"its {name} images are {sides[1]} x {sides[0]} pixels, and `image_size` is {config.image_size}"
        raise Refused("dataset", why, "set `image_size` to the side of the images, which are square, or resize them")
