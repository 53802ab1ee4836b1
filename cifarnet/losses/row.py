"""A row of the table of losses: where a loss comes from, its constants, its running state. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cifarnet.core.fields import Bounds

PI = 3.14159  # the widest angle that a margin may add


@dataclass(frozen=True)
class Constant:
    """A constant of a loss: the original authors' value, its range, and a line of help.

    flag: the command line has an option of this name; every other constant is set by --loss-option.
    auto: "auto" stands for a value that fits the classes (see `auto_scale`); never_auto: the reason why it cannot.
    A text is one of the bounds' choices, in whatever case.
    """

    default: float | bool | str
    help: str
    bounds: Bounds = field(default_factory=Bounds)
    flag: bool = False
    auto: bool = False
    never_auto: str = ""


@dataclass(frozen=True)
class Loss:
    """A row: where the loss comes from, its constants, and its running state.

    state: names of the numbers that the loss remembers between steps; initial_state: their first values.
    angular: its logits come from angles, without bias, so that MarginHead runs it.
    adds: to what a fixed margin m is added, "angle" or "cosine"; "" where there is none, or m does something else.
    kernels: the devices on which the compiled head has it; elsewhere pure torch runs it.
    borrows: the loss whose compiled kernel it uses, with margins of its samples' own or several prototypes a class.
    spreads: `head_parallel` can spread its classes.
    lacks: constants that other losses have and this one does not, each with the reason.
    depending: defaults that another constant brings with it: {(name, value): {name: default}}.
    """

    source: str
    constants: dict[str, Constant] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    initial_state: tuple[float, ...] = ()
    angular: bool = True
    adds: str = ""
    kernels: tuple[str, ...] = ("cpu", "cuda")
    borrows: str = ""
    spreads: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)
    depending: Mapping[tuple[str, Any], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, float | bool | str]:
        """The original authors' values."""
        return {name: constant.default for name, constant in self.constants.items()}

    def with_defaults(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The constants: the authors' values, those that go with a choice, then what was chosen."""
        values = self.defaults | dict(chosen)
        brought = [more for (name, value), more in self.depending.items() if values[name] == value]
        return self.defaults | {name: value for more in brought for name, value in more.items()} | dict(chosen)


def scale_of(default: float, never_auto: str = "") -> Constant:
    """The constant s."""
    text = "s of the margin losses, or auto: fit to the number of classes (default: the paper's)"
    return Constant(default, text, Bounds(above=0, high=1000), True, not never_auto, never_auto)


ANGLE = Bounds(low=0, high=PI)


def margin_of(default: float, bounds: Bounds = ANGLE, never_auto: str = "") -> Constant:
    """The constant m."""
    text = "m of the margin losses, or auto: fit to classes and features (default: the paper's)"
    return Constant(default, text, bounds, True, not never_auto, never_auto)
