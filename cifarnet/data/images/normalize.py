"""Pixels -> the numbers that a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std of pixels x in [0, 1], channel by channel: float32 [..., 3, H, W], on the images' device.

    Args:
        images: [..., 3, H, W], uint8, or float in [0, 1].

    (The loader's batches come to the same numbers by one multiply-add, within its augmentation.)
    """
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None] for v in (mean, std))
    return (pixels - shift) / scale
