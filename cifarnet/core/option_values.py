"""Options as plain values, by name: those of several sources put together, and those of older files brought up to date."""

from collections.abc import Iterable
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.core.known import nearest

# Constants of losses that were fields of their own up to version 0.1.
LOSS_FIELDS_0_1 = ("scale", "margin", "h", "t_alpha", "easy_margin", "gamma", "label_smoothing")
# All of them, by name alone: whoever gives one beside `loss_options` is told where it stands. The rows are `losses.registry`'s.
LOSS_CONSTANTS = (
    *LOSS_FIELDS_0_1, "balance", "beta", "detach", "drw", "easy", "loss_weight", "margin_step", "negative_weight", "norm",
    "norm_weight", "plus", "sigma", "subcenters", "t", "tau", "temperature", "variant",
)  # fmt: skip


def value_text(value: Any) -> str:
    """A value as it is typed: 16, 0.1, True; it is read as the very same value again."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def with_loss_options(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the loss's constants under `loss_options`, where version 0.1 kept them beside it."""
    moved = {name: values[name] for name in LOSS_FIELDS_0_1 if name in values}
    kept = {name: value for name, value in values.items() if name not in moved}
    given = kept.get("loss_options", {})
    return kept | {"loss_options": moved | given} if moved and isinstance(given, dict) else kept


def without_unset(values: dict[str, Any]) -> dict[str, Any]:
    """The values without the constants that version 0.1 wrote down as not set: None, False, no label smoothing."""
    given = values.get("loss_options")
    if not isinstance(given, dict):
        return values
    kept = {}
    for name, value in given.items():
        unset = value is None or value is False or (name == "label_smoothing" and value == 0)
        if not (unset and name in LOSS_FIELDS_0_1):
            kept[name] = value
    return values | {"loss_options": kept}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Plain values for `from_dict`: what a later layer names takes the place of an earlier one's, constants one by one."""
    result: dict[str, Any] = {}
    for layer in map(with_loss_options, layers):
        options, more = result.get("loss_options", {}), layer.get("loss_options", {})
        result |= layer
        if isinstance(options, dict) and isinstance(more, dict) and (options or more):
            result["loss_options"] = options | more
    return result


def unknown_option(source: str, name: str, known: Iterable[str]) -> Refused:
    """The refusal of an option that is none of the `known`, to raise: it names the nearest, and where a loss's constants stand."""
    names = list(known)
    if name in LOSS_CONSTANTS:
        return Refused(
            source, f"unknown option '{name}'", f"a constant of the loss: give loss_options={{'{name}': ...}}"
        )
    meant = nearest(name, names)
    hint = f"did you mean {meant}? " if meant else ""
    return Refused(source, f"unknown option '{name}'", f"{hint}known: {', '.join(names)}")
