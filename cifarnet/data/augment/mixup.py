"""Mixing pairs of images within a batch: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

A batch is in random order, so the partner of an image is its neighbour: no further draw is needed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed: the share of an image's own label, and for CutMix the box that its neighbour fills.

    share: lambda in [0, 1]; box: top, left, bottom, right in pixels, or None for mixup.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(mixup: float, cutmix: float, size: int, seed: int, step: int) -> Mix | None:
    """The mix of a step, a pure function of (seed, step); None where neither is asked for, an even choice where both are.

    Args:
        mixup, cutmix: alpha of the Beta(alpha, alpha) that lambda is drawn from; 0 is off.
        size: side of the images, pixels.
    """
    if not mixup and not cutmix:
        return None
    draw = np.random.default_rng((seed, step))
    cut = cutmix > 0 and (mixup == 0 or draw.random() < 0.5)
    share = float(draw.beta(cutmix, cutmix) if cut else draw.beta(mixup, mixup))
    return cut_box(share, int(draw.integers(size)), int(draw.integers(size)), size) if cut else Mix(share)


def cut_box(share: float, x: int, y: int, size: int) -> Mix:
    """CutMix's box around (x, y): 1 - share of the image before the border clips it; the share becomes that of the clipped box."""
    half = int(0.5 * (1 - share) ** 0.5 * size)
    left, right = max(x - half, 0), min(x + half, size)
    top, bottom = max(y - half, 0), min(y + half, size)
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Images [B, 3, H, W] mixed with their neighbours (the batch rolled by one); a new tensor."""
    partners = images.roll(1, 0)
    if mix.box is None:
        return torch.lerp(partners, images, mix.share)
    top, left, bottom, right = mix.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed
