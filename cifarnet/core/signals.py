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
GRACE = 20.0  # seconds in which ranks must have stopped together; torchrun kills after 30


class StopRequest:
    """`with StopRequest() as stop:`; `stop.number` is the signal that came, or None.

    Args:
        together: one of several ranks. A scheduler and torchrun may both send a signal on, so that a second one means
            nothing; and a rank that waits for one that is gone ends after GRACE seconds, even where it waits in a driver.
    """

    def __init__(self, together: bool = False) -> None:
        self.number: int | None = None
        self.together = together
        self._before: dict[int, object] = {}
        self._over = threading.Event()
        self._wakeup: int | None = None  # the write end of a pipe that hears of signals

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
            if self.together:
                self._watch()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._over.set()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)

    def _watch(self) -> None:
        """Hears of a signal while the main thread is held up outside Python, where no handler runs."""
        reader, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        signal.set_wakeup_fd(self._wakeup)

        def end_if_stuck() -> None:
            with open(reader, "rb", buffering=0) as signals:
                while (byte := signals.read(1)) and byte[0] not in SIGNALS:  # SIGCHLD, of a worker that ended
                    pass
                if byte and not self._over.wait(GRACE):
                    os._exit(128 + byte[0])

        threading.Thread(target=end_if_stuck, daemon=True).start()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and not self.together:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # the progress bar hid the cursor
            os._exit(128 + number)
        self.number = self.number or number


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
