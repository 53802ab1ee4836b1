"""An option as the field of a dataclass: help text, bounds and group; and the checks that read them."""

import math
from dataclasses import Field, field
from typing import Any

from cifarnet.core.errors import Refused


def option(
    default: Any,
    help: str,
    *,
    group: str,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    resume: bool = False,
) -> Any:
    """A field of a configuration: bounds are `low <= value <= high` and `value > above`; `resume`: may change on --resume."""
    metadata = {"help": help, "group": group, "low": low, "above": above, "high": high}
    return field(default=default, metadata=metadata | {"choices": choices, "resume": resume})


def flag(name: str) -> str:
    """The command-line spelling of a field: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def check_type(item: Field, value: Any, source: str) -> None:
    """Refuses a value of another type than the field's, naming `source`; an integer may stand for a float."""
    allowed: Any = item.type
    if isinstance(value, bool) and allowed is not bool:
        raise Refused(source, f"{item.name} cannot be {value!r}", f"expected {type_name(allowed)}")
    integer_for_float = isinstance(value, int) and allowed in (float, float | None, float | str | None)
    if not integer_for_float and not isinstance(value, allowed):
        raise Refused(source, f"{item.name} cannot be {value!r}", f"expected {type_name(allowed)}")


def type_name(allowed: Any) -> str:
    """How a message calls a type."""
    return getattr(allowed, "__name__", str(allowed))


def check_bounds(item: Field, value: Any) -> None:
    """Refuses a value that is none of the choices or lies outside the bounds of an `option`, naming its flag."""
    bounds = item.metadata
    if bounds["choices"] and value not in bounds["choices"]:
        raise Refused(flag(item.name), f"'{value}' is not known", f"choose from {', '.join(bounds['choices'])}")
    if isinstance(value, str) and item.type == float | str | None and value != "auto":
        raise Refused(flag(item.name), f"'{value}' is not a number", "give a number, or auto")
    if value is None or isinstance(value, (str, bool)):
        return
    low, above, high = bounds["low"], bounds["above"], bounds["high"]
    inside = abs(value) < 2**63 and math.isfinite(value)  # isfinite takes no integer beyond a float's range
    inside &= (low is None or value >= low) and (above is None or value > above) and (high is None or value <= high)
    if not inside:
        words = [f"at least {low}" if low is not None else "", f"above {above}" if above is not None else ""]
        words += [f"at most {high}" if high is not None else ""]
        wanted = " and ".join(word for word in words if word) or "a finite number"
        raise Refused(flag(item.name), f"{value} is out of range", f"give a finite number {wanted}")
