"""SIGTERM and Ctrl-C end the work in good order: training at the end of its step, everything else at once.

A second signal ends the process without waiting for the step.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # the terminal was closed, or the connection to it
SIGNALS = (signal.SIGTERM, signal.SIGINT, HANGUP)
LATER = 0.01  # seconds
GRACE = 20.0  # seconds in which ranks must have stopped together; torchrun kills after 30


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGTERM, Ctrl-C and a closed terminal (unless `nohup` has it ignored) call `handler` here; in another thread than the main one, where none may be set, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    now = {number: signal.getsignal(number) for number in SIGNALS}
    # None: a handler that other code than Python set, and that Python could not put back.
    left = {number for number, at in now.items() if at is None or (number == HANGUP and at is signal.SIG_IGN)}
    heard = [number for number in SIGNALS if number not in left]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest:
    """`with StopRequest() as stop:`; `stop.number` is the signal that came, or None.

    Args:
        together: one of several ranks. A scheduler and torchrun may both send a signal on, so that a second one means
            nothing; and a rank that waits for one that is gone ends after GRACE seconds, even where it waits in a driver.
    """

    def __init__(self, together: bool = False) -> None:
        self.number: int | None = None
        self.together = together
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        self._held.enter_context(handled_by(self._receive))
        if self.together and threading.current_thread() is threading.main_thread():
            self._held.enter_context(end_if_stuck())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # After a hangup nobody is there to be impatient: what else comes then is the system's.
        if self.number not in (None, HANGUP) and not self.together:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # the progress bar hid the cursor
            os._exit(128 + number)
        self.number = self.number or number


@contextlib.contextmanager
def end_if_stuck() -> Iterator[None]:
    """The process ends GRACE seconds after a signal, even while the main thread is outside Python, where no handler runs."""
    over = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as signals:
            while (byte := signals.read(1)) and byte[0] not in SIGNALS:  # SIGCHLD, of a worker that ended
                pass
            if byte and not over.wait(GRACE):
                os._exit(128 + byte[0])

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writer)


class Stopped(BaseException):
    """A signal came outside the training loop. Not an Exception: nothing may take it for the fault of a file."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.exit_code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise Stopped here, so that temporary files go on the way out.

    Where nothing can be raised, as in a finalizer that Python happens to run, it is raised a moment later; and what a
    library makes of it, as of an import that did not end, is no error of its own.
    """
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise Stopped(number)

    def raise_later(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, Stopped):
            threading.Timer(LATER, os.kill, (os.getpid(), lost.exc_value.number)).start()
        else:
            before(lost)

    before = sys.unraisablehook
    sys.unraisablehook = raise_later
    try:
        with handled_by(stop):
            yield
    except Exception as error:
        if not asked:
            raise
        raise Stopped(asked[0]) from error
    finally:
        sys.unraisablehook = before


def ignore_signals(*_: object) -> None:
    """For worker processes: a terminal and a scheduler send signals to all, and the main process ends them in order."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
