"""The errors a user sees: one line each, `what: why; what to do`, and the exit code that goes with it."""

import os
import re
import signal
from pathlib import Path
from typing import Any

# Letters to Python and nothing to the eye: they hide in a name, or make two names look alike.
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]")
# These join or part the letters of Persian and Indic words and the emoji of a family; elsewhere they only hide.
JOINER = re.compile(r"(?<=[^\x00-\x7f\u200c\u200d])[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d])")


class CifarnetError(Exception):
    """An error whose text is meant for the user.

    Args:
        what: the thing that is wrong (an option, a file).
        why: what is wrong with it.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, why: str, fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(f"{what}: {why}; {fix}" if fix else f"{what}: {why}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A pool of processes sends errors back pickled; by default Python would make one anew of its text alone, and hang there.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[CifarnetError], args: tuple[str, ...], facts: dict[str, Any]) -> CifarnetError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class Failed(CifarnetError):
    """Something failed during the work (exit code 1)."""

    exit_code = 1


class Diverged(Failed):
    """Training went to numbers that are not finite."""


class Refused(CifarnetError):
    """The request was refused before any work was done (exit code 2)."""

    exit_code = 2


class Interrupted(CifarnetError):
    """A signal ended a training in good order: its state is saved (exit code 128 + signal number).

    `command`, where one is set, is the command that goes on: that of a series, not of the run in `folder` alone.

    Args:
        number: the signal's.
        folder: the run's, where the state is.
        epoch, step: how far it came: `step` steps of this epoch, which counts from 1.
    """

    command = ""

    def __init__(self, number: int, folder: Path, epoch: int, step: int) -> None:
        self.by, self.folder, self.epoch, self.step = signal.Signals(number).name, folder, epoch, step
        self.exit_code = 128 + number
        why = f"stopped by {self.by} in epoch {epoch}, step {step}"
        super().__init__("training", why, f"its state is saved in {folder}; go on with `resume`")


def printable(text: str | os.PathLike[str]) -> str:
    """`text` or a file's name, fit for a terminal.

    Escaped are control characters (C0, C1), line ends, characters of no width or that turn the direction of writing, lone
    surrogates and undecodable bytes; the rest stays as it is, joiners between two characters that are seen and not ASCII too.
    What is fit already stays the same.
    """
    text = os.fsdecode(text)
    if text.isprintable() and not INVISIBLE.search(text):
        return text
    places = [found.start() for found in JOINER.finditer(text)]
    joiners = {at for at in places if not hidden(text[at - 1]) and not hidden(text[at + 1])}
    return "".join(
        c if at in joiners or not hidden(c) else c.encode("unicode_escape").decode() for at, c in enumerate(text)
    )


def is_printable(text: str) -> bool:
    """As `str.isprintable`, which takes no joiners within a word."""
    return text.isprintable() or JOINER.sub("", text).isprintable()


def hidden(character: str) -> bool:
    """True for a character that does something else than being seen."""
    return not character.isprintable() or bool(INVISIBLE.match(character))


def plural(count: int, noun: str) -> str:
    """ "1 epoch", "1,797 images", "10 classes", "2 searches", "20 identities": a number of things."""
    if count != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ity") else noun + ("es" if noun.endswith(("s", "search")) else "s")
    return f"{count:,} {noun}"
