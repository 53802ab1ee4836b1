"""The errors a user sees: one line each, `what: why; what to do`, and the exit code that goes with it."""

import os


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


class Failed(CifarnetError):
    """Something failed during the work (exit code 1)."""

    exit_code = 1


class Diverged(Failed):
    """Training went to numbers that are not finite."""


class Refused(CifarnetError):
    """The request was refused before any work was done (exit code 2)."""

    exit_code = 2


class Interrupted(CifarnetError):
    """A signal ended the work in good order (exit code 128 + signal number)."""

    def __init__(self, signal_number: int, what: str, why: str, fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.exit_code = 128 + signal_number


def printable(text: str | os.PathLike[str]) -> str:
    """`text` or a file's name with control characters, line ends and undecodable bytes escaped: fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fsdecode(text))
