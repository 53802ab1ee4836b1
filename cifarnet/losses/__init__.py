"""The losses: one row a loss. Importing the table does not import torch; the modules load on first use.

Adding a loss: a function in margins.py, a row here, a row in tests/test_losses.py.
"""

from dataclasses import dataclass, field
from typing import Any

from cifarnet.core.errors import Refused


@dataclass(frozen=True)
class Loss:
    """A row of the table: where the loss comes from and its constants, with the original authors' defaults."""

    source: str
    defaults: dict[str, float | bool] = field(default_factory=dict)
    state: tuple[str, ...] = ()  # what its running state holds, in order
    initial_state: tuple[float, ...] = ()
    angular: bool = True  # whether its logits come from angles (no bias), so that MarginHead runs it


LOSSES: dict[str, Loss] = {
    "ce": Loss("softmax cross-entropy", angular=False),
    "focal": Loss("arXiv 1708.02002", {"gamma": 2.0}, angular=False),
    "sphereface": Loss("arXiv 1704.08063", {"margin": 4}, ("steps",), (0.0,)),
    "cosface": Loss("arXiv 1801.09414", {"scale": 64.0, "margin": 0.35}),
    "arcface": Loss("arXiv 1801.07698", {"scale": 64.0, "margin": 0.5, "easy_margin": False}),
    "curricularface": Loss("arXiv 2004.00288", {"scale": 64.0, "margin": 0.5}, ("t",), (0.0,)),
    "adaface": Loss(
        "arXiv 2204.00964",
        {"scale": 64.0, "margin": 0.4, "h": 0.333, "t_alpha": 0.01},
        ("norm_mean", "norm_std"),
        (20.0, 100.0),
    ),
    "magface": Loss("arXiv 2103.06627", {"scale": 64.0}),
}


def loss_constants(loss: str, **given: float | str | bool | None) -> dict[str, Any]:
    """The constants of `loss`: its defaults, replaced by those `given` that are not None (or, for a flag, not False).

    Raises:
        Refused: an unknown loss, or a constant that this loss does not have.
    """
    if loss not in LOSSES:
        raise Refused("--loss", f"'{loss}' is not known", f"choose from {', '.join(LOSSES)}")
    defaults = LOSSES[loss].defaults
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in chosen:
        if name not in defaults:
            takes = ", ".join(f"--{key.replace('_', '-')}" for key in defaults) or "no constants"
            raise Refused(f"--{name.replace('_', '-')}", f"{loss} has no such constant", f"{loss} takes {takes}")
    return {**defaults, **chosen}


def __getattr__(name: str) -> Any:
    if name in ("MarginHead", "LinearHead", "build_head"):
        from cifarnet.losses import heads

        return getattr(heads, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
