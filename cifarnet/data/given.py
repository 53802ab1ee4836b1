"""Checks a data set, or a place of data, that a caller in Python gives, before anything is begun."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.core.class_names import composed
from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused, is_printable, plural, printable
from cifarnet.core.fields import check_kind
from cifarnet.data.dataset import AnySplit, Dataset, Split
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.sources.layouts import guess_dataset, holds_images
from cifarnet.data.sources.synthetic import FeatureSplit

TABLES_AND_SHARDS = ("csv", "parquet", "webdataset")


def checked_dataset(dataset: Any, config: TrainConfig) -> Dataset:
    """The data set with its names as text and its statistics as plain numbers, as a checkpoint keeps them; no image is opened.

    Raises:
        Refused: what cannot be trained on under `config`: no `Dataset`, class names that are none, an empty split, a label that
            names no class, images of another side than `image_size`, features in place of images or the reverse,
            statistics that no pixel can be normalised by.
    """
    fix = "give a cifarnet.data.Dataset, as cifarnet.data.load and cifarnet.data.make_dataset return it"
    check_kind("dataset", dataset, Dataset, fix)
    if config.dataset != SYNTHETIC:
        dataset = replace(dataset, classes=class_names(dataset.classes))
    mean, std = checked_channels("mean", dataset.mean), checked_channels("std", dataset.std)
    if min(std) <= 0:
        raise Refused("dataset", f"its std {std} normalises no image", "give three numbers above 0")
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        if not isinstance(split, (Split, StreamedSplit, FeatureSplit)):
            why = f"its {name} split is of type {type(split).__name__}"
            raise Refused("dataset", why, "give a cifarnet.data.Split of images and labels")
        check_split(name, split, len(dataset.classes), config)
    return replace(dataset, mean=mean, std=std)


def only_in_python(name: str, call: str) -> Refused:
    """The refusal of a data set that no reader knows, to raise; `call` takes it in Python."""
    why = f"'{printable(name)}' is none that cifarnet reads: Python code gave it to the training"
    return Refused("dataset", why, f"give it to {call} in Python")


def class_names(classes: Any) -> tuple[str, ...]:
    """The names as text, of text or of whole numbers. Raises Refused for fewer than two, one twice, or what no checkpoint keeps."""
    given = list(classes) if isinstance(classes, Sequence | np.ndarray) and not isinstance(classes, str) else []
    names = tuple(
        composed(str(name)) for name in given if isinstance(name, str | Integral) and not isinstance(name, bool)
    )
    if len(names) != len(given) or len(names) < 2 or not all(is_printable(name) and name for name in names):
        why = "its classes are not two names or more, each of characters that can be seen"
        raise Refused("dataset", why, "give a tuple of names, in the order of the labels")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise Refused("dataset", f"two of its classes are called {twice}", "give each class a name of its own")
    return names


def checked_channels(what: str, values: Any) -> tuple[float, float, float]:
    """Three numbers in [0, 1]. Raises Refused where they are none."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(0 <= number <= 1 for number in numbers):  # NaN is not
        why = f"its {what} {values!r} is not of pixels in [0, 1]"
        raise Refused("dataset", why, "give three numbers from 0 to 1, as make_dataset measures them")
    return numbers  # type: ignore[return-value]


def check_split(name: str, split: AnySplit, classes: int, config: TrainConfig) -> None:
    """Refuses a split as `checked_dataset` says."""
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
    if isinstance(split, Split) and (split.images.is_meta or split.labels.is_meta):
        raise Refused(
            "dataset", f"its {name} split is on the meta device, which holds no numbers", "give it on the CPU"
        )
    least, most = (int(value) for value in split.labels.aminmax())
    if least < 0 or most >= classes:
        why = f"its {name} split has labels from {least} to {most}, and there are {plural(classes, 'class')}"
        raise Refused("dataset", why, f"give labels from 0 to {classes - 1}, or name all classes")
    sides = tuple(split.images.shape[-2:]) if isinstance(split, Split) else (split.image_size,) * 2  # type: ignore[attr-defined]
    if sides != (config.image_size, config.image_size):
        why = f"its {name} images are {sides[1]} x {sides[0]} pixels, and `image_size` is {config.image_size}"
        raise Refused("dataset", why, "set `image_size` to the side of the images, which are square, or resize them")


def check_place(config: TrainConfig) -> None:
    """Refuses CIFAR-10, which is `dataset` where a caller names none, for a `data_dir` in which other images are seen.

    CIFAR-10 of another place would be trained on in their stead. Of folders with archives or parquet files nothing is known by their names.
    """
    if config.dataset != TrainConfig.dataset or config.data_dir is None:
        return
    place = Path(config.data_dir)
    kind = guess_dataset(place)
    sure = (
        kind in ("folder", "csv") if place.is_dir() else kind in TABLES_AND_SHARDS and "cifar" not in place.name.lower()
    )
    if sure or (kind is None and place.is_dir() and holds_images(place, depth=2)):
        named = f"set `dataset={kind}`" if sure else "name the `dataset` that it is"
        why = "other images lie there than CIFAR-10's, and `dataset` is cifar10, as where none is named"
        raise Refused(f"`data_dir={printable(place)}`", why, f"{named}, or leave `data_dir` out for CIFAR-10")
