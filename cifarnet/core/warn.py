"""Warnings that point at the user's line, and not at one of ours that they cannot change."""

import sys
import warnings
from pathlib import Path
from types import FrameType

PACKAGE = str(Path(__file__).parents[1] / "_")[:-1]  # with the separator: a user's cifarnet_study is not ours


def warn(text: str) -> None:
    """A UserWarning at the line that called into this package, be there others' functions between (torch's decorators)."""
    frame: FrameType | None = sys._getframe(1)
    level, called = 1, 1
    while frame is not None:
        level += 1
        if frame.f_code.co_filename.startswith(PACKAGE):
            called = level + 1  # of the caller of this one
        frame = frame.f_back
    warnings.warn(text, stacklevel=called)
