"""A pickle is a program. This reads one without running it: a walk over its opcodes that knows what a Python batch says.

It builds dicts, lists, tuples, text, bytes and whole numbers itself, and an array of uint8 from the few rows of opcodes that
spell one: those of Python 2 and 3, of NumPy 1 and 2, in protocols 2 to 5. A name in the file is looked up in a table of seven
and never imported; "call this" is compared with the four calls that make such an array, and never made. The rest is refused.

The walk is `pickletools.genops`, but for two things: that copies a batch's 30 MB twice, and text may take four times its bytes.
"""

import pickletools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cifarnet.data.sources.pickle_array import NotPlain, build, call, find_name

MOST = 300_000  # opcodes; CIFAR-100's larger file has 200,000
SHORT = 64  # bytes; what is longer stays a view of the file, or is Latin-1, which takes no more memory than in the file
LINE = 256  # bytes of a name
LONG = 8  # bytes of a number
LAST_LATIN = 0xC3  # the first byte of "ÿ" in UTF-8


def read_pickle(data: bytes) -> Any:
    """The value that the pickle spells: dict, list, tuple, str, int, bool, None, `Array`, and bytes (a memoryview where they are many).

    Text of Python 2 is given as bytes. What stands behind the end of the pickle is left alone.

    Raises:
        NotPlain: it is no pickle of plain values.
    """
    return Walk(data).run()


