"""stdout and stderr as they come: closed, full, without UTF-8. A message that cannot be written never ends the work."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO, cast

from cifarnet.core.errors import Failed, printable

# The program's own characters, for a terminal that lacks them.
PLAIN = {
    "×": "x", "·": ".", "–": "-", "—": "-", "─": "-", "…": "...", "→": "->", "↓": "v", "█": "#", "±": "+-", "≤": "<=", "≥": ">=",
}  # fmt: skip


class Lossy:
    """A text stream that drops what it cannot write: a full disk, a reader that went away, a terminal that was closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, if that can be done; returns its length."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Strict:
    """A text stream whose failure is said in the user's words. A reader that went away is a BrokenPipeError as ever."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """Writes `text`. Raises Failed where that cannot be done."""
        with self._in_words():
            return self._stream.write(text)

    def flush(self) -> None:
        """Hands on what was written. Raises Failed where that cannot be done."""
        with self._in_words():
            self._stream.flush()

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            why = f"cannot be written ({error.strerror or error})"
            raise Failed(self._name, why, "send the results elsewhere") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Makes sys.stdout and sys.stderr safe to write to; called once, when the program starts.

    What a stream's encoding lacks is escaped. stderr drops what it cannot write; stdout raises Failed then.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed by the caller (`>&-`): the next file to be opened would get this number, and messages in it.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, Strict(sys.stdout, "stdout"))
    sys.stderr = cast(TextIO, Lossy(sys.stderr))


def fitting(text: str | os.PathLike[str], encoding: str | None) -> str:
    """`text` fit for a terminal of this encoding (None: UTF-8): `printable`, and what the encoding lacks replaced."""
    text = printable(text)
    if text.isascii() or (encoding or "utf-8").lower().startswith("utf"):
        return text
    return "".join(_in_encoding(character, cast(str, encoding)) for character in text)


def _in_encoding(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
        return character
    except (UnicodeEncodeError, LookupError):
        return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


def write_message(text: str) -> None:
    """A line on stderr, if it can be written."""
    lossy = Lossy(sys.stderr)
    lossy.write(f"{fitting(text, sys.stderr.encoding)}\n")
    lossy.flush()


def write_traceback() -> None:
    """The traceback of the error that is being handled, on stderr: messages in it may be foreign too."""
    for line in traceback.format_exc().rstrip("\n").split("\n"):
        write_message(line)


def drop_output() -> None:
    """Sends what stdout does not take nowhere: Python would try again at its end, and fail aloud."""
    try:
        sys.stdout.flush()
    except (OSError, Failed):
        with contextlib.suppress(OSError):  # no descriptor: not the program's real stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
