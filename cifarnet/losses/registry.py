"""The losses: one row a loss, with its constants. The table is read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.core.fields import Bounds, check_bounds, check_number
from cifarnet.core.known import unknown

PI = 3.14159  # the widest angle that a margin may add


@dataclass(frozen=True)
class Constant:
    """A constant of a loss: the original authors' value, its range, and a line of help.

    flag: the command line has an option of this name; every other constant is set by --loss-option.
    auto: "auto" stands for a value that fits the classes (see `auto_scale`).
    """

    default: float | bool
    help: str
    bounds: Bounds = field(default_factory=Bounds)
    flag: bool = False
    auto: bool = False


@dataclass(frozen=True)
class Loss:
    """A row: where the loss comes from, its constants, and its running state.

    state: names of the numbers that the loss remembers between steps; initial_state: their first values.
    angular: its logits come from angles, without bias, so that MarginHead runs it.
    adds: to what a fixed margin m is added, "angle" or "cosine"; "" where there is none, or m does something else.
    """

    source: str
    constants: dict[str, Constant] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    initial_state: tuple[float, ...] = ()
    angular: bool = True
    adds: str = ""

    @property
    def defaults(self) -> dict[str, float | bool]:
        """The original authors' values."""
        return {name: constant.default for name, constant in self.constants.items()}


def _scale(default: float) -> Constant:
    text = "s of the margin losses, or auto: fit to the number of classes (default: the paper's)"
    return Constant(default, text, Bounds(above=0, high=1000), flag=True, auto=True)


ANGLE = Bounds(low=0, high=PI)


def _margin(default: float, bounds: Bounds = ANGLE) -> Constant:
    text = "m of the margin losses, or auto: fit to classes and features (default: the paper's)"
    return Constant(default, text, bounds, flag=True, auto=True)


LOSSES: dict[str, Loss] = {
    "ce": Loss(
        "softmax cross-entropy",
        {"label_smoothing": Constant(0.0, "label smoothing of ce", Bounds(low=0, high=0.999), flag=True)},
        angular=False,
    ),
    "focal": Loss(
        "arXiv 1708.02002",
        {"gamma": Constant(2.0, "focal loss: the focusing exponent", Bounds(low=0, high=1000), flag=True)},
        angular=False,
    ),
    "sphereface": Loss("arXiv 1704.08063", {"margin": _margin(4, Bounds(choices=(1, 2, 3, 4, 5)))}, ("steps",), (0.0,)),
    "cosface": Loss("arXiv 1801.09414", {"scale": _scale(64.0), "margin": _margin(0.35)}, adds="cosine"),
    "arcface": Loss(
        "arXiv 1801.07698",
        {
            "scale": _scale(64.0),
            "margin": _margin(0.5),
            "easy_margin": Constant(False, "ArcFace: the margin only where the target cosine is positive", flag=True),
        },
        adds="angle",
    ),
    "curricularface": Loss(
        "arXiv 2004.00288", {"scale": _scale(64.0), "margin": _margin(0.5)}, ("t",), (0.0,), adds="angle"
    ),
    "adaface": Loss(
        "arXiv 2204.00964",
        {
            "scale": _scale(64.0),
            "margin": _margin(0.4),
            "h": Constant(0.333, "AdaFace's h, how far the norm moves the margin", Bounds(low=0, high=1000), flag=True),
            "t_alpha": Constant(0.01, "AdaFace's EMA rate of the norm statistics", Bounds(low=0, high=1), flag=True),
        },
        ("norm_mean", "norm_std"),
        (20.0, 100.0),
        adds="angle",
    ),
    "magface": Loss("arXiv 2103.06627", {"scale": _scale(64.0)}),
}


def loss_row(loss: str) -> Loss:
    """The row of a loss. Raises Refused for an unknown name."""
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]


def loss_constants(loss: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of `loss`: its defaults, replaced by those `given` that are not None; "auto" stays.

    Raises:
        Refused: an unknown loss, a constant that it does not have, or one out of its range.
    """
    row = loss_row(loss)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        constant = row.constants.get(name)
        if constant is None:
            takes = ", ".join(f"`{key}`" for key in row.constants) or "no constants"
            raise Refused(name, f"{loss} has no such constant", f"{loss} takes {takes}")
        if constant.auto and value == "auto":
            continue
        check_number(name, value, flag=isinstance(constant.default, bool), auto=constant.auto)
        check_bounds(name, value, constant.bounds)
    return {**row.defaults, **chosen}


def range_of(name: str) -> str:
    """The range of a constant, for a help text; where the losses differ, each with its losses."""
    losses: dict[str, list[str]] = {}
    for loss, row in LOSSES.items():
        if name in row.constants:
            losses.setdefault(row.constants[name].bounds.range, []).append(loss)
    if len(losses) == 1:
        return next(iter(losses))
    return "; ".join(f"{', '.join(names)}: {values}" for values, names in losses.items())


def flag_constants() -> dict[str, Constant]:
    """The constants that have an option of their own on the command line, each once."""
    return {name: one for row in LOSSES.values() for name, one in row.constants.items() if one.flag}
