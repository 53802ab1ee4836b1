"""`cifarnet train --live FILE.html`: a page about the training, written anew after each epoch and at the end."""

import time
from pathlib import Path
from typing import Any

from cifarnet.analysis.live.page import Watched, render
from cifarnet.analysis.plots.titles import has_own_loss, title_of
from cifarnet.cli.options import flag, how_to_go_on, spoken
from cifarnet.cli.watcher import facts_of
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Diverged, Interrupted
from cifarnet.engine.evaluate import only_coarse
from cifarnet.engine.loop import Watcher
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.output import write_output
from cifarnet.storage.run_folder import RunFolder

PAUSE = 1.0  # seconds between two versions of the page, where epochs are shorter
SHARE = 20  # nor does writing take more than this part of the time: 1/20
LONGEST = 60.0  # seconds without a version, in a long epoch
PATIENCE = 180.0  # seconds without one, after which the page says so; longer where it has been longer before


class LiveWatcher(Watcher):
    """Writes the page to `path`, which was checked.

    Args:
        headline: (name, text) of the recipe and what it sets, for a run that is begun.
    """

    def __init__(self, path: Path, headline: list[tuple[str, str]]) -> None:
        self.path, self.headline = path, headline
        self.run: TrainState | None = None
        self.facts: list[tuple[str, str]] = []
        self.started = ""
        self.written = self.took = self.longest = 0.0

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Writes what is about to run."""
        self.run, self.begun = run, (time.monotonic(), run.work[0])
        self.name = folder.path.resolve().name
        self.written = time.monotonic()
        about = folder.read_about()
        self.started = about.get("started", "")
        command = [("command", about["command"])] if "command" in about else []
        self.facts = [*facts_of(run, folder), *self.headline, *command]
        self.write("running")

    def step(self, run: TrainState) -> None:
        """In a long epoch writes how far it is."""
        if time.monotonic() - self.written > LONGEST:
            self.write("running")

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """Writes the epoch, unless the one before it was written just now: then it is there with the next one."""
        if time.monotonic() - self.written > max(PAUSE, SHARE * self.took):
            self.write("running")

    def __exit__(self, *exception: object) -> None:
        """Writes how it ended."""
        error = exception[1]
        if self.run is None:
            return
        if error is None:
            self.write("finished")
        elif isinstance(error, Interrupted):
            self.write("interrupted", how_to_go_on(error))
        elif isinstance(error, Exception):
            self.write("diverged" if isinstance(error, Diverged) else "failed", spoken(str(error)))
        else:  # Ctrl-C outside a step
            self.write("interrupted", str(error))

    def write(self, state: str, why: str = "") -> None:
        """Writes the page as of now. Raises Failed."""
        assert self.run is not None
        run, now = self.run, time.monotonic()
        self.longest, self.written = max(self.longest, now - self.written), now
        begun, before = self.begun
        done, everything = run.work
        pace = (now - begun) / (done - before) if done > before else None
        watched = Watched(
            name=self.name,
            title=title_of(run.config),
            facts=self.facts,
            options=list(options_of(run.config)),
            loss=run.config.loss if has_own_loss(run.config) else "",
            tta=run.config.tta and not only_coarse(len(run.classes)),
            epochs=run.config.epochs,
            steps=run.steps,
            step=run.progress.step,
            records=run.progress.history,
            state=state,
            why=why,
            started=self.started,
            written=time.time(),
            left=None if pace is None else pace * (everything - done),
            patience=max(PATIENCE, 3 * self.longest),
        )
        try:
            write_output(self.path, render(watched))
        finally:
            self.took = time.monotonic() - now


def options_of(config: TrainConfig) -> list[tuple[str, str]]:
    """(flag, value) of all options, and the constants of the loss."""
    values = config.to_dict()
    constants = values.pop("loss_options", None) or {}
    words = {None: "–", True: "yes", False: "no"}
    return [
        (flag(name), words[value] if value is None or isinstance(value, bool) else str(value))
        for name, value in (values | constants).items()
    ]
