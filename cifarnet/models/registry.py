"""The architectures: one row each. Importing the table does not import torch; a backbone's file is loaded on first use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Arch:
    """A row: how a backbone is built, which of its layers are shown, and what it cannot do.

    title: its name in titles; builder: "module:name" of the class or function that builds it; sizes: keywords of the
    builder; options: names of further keywords, which take their values from the options of the same name.
    feature_layers: what a picture of the whole network shows, as named by `analysis.features.record`; the last with more
    than one pixel is where Grad-CAM looks.
    smallest_image: side in pixels; one_size: whether larger images are refused too.
    cannot: an option, or option=value -> why it cannot be, with {arch} for the name, and what to do.
    """

    title: str
    builder: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    feature_layers: tuple[str, ...] = ()
    smallest_image: int = 32
    one_size: bool = False
    cannot: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def resnet(title: str, block: str, *depths: int, skip: bool = True) -> Arch:
    """The row of a ResNet of `depths` blocks in its stages; its layers are the stem and the blocks."""
    blocks = tuple(f"stages.{stage}.{index}" for stage, depth in enumerate(depths) for index in range(depth))
    return Arch(
        title,
        "cifarnet.models.resnet:ResNet",
        sizes={"block": block, "depths": depths, "skip": skip},
        options=("stem",),
        feature_layers=("stem", *blocks),
    )


SMALL = {
    "progressive": ("{arch} takes images of one size only", "use `progressive=0`, or a ResNet"),
    "optimizer=muon": ("muon needs a BatchNorm after each convolution, {arch} has none", "use sgd"),
}

# The backbones of images, by the names that --arch takes.
ARCHS: dict[str, Arch] = {
    "baseline": Arch(
        "baseline",
        "cifarnet.models.baseline:Baseline",
        feature_layers=("relu1", "max_pool1", "relu2", "max_pool2", "relu3"),
        one_size=True,
        cannot=SMALL,
    ),
    "resnet18": resnet("ResNet-18", "basic", 2, 2, 2, 2),
    "resnet34": resnet("ResNet-34", "basic", 3, 4, 6, 3),
    "resnet50": resnet("ResNet-50", "bottleneck", 3, 4, 6, 3),
    "resnet101": resnet("ResNet-101", "bottleneck", 3, 4, 23, 3),
    "resnet152": resnet("ResNet-152", "bottleneck", 3, 8, 36, 3),
    "speednet": Arch(
        "speednet",
        "cifarnet.models.speednet:SpeedNet",
        feature_layers=("whitening", "groups.0", "groups.1", "groups.2"),
    ),
    "plainnet18": resnet("PlainNet-18", "basic", 2, 2, 2, 2, skip=False),
    "plainnet34": resnet("PlainNet-34", "basic", 3, 4, 6, 3, skip=False),
    "plainnet50": resnet("PlainNet-50", "bottleneck", 3, 4, 6, 3, skip=False),
}
# The backbone of features that are given: it is chosen by the data set, so that no list of architectures names it.
FEATURES = Arch("identity", "cifarnet.models.identity:Identity", options=("dim",), smallest_image=0, cannot=SMALL)


def find_arch(arch: str) -> Arch:
    """The row of an architecture, that of given features too. Raises Refused for an unknown one."""
    if arch == IDENTITY:
        return FEATURES
    if arch not in ARCHS:
        raise unknown("arch", arch, ARCHS)
    return ARCHS[arch]


def check_arch(arch: str, image_size: int) -> None:
    """Raises Refused for an unknown architecture, or an image size that it cannot take."""
    row = find_arch(arch)
    smallest = row.smallest_image
    if row.one_size and image_size != smallest:
        why = f"{arch} takes {smallest}x{smallest} images, not {image_size}"
        raise Refused("image_size", why, f"use {smallest}, or a ResNet")
    if image_size < smallest:
        raise Refused("image_size", f"{arch} takes images of {smallest} pixels and more, not {image_size}")


def build_backbone(
    arch: str, stem: str = TrainConfig.stem, image_size: int = TrainConfig.image_size, dim: int = TrainConfig.dim
) -> "nn.Module":
    """A backbone, freshly initialised: `forward(images [B, 3, H, W]) -> features [B, num_features]`.

    Args:
        arch: a row's name.
        stem: first layers of a ResNet.
        image_size: side of the images, only checked.
        dim: size of the features that `identity` passes on.

    Raises:
        Refused: as `check_arch`.
    """
    check_arch(arch, image_size)
    row, given = find_arch(arch), {"stem": stem, "dim": dim}
    backbone: nn.Module = resolve_name(row.builder)(**row.sizes, **{name: given[name] for name in row.options})
    return backbone