class Walk:
    """The stack machine, at the start of the pickle `data`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.view = data, memoryview(data)
        self.at = 0  # the next byte
        self.made = 0  # bytes that calls have made: not more than the file has
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks that wait under a mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The one value that is left at the end."""
        data, size = self.data, len(self.data)
        if size < 2 or data[0] != CODES["PROTO"] or not 2 <= data[1] <= 5:
            raise NotPlain("it is no pickle of protocol 2 to 5")
        for _ in range(MOST):
            start = self.at
            if start >= size:
                raise NotPlain("it is cut short")
            self.at = start + 1
            code = data[start]
            if code == STOP:
                if len(self.stack) != 1 or self.below:
                    raise NotPlain("it is damaged at its end")
                return self.stack[0]
            step = STEPS.get(code)
            if step is None:
                raise NotPlain(f"{title(code)} at byte {start:,} is no part of a plain value")
            try:
                step(self)
            except (IndexError, KeyError):  # an empty stack; nothing was remembered under this number
                raise NotPlain(f"it is damaged at byte {start:,}") from None
        raise NotPlain(f"it has more than {MOST:,} opcodes")

    # the file

    def take(self, count: int) -> bytes:
        """The next few bytes."""
        start = self.at
        self.at = end = start + count
        if end > len(self.data):
            raise NotPlain("it is cut short")
        return self.data[start:end]

    def number(self, width: int) -> int:
        """The next `width` bytes, an unsigned number."""
        start = self.at
        self.at = end = start + width
        if end > len(self.data):
            raise NotPlain("it is cut short")
        return int.from_bytes(self.data[start:end], "little")

    def counted(self, width: int) -> bytes | memoryview:
        """As many bytes as the number of `width` bytes in front says."""
        count = self.number(width)
        if count <= SHORT:
            return self.take(count)
        start = self.at
        self.at = end = start + count
        if end > len(self.data):
            raise NotPlain("it is cut short")
        return self.view[start:end]

    def text(self, width: int) -> str:
        """Counted text in UTF-8."""
        data = self.counted(width)
        if len(data) > SHORT and np.frombuffer(data, np.uint8).max() > LAST_LATIN:
            raise NotPlain("it holds a long text that is not Latin-1")
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise NotPlain("it holds a text that is not UTF-8") from None

    def line(self) -> str:
        """Text up to the end of the line."""
        start = self.at
        end = self.data.find(b"\n", start, start + LINE)
        if end < 0:
            raise NotPlain("it is damaged in a name")
        self.at = end + 1
        return self.data[start:end].decode("latin-1")

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        """The uppermost values, in the order in which they were pushed."""
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        """The values pushed since the last mark, which goes too."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Adds to the list on top."""
        if type(self.stack[-1]) is not list:
            raise NotPlain("it adds to a list that is none")
        self.stack[-1].extend(items)

    def update(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Adds keys and values, which take turns, to the dict on top."""
        # Keys are text: to find the hash of tuples in tuples, or a place for numbers of one hash, may take for ever.
        if (
            type(self.stack[-1]) is not dict
            or len(items) % 2
            or not all(type(key) in (str, bytes) for key in items[::2])
        ):
            raise NotPlain("it holds a dict whose keys are no text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def store(self, index: int) -> None:
        """Remembers the top under a number."""
        if index > MOST:
            raise NotPlain("it is damaged in its memo")
        self.memo[index] = self.stack[-1]

    def reduce(self) -> None:
        """A call, of the few that are known; none is made."""
        made = call(*self.pop(2))
        self.made += len(made) if type(made) is bytes else 0
        if self.made > len(self.data):
            raise NotPlain("it repeats its bytes")
        self.push(made)

    def build(self) -> None:
        (state,) = self.pop(1)
        build(self.stack[-1], state)


def title(code: int) -> str:
    """An opcode in words."""
    return next((f"opcode {name}" for name, known in CODES.items() if known == code), f"the value {code}")


def push_signed(walk: Walk, width: int) -> None:
    """A whole number that may be negative; of Python 2's long ones those that fit in 64 bits."""
    if width > LONG:
        raise NotPlain(f"it holds a number of more than {8 * LONG} bits")
    walk.push(int.from_bytes(walk.take(width), "little", signed=True))


def push_counted(walk: Walk, width: int) -> None:
    walk.push(walk.counted(width))


def push_text(walk: Walk, width: int) -> None:
    walk.push(walk.text(width))


CODES = {code.name: ord(code.code) for code in pickletools.opcodes}
STOP = CODES["STOP"]
_STEPS: dict[str, Callable[[Walk], Any]] = {
    "PROTO": lambda walk: walk.take(1),
    "FRAME": lambda walk: walk.take(8),
    "MARK": Walk.mark,
    "NONE": lambda walk: walk.push(None),
    "NEWTRUE": lambda walk: walk.push(True),
    "NEWFALSE": lambda walk: walk.push(False),
    "BININT": partial(push_signed, width=4),
    "BININT1": lambda walk: walk.push(walk.number(1)),
    "BININT2": lambda walk: walk.push(walk.number(2)),
    "LONG1": lambda walk: push_signed(walk, walk.number(1)),
    "EMPTY_DICT": lambda walk: walk.push({}),
    "EMPTY_LIST": lambda walk: walk.push([]),
    "EMPTY_TUPLE": lambda walk: walk.push(()),
    "TUPLE": lambda walk: walk.push(tuple(walk.pop_to_mark())),
    "TUPLE1": lambda walk: walk.push(walk.pop(1)),
    "TUPLE2": lambda walk: walk.push(walk.pop(2)),
    "TUPLE3": lambda walk: walk.push(walk.pop(3)),
    "APPEND": lambda walk: walk.extend(walk.pop(1)),
    "APPENDS": lambda walk: walk.extend(walk.pop_to_mark()),
    "SETITEM": lambda walk: walk.update(walk.pop(2)),
    "SETITEMS": lambda walk: walk.update(walk.pop_to_mark()),
    "BINPUT": lambda walk: walk.store(walk.number(1)),
    "LONG_BINPUT": lambda walk: walk.store(walk.number(4)),
    "MEMOIZE": lambda walk: walk.store(len(walk.memo)),
    "BINGET": lambda walk: walk.push(walk.memo[walk.number(1)]),
    "LONG_BINGET": lambda walk: walk.push(walk.memo[walk.number(4)]),
    "SHORT_BINSTRING": partial(push_counted, width=1),
    "BINSTRING": partial(push_counted, width=4),
    "SHORT_BINBYTES": partial(push_counted, width=1),
    "BINBYTES": partial(push_counted, width=4),
    "BINBYTES8": partial(push_counted, width=8),
    "BYTEARRAY8": partial(push_counted, width=8),
    "SHORT_BINUNICODE": partial(push_text, width=1),
    "BINUNICODE": partial(push_text, width=4),
    "BINUNICODE8": partial(push_text, width=8),
    "GLOBAL": lambda walk: walk.push(find_name(walk.line(), walk.line())),
    "STACK_GLOBAL": lambda walk: walk.push(find_name(*walk.pop(2))),
    "REDUCE": Walk.reduce,
    "BUILD": Walk.build,
}
STEPS = {CODES[name]: step for name, step in _STEPS.items()}
