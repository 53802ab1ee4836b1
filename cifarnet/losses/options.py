"""A margin loss with its constants, checked: what the command line, the head and the kernels hand on as one thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.losses.registry import LOSSES, loss_constants


@dataclass(frozen=True)
class MarginOptions:
    """The loss's name and all constants of its row; `options["h"]` is one of them. Make it by `margin_options`.

    classes: how many there are, in a head's options.
    """

    loss: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.constants[name]

    @property
    def scale(self) -> float:
        """s; 1 where the loss scales by the features' norm."""
        return self.constants.get("scale", 1.0)

    @property
    def margin(self) -> float:
        """m: radians for arcface and its kin, a cosine for cosface, sphereface's multiplier; 0 where it follows the norm."""
        return self.constants.get("margin", 0.0)

    @property
    def others(self) -> list[float]:
        """All constants but scale and margin, in the order of the row, as the kernels take them."""
        return [float(value) for name, value in self.constants.items() if name not in ("scale", "margin")]

    def __str__(self) -> str:
        return ", ".join([self.loss, *(f"{name}={value}" for name, value in self.constants.items())])


def margin_options(loss: str, **given: Any) -> MarginOptions:
    """The options of a margin loss; a constant that is None or not given has the original authors' value.

    Raises:
        Refused: an unknown loss, one without a margin, a constant that it does not have or that is out of range.
    """
    constants = loss_constants(loss, given, auto=False)
    if not LOSSES[loss].angular:
        raise Refused("loss", f"{loss} has no margin head", "build_head makes its head")
    for name, value in constants.items():
        if value == "auto":
            raise Refused(name, "auto is for TrainConfig and build_head", "give a number")
    return MarginOptions(loss, constants)
