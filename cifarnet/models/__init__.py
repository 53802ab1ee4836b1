"""The backbones: one row an architecture. Importing the table does not import torch; the modules load on first use."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifarnet.core.errors import Refused

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Arch:
    """A row of the table: the block, blocks per stage, and whether skip connections are there."""

    block: str  # "basic", "bottleneck"; "convnet" for the report's small CNN, "speednet" for the fast one
    depths: tuple[int, ...] = ()
    skip: bool = True


ARCHS: dict[str, Arch] = {
    "baseline": Arch("convnet"),
    "resnet18": Arch("basic", (2, 2, 2, 2)),
    "resnet34": Arch("basic", (3, 4, 6, 3)),
    "resnet50": Arch("bottleneck", (3, 4, 6, 3)),
    "resnet101": Arch("bottleneck", (3, 4, 23, 3)),
    "resnet152": Arch("bottleneck", (3, 8, 36, 3)),
    "speednet": Arch("speednet"),
    "plainnet18": Arch("basic", (2, 2, 2, 2), skip=False),
    "plainnet34": Arch("basic", (3, 4, 6, 3), skip=False),
    "plainnet50": Arch("bottleneck", (3, 4, 6, 3), skip=False),
}


def build_backbone(arch: str, stem: str = "small", image_size: int = 32) -> "nn.Module":
    """A backbone: `forward(images [B, 3, H, W]) -> features [B, num_features]`, freshly initialised.

    Raises:
        Refused: as `check_arch`.
    """
    check_arch(arch, image_size)
    row = ARCHS[arch]
    if row.block == "convnet":
        from cifarnet.models.baseline import Baseline

        return Baseline()
    if row.block == "speednet":
        from cifarnet.models.speednet import SpeedNet

        return SpeedNet()
    from cifarnet.models.resnet import ResNet

    return ResNet(row.block, row.depths, stem=stem, skip=row.skip)


def check_arch(arch: str, image_size: int) -> None:
    """Raises Refused for an unknown architecture, or an image size that it cannot take."""
    if arch not in ARCHS:
        raise Refused("--arch", f"'{arch}' is not known", f"choose from {', '.join(ARCHS)}")
    if ARCHS[arch].block == "convnet" and image_size != 32:
        raise Refused("--image-size", f"baseline takes 32x32 images, not {image_size}", "use 32, or a ResNet")
    if image_size < 32:
        raise Refused("--image-size", f"{arch} takes images of 32 pixels and more, not {image_size}")
