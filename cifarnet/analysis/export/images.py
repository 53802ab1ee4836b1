"""The pictures that an exported file is checked on, and those that int8 is fitted to: real ones, the run's own where they are here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused, plural
from cifarnet.data import AnySplit, Dataset, load
from cifarnet.data.shaping import shape
from cifarnet.engine.open_split import open_split
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

CHECKED, FITTED = 10_000, 512  # pictures
PIXELS = 1 << 26  # in all, of them

Load = Callable[..., Dataset]


@dataclass(frozen=True)
class CheckPictures:
    """uint8 [N, H, W, 3], their labels [N] (None where they are no images of the model's classes), and what they are in words."""

    images: np.ndarray
    labels: Tensor | None
    words: str


def pictures_of(
    path: Path, model: Classifier, info: ModelInfo, data_dir: str | Path | None, fit: bool = False, read: Load = load
) -> tuple[CheckPictures, Tensor | None]:
    """Test pictures of the run, else scikit-learn's digits; with `fit` also training pictures, uint8 [n, H, W, 3].

    Nothing is downloaded.

    Args:
        data_dir: where the run's data is; None: where it was, or is usually.

    Raises:
        Refused: the folder that was named does not hold the run's data; with `fit`, it is not here.
    """
    size = info.config.image_size
    try:
        here = partial(read, download=False)
        opened = open_split(path, model, info, data_dir=data_dir, device="cpu", precision="fp32", load=here)
    except Refused as error:
        if data_dir is not None:
            raise
        if fit:
            why = f"it is fitted to {FITTED} training images, which are not here ({error.why})"
            raise Refused("`int8`", why, "name their folder with `data_dir`") from error
        digits = load("digits", image_size=size)
        both = torch.cat(
            [images_of(split, spread_over(len(split), size, CHECKED // 2)) for split in (digits.train, digits.test)]
        )
        words = f"{plural(len(both), 'image')} of scikit-learn's digits, since the run's data is not here"
        return CheckPictures(channels_last(both), None, words), None
    split = opened.loader.split
    index = spread_over(len(split), size, CHECKED)
    words = f"{plural(len(index), 'test image')} of {opened.dataset}"
    found = CheckPictures(channels_last(images_of(split, index)), split.labels.cpu()[index], words)
    if not fit:
        return found, None
    training = shape(opened.data, opened.shaping).train
    return found, images_of(training, spread_over(len(training), size, FITTED)).permute(0, 2, 3, 1)


def spread_over(count: int, size: int, most: int) -> Tensor:
    """The places of at most `most` of `count` pictures, evenly spread; of large pictures fewer."""
    number = max(1, min(count, most, PIXELS // size**2))
    return torch.arange(number) * count // number


def images_of(split: AnySplit, index: Tensor) -> Tensor:
    """uint8 [n, 3, H, W]."""
    return torch.cat([batch.cpu() for batch in split.batches([index])])


def channels_last(images: Tensor) -> np.ndarray:
    """[N, H, W, 3] of [N, 3, H, W]."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
