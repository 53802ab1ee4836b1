"""Warnings that point at the user's line, and not at one of ours that they cannot change."""

import sys
import warnings
from pathlib import Path
from types import FrameType

DECORATORS = ("contextlib.py", "_contextlib.py")  # Python's and torch's, of functions that are called within a context
PACKAGE = str(Path(__file__).parents[1] / "_")[:-1]  # with the separator: a user's cifarnet_study is not ours


def warn(text: str) -> None:
    """A UserWarning at the line that called into this package, be there others' functions between (torch's decorators)."""
    frame: FrameType | None = sys._getframe(1)
    files: list[str] = []  # of the frames, this function's caller first
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    caller = 1 + max((place for place, file in enumerate(files) if file.startswith(PACKAGE)), default=0)
    while caller < len(files) - 1 and Path(files[caller]).name in DECORATORS:
        caller += 1
    warnings.warn(text, stacklevel=caller + 2)  # of the caller of `warn` it is 2
