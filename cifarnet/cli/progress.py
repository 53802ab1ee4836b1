"""Loading a data set so that a long wait is seen: a bar on a terminal, elsewhere a line now and then."""

import time
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cifarnet.cli.terminal import Terminal
from cifarnet.core.config import TrainConfig
from cifarnet.data import DATASETS, Dataset, load, load_options

PATIENCE, PAUSE = 5, 60  # seconds before the first line, and between two
NARROW = 70  # columns below which the numbers of a download leave no room for its bar


def load_with_progress(config: TrainConfig, console: Terminal) -> Dataset:
    """The data set of a run."""
    return load_shown(console, config.dataset, config.data_dir, **load_options(config))


def load_shown(console: Terminal, name: str, data_dir: str | None, **options: Any) -> Dataset:
    """`data.load` with its progress on `console`: a download, or the first reading of an image set."""
    from_files = name in DATASETS and DATASETS[name].from_files
    with Shown(
        console, f"reading {name}, once" if from_files else f"downloading {name}", in_bytes=not from_files
    ) as shown:
        return load(name, data_dir, progress=shown.show, **options)


class Shown:
    """The progress of one piece of work, from its first sign of life on.

    Args:
        console: a bar is drawn on a terminal, and a line is printed now and then elsewhere.
        doing: what is done, in words.
        in_bytes: the numbers are bytes of a download; else they count things.
    """

    def __init__(self, console: Terminal, doing: str, in_bytes: bool = False) -> None:
        self.console, self.doing, self.in_bytes = console, doing, in_bytes
        self.bar = Progress(*self.columns(), console=console, transient=True, disable=not console.is_terminal)
        self.task: Any = None
        self.due = time.monotonic() + PATIENCE
        self.since, self.begun = time.monotonic(), 0  # when the work began or began anew, and what was there already

    def __enter__(self) -> "Shown":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def columns(self) -> list[ProgressColumn]:
        doing, left = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
        if not self.in_bytes:
            return [doing, BarColumn(), TaskProgressColumn(), left]
        bar = [BarColumn(bar_width=None)] if self.console.width >= NARROW else []
        return [doing, *bar, DownloadColumn(), TransferSpeedColumn(), left]

    def show(self, done: int, total: int) -> None:
        """A `ProgressCallback`; fewer than before are a new beginning, as of a download from another server."""
        if self.console.is_terminal:
            if self.task is None:
                self.task = self.bar.add_task(self.doing, total=total, completed=done)
            elif done < self.bar.tasks[0].completed:
                self.bar.reset(self.task, total=total, completed=done)
            self.bar.update(self.task, completed=done, total=total)
            return
        now = time.monotonic()
        if done < self.begun or not self.begun:
            self.since, self.begun = now, done
        if now > self.due:
            self.due = now + PAUSE
            self.console.say(
                f"{self.doing}: {self.line(done, total, (done - self.begun) / max(now - self.since, 1e-9))}"
            )

    def line(self, done: int, total: int, rate: float) -> str:
        """How far it is, for those who read lines."""
        if not self.in_bytes:
            return f"{done:,} of {total:,}"
        left = f", {rate / 1e6:.2f} MB/s, about {(total - done) / rate:,.0f} s left" if rate else ""
        return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB{left}"
