"""SIGTERM and Ctrl-C end the work in good order: training at the end of its step, everything else at once.

A second signal ends the process without waiting for the step.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """`with StopRequest() as stop:`; `stop.number` is the signal that came, or None."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # the progress bar hid the cursor
            os._exit(128 + number)
        self.number = number


class Stopped(BaseException):
    """A signal came outside the training loop. Not an Exception: nothing may take it for the fault of a file."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise Stopped here, so that temporary files go on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(*_: object) -> None:
    """For worker processes: a terminal and a scheduler send signals to all, and the main process ends them in order."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
