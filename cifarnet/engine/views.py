"""Test-time augmentation: an image is judged by the weighted mean of the logits of six views.

As Keller Jordan's airbench94 does (arXiv 2404.00498, 2024): the image, the image moved by a pixel to either end of a
diagonal, and the mirror image of each.
"""

import torch.nn.functional as F
from torch import Tensor

SHIFT = 1  # pixels, as in airbench94
# Half of the vote for the image where it is, half for the moved.
VIEW_WEIGHTS = (1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8)


def views(images: Tensor) -> list[Tensor]:
    """Six views of images [B, 3, H, W], each of that shape, in the order of VIEW_WEIGHTS; a moved image's edge is reflected."""
    height, width = images.shape[2:]
    padded = F.pad(images, (SHIFT,) * 4, mode="reflect")
    moved = [padded[:, :, at : at + height, at : at + width] for at in (0, 2 * SHIFT)]
    return [view for image in (images, *moved) for view in (image, image.flip(3))]
