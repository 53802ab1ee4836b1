"""Watchers beside that of the terminal: whatever goes wrong in them is warned of once, and costs training nothing."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cifarnet.cli.watcher import TerminalWatcher
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError
from cifarnet.data import Dataset
from cifarnet.engine.loop import Watcher
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.run_folder import RunFolder


class Beside(Watcher):
    """Tells the terminal's watcher everything, and after it each of the others, by what they write: "the live page"."""

    def __init__(self, first: TerminalWatcher, others: Mapping[str, Watcher]) -> None:
        self.first, self.others = first, others
        self.warned: set[str] = set()

    def load(self, config: TrainConfig) -> Dataset:
        """The data set, as the terminal's watcher reads it."""
        return self.first.load(config)

    def warn(self, message: str) -> None:
        """Prints a warning."""
        self.first.warn(message)

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Training is about to begin, or to go on."""
        self.first.start(run, folder)
        for name, other in self.others.items():
            with self.spared(name):
                other.start(run, folder)

    def __enter__(self) -> "Beside":
        self.first.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.first.__exit__(*exception)
        for name, other in self.others.items():
            with self.spared(name):
                other.__exit__(*exception)

    def step(self, run: TrainState) -> None:
        """After each step."""
        self.first.step(run)
        for name, other in self.others.items():
            with self.spared(name):
                other.step(run)

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """After each epoch."""
        self.first.epoch(run, record)
        for name, other in self.others.items():
            with self.spared(name):
                other.epoch(run, record)

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        """Training is done."""
        self.first.finish(run, folder, summary)

    @contextlib.contextmanager
    def spared(self, name: str) -> Iterator[None]:
        """Warns of what goes wrong in here, for each of the others once."""
        try:
            yield
        except Exception as error:
            if name not in self.warned:
                self.warned.add(name)
                self.first.warn(f"{name} is not written ({reason(error)}); training goes on")


def reason(error: Exception) -> str:
    """An error in one line without advice, since that has nothing to do with the training."""
    if isinstance(error, CifarnetError):
        return f"{error.what}: {error.why}"
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def with_others(first: TerminalWatcher, page: Path | None, tensorboard: bool) -> Watcher:
    """The terminal's watcher, and beside it those of --live and --tensorboard."""
    others: dict[str, Watcher] = {}
    if page is not None:
        from cifarnet.cli.live import LiveWatcher

        others["the live page"] = LiveWatcher(page, first.headline)
    if tensorboard:
        from cifarnet.cli.tensorboard import EventWatcher

        others["the event file"] = EventWatcher(first.animate)
    return Beside(first, others) if others else first
