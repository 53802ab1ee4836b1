"""Images made worse in known steps: blur, JPEG, noise, and fewer pixels."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 32  # pixels, for which the strengths are meant; of other images blur and resize follow the side


@dataclass(frozen=True)
class Degradation:
    """A row: what its strengths are, from mild to strong, and the function that applies one.

    apply: uint8 [N, 3, H, W] on the CPU, a strength, a generator -> uint8 of the same shape.
    """

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Tensor, float, torch.Generator], Tensor]


def blur(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur of standard deviation `sigma` pixels at a side of 32, cut off at three of them; borders are mirrored."""
    from torchvision.transforms.v2.functional import gaussian_blur

    sigma = sigma * images.shape[-1] / SIDE
    reach = min(int(3 * sigma + 0.5) or 1, images.shape[-1] - 1)  # a mirror shows no more than the image
    return gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)


def jpeg(images: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Written as JPEG of this quality and read again, by Pillow: colours at half the resolution (4:2:0), as is its default."""
    made = np.empty((len(images), *images.shape[2:], 3), np.uint8)
    for place, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        made[place] = Image.open(file, formats=["JPEG"])
    return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()


def noise(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Normal noise of standard deviation `std`, of pixels in [0, 1]; what lies beyond is cut off."""
    pixels = images.float() / 255 + std * torch.randn(images.shape, generator=generator)
    return (255 * pixels.clamp_(0, 1)).round_().to(torch.uint8)


def resize(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Shrunk to `side` pixels (of 32) and enlarged again, bilinear with antialiasing."""
    full = images.shape[-1]
    less = max(1, round(side * full / SIDE))
    small = F.interpolate(images, (less, less), mode="bilinear", antialias=True)
    return F.interpolate(small, (full, full), mode="bilinear", antialias=True)


DEGRADATIONS: dict[str, Degradation] = {
    "blur": Degradation("σ in pixels of 32", (0.5, 1.0, 1.5, 2.0), blur),
    "jpeg": Degradation("JPEG quality", (95, 75, 50, 30, 10), jpeg),
    "noise": Degradation("standard deviation", (0.02, 0.05, 0.1, 0.2), noise),
    "resize": Degradation("side in pixels of 32", (24, 16, 8), resize),
}


def degrade(images: Tensor, name: str, strength: float, generator: torch.Generator) -> Tensor:
    """`images` (uint8 [N, 3, H, W], square, on the CPU) under a row of DEGRADATIONS; `generator` draws the noise."""
    return DEGRADATIONS[name].apply(images, strength, generator)
