"""The losses and their heads. Importing the table does not import torch; the heads load on first use.

Adding a margin loss: a class in margins.py, a row in registry.py, a struct and its name in the list of csrc/margin_math.h, a row
in tests/losses/test_losses.py. One that pure torch runs: a class in objectives/, a row in more_rows.py, a formula in
tests/losses/test_objectives.py.
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
