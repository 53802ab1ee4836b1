"""The losses and their heads. Importing the table does not import torch; the heads load on first use.

CONTRIBUTING.md lists the places where a loss is added.
"""

from typing import TYPE_CHECKING, Any

from cifarnet.losses.registry import LOSSES, Loss, loss_constants

if TYPE_CHECKING:
    from cifarnet.losses.heads import MarginHead, build_head
    from cifarnet.losses.linear import LinearHead

__all__ = ["LOSSES", "LinearHead", "Loss", "MarginHead", "build_head", "loss_constants"]


def __getattr__(name: str) -> Any:
    if name in ("MarginHead", "LinearHead", "build_head"):
        from cifarnet.losses import heads

        return getattr(heads, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
