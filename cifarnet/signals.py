"""SIGTERM and Ctrl-C end the work in good order: training at the end of its step, everything else at once.

A second signal ends the process without waiting for the step.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from cifarnet.errors import Interrupted


class StopRequest:
    """`with StopRequest() as stop:`; `stop.number` is the signal that came, or None."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Interrupted here, as Ctrl-C raises KeyboardInterrupt: temporary files go on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number, "cifarnet", f"stopped by signal {number}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
