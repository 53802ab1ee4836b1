"""A 3x3 convolution that trains at a matrix product's speed on the smallest maps.

A ResNet for 32x32 images ends in maps of 2x2, where more than half of a padded 3x3 window is padding (5 of 9), and
CPU libraries multiply it all the same. Every window holds the whole map there, so that the layer is a dense matrix of
the window's taps: with 512 channels and a batch of 512, forward and backward take a third of the time in bf16.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SIDE = 2  # of maps that every window, one pixel to each side of its centre, covers


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution, padding 1, no bias: [B, in, H, W] -> [B, out, H/stride, W/stride], to rounding what torch computes.

    It is a plain nn.Conv2d, not a subclass: what counts or converts layers looks them up by their exact class.
    """
    layer = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    # A partial, unlike a bound method, is pickled; a deep copy of the layer gets one of its own.
    layer._conv_forward = partial(convolve, layer)  # type: ignore[method-assign]
    return layer


def convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer's output, called by nn.Conv2d.forward: a matrix product where a CPU trains on a map that every window covers."""
    if layer.training and x.device.type == "cpu" and max(x.shape[2:]) <= LARGEST_SIDE:
        return dense_conv3x3(x, weight, layer.stride[0])
    return nn.Conv2d._conv_forward(layer, x, weight, bias)


def dense_conv3x3(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """conv2d(x, weight, stride=stride, padding=1) as one matrix product: [B, in, H, W] -> [B, out, H/stride, W/stride].

    Args:
        x: H, W <= 2.
        weight: [out, in, 3, 3].
        stride: 1 or 2.
    """
    height, width = x.shape[2:]
    rows, columns = range(0, height, stride), range(0, width, stride)
    taps = weight.permute(0, 2, 3, 1)  # [out, 3, 3, in], contiguous in channels_last
    windows = [  # for each output the taps that meet the map: [out, H W in]
        taps[:, 1 - row : 1 - row + height, 1 - column : 1 - column + width].flatten(1)
        for row in rows
        for column in columns
    ]
    y = F.linear(x.permute(0, 2, 3, 1).flatten(1), torch.cat(windows))
    return y.view(len(x), len(rows), len(columns), -1).permute(0, 3, 1, 2)
