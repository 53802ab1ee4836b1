"""How a pickle spells an array of uint8: the names it gives, and what "call" and "build" may mean. Nothing is imported or called."""

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from cifarnet.core.errors import printable

DIMENSIONS = 4
SHOWN = 100  # characters of a name in a message


class NotPlain(ValueError):
    """The pickle holds something else than plain values, or is damaged; the text says what."""


class Name(Enum):
    """A name that a pickle of an array may hold."""

    RECONSTRUCT = auto()
    FROM_BUFFER = auto()
    NDARRAY = auto()
    DTYPE = auto()
    ENCODE = auto()
    UINT8 = auto()  # not named: what calling DTYPE gives


NAMES = {("numpy", "ndarray"): Name.NDARRAY, ("numpy", "dtype"): Name.DTYPE, ("_codecs", "encode"): Name.ENCODE}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    NAMES |= {(f"{_core}.multiarray", "_reconstruct"): Name.RECONSTRUCT}
    NAMES |= {(f"{_core}.numeric", "_frombuffer"): Name.FROM_BUFFER}


@dataclass(eq=False)
class Array:
    """An array of uint8, a view of the file; `values` is None until its row of opcodes is complete."""

    values: np.ndarray | None = None


def find_name(module: Any, name: Any) -> Name:
    """The known name that these two texts are."""
    if type(module) is not str or type(name) is not str:  # not shown: to write out tuples in tuples may take for ever
        raise NotPlain("it would call what has no name")
    if (module, name) not in NAMES:
        raise NotPlain(f"it would call {printable(f'{module:.60}.{name:.60}')[:SHOWN]}")
    return NAMES[module, name]


def call(function: Any, arguments: Any) -> Any:
    """The result of a call, where it is one of the four that an array of uint8 is spelled with."""
    match function, arguments:
        case Name.RECONSTRUCT, (Name.NDARRAY, (0,), "b" | b"b"):
            return Array()
        case Name.FROM_BUFFER, (bytes() | memoryview() as data, Name.UINT8, tuple() as shape, "C" | "F" as order):
            return Array(view(data, shape, order))
        case Name.DTYPE, ("u1" | b"u1", 0, 1):
            return Name.UINT8
        case Name.ENCODE, (str() as text, "latin1" | "latin-1"):  # Python 3's way to spell bytes in protocol 2
            return encode(text)
    raise NotPlain("it would make something that is no array of uint8")


def build(target: Any, state: Any) -> None:
    """Completes an array; the state of its dtype is the one that uint8 has."""
    match target, state:
        case Array(values=None), (1, tuple() as shape, Name.UINT8, bool() as columns, bytes() | memoryview() as data):
            target.values = view(data, shape, "F" if columns else "C")
        case Name.UINT8, (3, "|" | b"|", None, None, None, -1, -1, 0):
            pass
        case _:
            raise NotPlain("it would fill something that is no array of uint8")


def encode(text: str) -> bytes:
    """Bytes that were spelled as text, a character each."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise NotPlain("it holds bytes above 255") from None


def view(data: bytes | memoryview, shape: tuple[Any, ...], order: Any) -> np.ndarray:
    """The bytes as an array; they are not copied."""
    plain = len(shape) <= DIMENSIONS and all(type(size) is int and size >= 0 for size in shape)
    if not plain or math.prod(shape) != len(data):
        raise NotPlain("the size of its array is not that of its bytes")
    try:
        return np.frombuffer(data, np.uint8).reshape(shape, order=order)
    except ValueError:  # empty, and yet too large for NumPy
        raise NotPlain("its array has a size that cannot be") from None
