"""ResNets (He et al., arXiv 1512.03385) for small images, and the same nets without their skip connections (PlainNet)."""

import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet.models.conv3x3 import conv3x3


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded to keep the image's size at stride 1."""
    if size == 3:
        return conv3x3(in_channels, out_channels, stride)
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = build_shortcut(in_channels, width, stride) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, width, H/stride, W/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))

    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm that ends the residual branch."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the width (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.shortcut = build_shortcut(in_channels, 4 * width, stride) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 4 width, H/stride, W/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))

    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm that ends the residual branch."""
        return self.bn3


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def build_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a projection (1x1 convolution, BatchNorm) where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def build_stem(name: str) -> nn.Sequential:
    """small: 3x3 stride 1 then max-pool (the report's); cifar: 3x3 stride 1, no pool; imagenet: 7x7 stride 2, max-pool."""
    size, stride = (7, 2) if name == "imagenet" else (3, 1)
    stem = nn.Sequential(conv(3, 64, size, stride), nn.BatchNorm2d(64), nn.ReLU())
    if name != "cifar":
        stem.append(nn.MaxPool2d(3, stride=2, padding=1))
    return stem


class ResNet(nn.Module):
    """Stem, four stages of blocks, global average pooling: images [B, 3, H, W] (H, W >= 32) -> features [B, D].

    Args:
        block: "basic" (D = 512) or "bottleneck" (D = 2048).
        depths: blocks in each stage.
        stem: see `build_stem`.
        skip: False takes every skip connection away (the report's PlainNet).
    """

    def __init__(self, block: str, depths: tuple[int, ...], *, stem: str = "small", skip: bool = True) -> None:
        super().__init__()
        kind = BLOCKS[block]
        self.stem = build_stem(stem)
        self.stages = nn.Sequential()
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(kind(channels, width, stride, skip))
                channels = width * kind.expansion
            self.stages.append(blocks)
        self.num_features = channels
        self._initialise(zero_residual=skip)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D]."""
        return self.stages(self.stem(images)).mean(dim=(2, 3))

    def _initialise(self, zero_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():  # a residual branch starts at zero; without a skip that would cut the net
            if zero_residual and isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm().weight)
