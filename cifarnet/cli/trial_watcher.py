"""A trial of a search on the terminal: a bar while it trains, and nothing of the test images."""

from typing import Any

from cifarnet.cli.terminal import Terminal
from cifarnet.cli.watcher import TerminalWatcher
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.run_folder import RunFolder


class TrialWatcher(TerminalWatcher):
    """Moves a bar; the search itself says what the trial came to.

    Args:
        name: of the setting.
    """

    def __init__(self, console: Terminal, name: str) -> None:
        super().__init__(console)
        self.name = name

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Prepares the bar."""
        done, everything = run.work
        self.task = self.bar.add_task(self.name, total=everything, completed=int(done), now="")

    def __enter__(self) -> "TrialWatcher":
        self.bar.start()
        return self

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """Nothing: of a trial its end counts."""

    def warn(self, message: str) -> None:
        """Nothing: what there is to say of every trial alike is said before the first."""

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        """Nothing is drawn."""
