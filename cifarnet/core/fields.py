"""An option as the field of a dataclass: help text, bounds and group; and the checks that read them."""

import math
from dataclasses import Field, dataclass, field, fields
from inspect import Signature, signature
from numbers import Integral
from os import PathLike
from typing import Any, get_origin

from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown

LARGEST = 2**53  # no number that is read from a file is as large


@dataclass(frozen=True)
class Bounds:
    """The values that are allowed: low <= value <= high and value > above, or one of the choices.

    Every number has a `high`, so that no option takes all memory or time; the help shows it.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None

    def __str__(self) -> str:
        words = [f"at least {self.low}" if self.low is not None else ""]
        words += [f"above {self.above}" if self.above is not None else ""]
        words += [f"at most {self.high}" if self.high is not None else ""]
        return " and ".join(word for word in words if word)

    @property
    def range(self) -> str:
        """The range in a few characters, for a help text: "0 to 1", "above 0, to 1000", "1, 2, 3"; empty without one."""
        if self.choices is not None:
            return ", ".join(map(str, self.choices))
        begin = f"above {self.above}, to" if self.above is not None else f"{self.low} to"
        return f"{begin} {self.high}" if self.high is not None else ""

    def hold(self, value: float) -> bool:
        """Is the number inside, and finite?"""
        inside = (self.low is None or value >= self.low) and (self.above is None or value > self.above)
        inside = inside and (self.high is None or value <= self.high)
        # math.isfinite takes no integer beyond a float's range.
        return inside and abs(value) < LARGEST and math.isfinite(value)


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
    """A field of a configuration, with its bounds; `resume`: may change when a run is resumed."""
    metadata = {"help": help, "group": group, "bounds": Bounds(low, above, high, choices), "resume": resume}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def describe_fields(kind: type) -> None:
    """Writes the fields' help into that of their dataclass, and gives it the signature by which a notebook completes names.

    Without this one, `inspect` shows the signature of a `__new__`.
    """
    texts = [f"    {item.name}: {item.metadata['help']}" for item in fields(kind)]
    kind.__doc__ = "\n".join([kind.__doc__ or "", "", "Args:", *texts])
    _, *parameters = signature(kind.__init__).parameters.values()  # type: ignore[misc]
    kind.__signature__ = Signature(parameters)  # type: ignore[attr-defined]


def check_type(item: Field, value: Any, source: str) -> None:
    """Refuses a value of another type than the field's, naming `source`; an integer may stand for a float."""
    allowed: Any = dict if get_origin(item.type) is dict else item.type
    number_for_flag = isinstance(value, bool) and allowed is not bool
    integer_for_float = isinstance(value, int) and allowed in (float, float | None)
    if number_for_flag or not (integer_for_float or isinstance(value, allowed)):
        subject = "" if source == item.name else f"{item.name} "
        raise Refused(source, f"{subject}cannot be {value!r}", f"expected {type_name(allowed)}")


def type_name(allowed: Any) -> str:
    """The name of a type, for a message."""
    return getattr(allowed, "__name__", str(allowed))


def check_number(name: str, value: Any, *, flag: bool, auto: bool) -> None:
    """Refuses what is no number (of a `flag`: no truth value), naming the argument; `auto`: the word is allowed too."""
    if flag and not isinstance(value, bool):
        raise Refused(name, f"'{value}' is not true or false", "give true or false")
    if not flag and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise Refused(name, f"{value!r} is not a number", "give a number, or auto" if auto else "give a number")


def check_count(name: str, value: Any, fix: str = "give 1 or more") -> None:
    """Refuses what is no whole number of 1 or more, naming the argument."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise Refused(name, f"{value!r} is no whole number of 1 or more", fix)


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], fix: str) -> None:
    """Refuses what is not of the kind, naming the argument and the type that came."""
    if not isinstance(value, kind):
        raise Refused(name, f"is of type {type(value).__name__}", fix)


def check_path(name: str, value: Any) -> None:
    """Refuses what is neither text nor a path, naming the argument; None, for a path that is not given, will do."""
    if value is not None:
        check_kind(name, value, (str, PathLike), "give a path, as text or pathlib.Path")


def check_bounds(name: str, value: Any, bounds: Bounds) -> None:
    """Refuses a value that is none of the choices or lies outside the bounds, naming the argument and its range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if bounds.choices is not None and value not in bounds.choices:
        if number:  # no other number is what was meant
            shown = f"{value:g}" if isinstance(value, float) else value
            raise Refused(name, f"{shown} is not one of its values", f"choose from {bounds.range}")
        raise unknown(name, value, map(str, bounds.choices))
    if number and not bounds.hold(value):
        raise Refused(name, f"{value} is out of range", f"give a finite number {bounds}".rstrip())


def is_number(value: Any) -> bool:
    """Is a value that was read from JSON a finite number that is not negative?"""
    return type(value) in (int, float) and 0 <= value < LARGEST
