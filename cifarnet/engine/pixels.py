"""Images as people have them: paths, PIL images, arrays, tensors, or lists of these -> pixels in a model's size."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.data.images.decode import ImageError, find_images, read_image
from cifarnet.data.images.normalize import normalize
from cifarnet.data.images.square import square_of

KINDS = "a path, a PIL image, a uint8 array [H, W, 3] or [N, H, W, 3], a tensor [3, H, W] or [N, 3, H, W], or a list of these"


def is_batch(images: Any) -> bool:
    """Does this stand for several images: a list, an array or a tensor with a batch axis, a folder?"""
    if isinstance(images, (str, os.PathLike)):
        return Path(images).is_dir()
    return isinstance(images, (list, tuple)) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4)


def one_by_one(images: Any) -> Iterator[Any]:
    """Each image by itself; of a folder its image files, in the order of their names. Raises Refused for an empty path."""
    if isinstance(images, (str, bytes)) and not images:
        raise Refused("images", "the path is empty", "name a file or a folder; Path('.') is this one")
    if isinstance(images, (str, os.PathLike)) and Path(images).is_dir():
        yield from find_images([images], recursive=True)
    elif is_batch(images):
        for image in images:
            if is_batch(image):
                raise Refused("images", "a batch stands within a list", "give one batch, or a list of single images")
            yield image
    else:
        yield images


def read_pixels(image: Any, size: int, crop: bool = False) -> tuple[Tensor, list[str]]:
    """One image as [3, size, size], and remarks for the user.

    uint8, RGB, read and resized as `cifarnet predict` does; of a float tensor in [0, 1] that has this size already, the
    tensor itself.

    Raises:
        ImageError: a file that is not an image.
        Refused: anything else than KINDS, or values out of their range; the message says what to give.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, size, crop=crop)
    if isinstance(image, Image.Image):
        return _from_pil(image, size, crop)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise Refused(
                "images", f"an array of {image.dtype} {list(image.shape)}", "give uint8 [H, W, 3], or a tensor"
            )
        check_size(image.shape[:2])
        return square_of("the image", Image.fromarray(image), size, crop).pixels, []
    if isinstance(image, Tensor):
        return _from_tensor(image, size, crop), []
    raise Refused("images", f"an object of type {type(image).__name__} is no image", f"give {KINDS}")


def check_size(sides: Sequence[int]) -> None:
    """Refuses an image without a pixel."""
    if 0 in sides:
        raise Refused("images", f"an image of {' x '.join(map(str, sides))} pixels", "give one that has some")


def _from_pil(image: Image.Image, size: int, crop: bool) -> tuple[Tensor, list[str]]:
    check_size(image.size)
    try:
        square = square_of("the image", image, size, crop)
    except OSError as error:  # PIL reads the pixels of a file when they are first asked for
        raise ImageError("the image", f"is truncated or damaged ({error})") from error
    return square.pixels, square.remarks


def _from_tensor(image: Tensor, size: int, crop: bool) -> Tensor:
    if image.ndim != 3 or image.shape[0] != 3:
        raise Refused("images", f"a tensor {list(image.shape)}", "give [3, H, W] or [N, 3, H, W], RGB")
    check_size(image.shape[1:])
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = image.aminmax()
        if not (low >= 0 and high <= 1):  # NaN is not inside either
            why = f"a float tensor with values from {float(low):.3g} to {float(high):.3g}"
            raise Refused("images", why, "give pixels in [0, 1] (normalisation lives inside), or uint8")
        if image.shape[1:] == (size, size):
            return image.float()
        image = (image * 255).round().byte()
    elif image.dtype != torch.uint8:
        raise Refused("images", f"a tensor of {image.dtype}", "give uint8, or float in [0, 1]")
    return square_of("the image", Image.fromarray(image.permute(1, 2, 0).numpy()), size, crop).pixels


def normalized_batch(
    images: Sequence[Tensor], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor:
    """Pixels [3, H, W], uint8 or float in [0, 1], as a model wants them: float32 [N, 3, H, W] on the device."""
    return torch.stack([normalize(image, mean, std) for image in images]).to(device)
