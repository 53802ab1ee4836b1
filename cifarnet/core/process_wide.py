"""Settings of the whole process that several threads make at once: the last one out finds what was there before the first."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType


class ProcessWide:
    """A context manager that any thread may enter while others are in it, and again within itself.

    The first one in enters a new `setting()`, the last one out leaves it. Were each to keep and restore for itself, the
    second would keep the first one's setting, and leave it behind for good.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager]) -> None:
        self._setting, self._within, self._lock, self._held = setting, 0, threading.Lock(), ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._held.enter_context(self._setting())
            self._within += 1

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._held.close()
