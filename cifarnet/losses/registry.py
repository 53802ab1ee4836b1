"""The losses: one row a loss, with its constants. The table is read without torch."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.core.fields import Bounds, check_bounds, check_number
from cifarnet.core.known import same_name, unknown
from cifarnet.losses.more_rows import MORE_LOSSES
from cifarnet.losses.row import Constant, Loss, margin_of, scale_of

MOST_OWNERS = 4  # losses that a message names as having a constant

LOSSES: dict[str, Loss] = {
    "ce": Loss(
        "softmax cross-entropy",
        {"label_smoothing": Constant(0.0, "label smoothing of ce", Bounds(low=0, high=0.999), flag=True)},
        angular=False,
    ),
    "focal": Loss(
        "arXiv 1708.02002",
        {
            "gamma": Constant(
                2.0,
                "focal loss: the focusing exponent; vs, kappaface: the paper's gamma",
                Bounds(low=0, high=1000),
                flag=True,
            )
        },
        angular=False,
    ),
    "sphereface": Loss(
        "arXiv 1704.08063", {"margin": margin_of(4, Bounds(choices=(1, 2, 3, 4, 5)))}, ("steps",), (0.0,)
    ),
    "cosface": Loss("arXiv 1801.09414", {"scale": scale_of(64.0), "margin": margin_of(0.35)}, adds="cosine"),
    "arcface": Loss(
        "arXiv 1801.07698",
        {
            "scale": scale_of(64.0),
            "margin": margin_of(0.5),
            "easy_margin": Constant(False, "ArcFace: the margin only where the target cosine is positive", flag=True),
        },
        adds="angle",
    ),
    "curricularface": Loss(
        "arXiv 2004.00288", {"scale": scale_of(64.0), "margin": margin_of(0.5)}, ("t",), (0.0,), adds="angle"
    ),
    "adaface": Loss(
        "arXiv 2204.00964",
        {
            "scale": scale_of(64.0),
            "margin": margin_of(0.4),
            "h": Constant(0.333, "AdaFace's h, how far the norm moves the margin", Bounds(low=0, high=1000), flag=True),
            "t_alpha": Constant(0.01, "AdaFace's EMA rate of the norm statistics", Bounds(low=0, high=1), flag=True),
        },
        ("norm_mean", "norm_std"),
        (20.0, 100.0),
        adds="angle",
    ),
    "magface": Loss("arXiv 2103.06627", {"scale": scale_of(64.0)}),
    **MORE_LOSSES,
}


def loss_row(loss: str) -> Loss:
    """The row of a loss. Raises Refused for an unknown name."""
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]


def loss_constants(loss: str, given: Mapping[str, Any], *, auto: bool = True) -> dict[str, Any]:
    """The constants of `loss`: its defaults, replaced by those `given` that are not None; "auto" stays.

    Args:
        auto: whether the caller takes "auto": else no message names it as a value to give.

    Raises:
        Refused: an unknown loss, a constant that it does not have, or one out of its range.
    """
    row = loss_row(loss)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        constant = row.constants.get(name)
        if constant is None:
            takes = ", ".join(f"`{key}`" for key in row.constants) or "no constants"
            why = "has no such constant" + (f", {row.lacks[name]}" if name in row.lacks else "")
            raise Refused(name, f"{loss} {why}", f"{loss} takes {takes}{_owners(name)}")
        chosen[name] = _checked(name, value, constant, auto)
    return row.with_defaults(chosen)


def _owners(name: str) -> str:
    """ "; adaface takes `h`": the losses that have the constant; "" where none has it, or so many that to name them helps nobody."""
    losses = [loss for loss, row in LOSSES.items() if name in row.constants]
    if not 0 < len(losses) <= MOST_OWNERS:
        return ""
    return f"; {', '.join(losses)} take{'s' * (len(losses) == 1)} `{name}`"


def _checked(name: str, value: Any, constant: Constant, auto: bool) -> Any:
    """The value as the loss takes it, a text spelt as in the choices. Raises Refused."""
    if constant.auto and value == "auto":
        return value
    if constant.never_auto and value == "auto":
        raise Refused(name, f"there is no rule for auto: {constant.never_auto}", "give a number")
    if isinstance(constant.default, str):
        choices = constant.bounds.choices or ()
        found = same_name(value, choices) if isinstance(value, str) else None
        if found is None:
            raise unknown(name, value, choices)
        return found
    if isinstance(value, Real) and not isinstance(value, (bool, int, float)):
        # A number out of an array, which JSON does not take.
        value = int(value) if isinstance(value, Integral) else float(value)
    check_number(name, value, flag=isinstance(constant.default, bool), auto=auto and constant.auto)
    check_bounds(name, value, constant.bounds)
    return value


def range_of(name: str) -> str:
    """The range of a constant, for a help text; where the losses differ, each with its losses."""
    losses: dict[str, list[str]] = {}
    for loss, row in LOSSES.items():
        if name in row.constants:
            losses.setdefault(row.constants[name].bounds.range, []).append(loss)
    if len(losses) == 1:
        return next(iter(losses))
    usual = max(losses, key=lambda values: len(losses[values]))  # of so many losses that they are not named
    named = {values: names for values, names in losses.items() if values != usual or len(names) < 5}
    words = [f"{', '.join(names)}: {values}" for values, names in named.items()]
    return "; ".join(words if len(named) == len(losses) else [*words, f"else {usual}"])


def flag_constants() -> dict[str, Constant]:
    """The constants that have an option of their own on the command line, each once: as the first loss has it."""
    found: dict[str, Constant] = {}
    for row in LOSSES.values():
        for name, constant in row.constants.items():
            if constant.flag:
                found.setdefault(name, constant)
    return found
