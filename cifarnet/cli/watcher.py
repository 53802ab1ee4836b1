"""Training on the terminal: what is about to run, a bar that moves, a line an epoch, the figures at the end."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cifarnet.cli.figures import spared
from cifarnet.cli.forecast import Forecast
from cifarnet.cli.headline import named_loss
from cifarnet.cli.options import spoken
from cifarnet.cli.progress import load_with_progress
from cifarnet.cli.table import Column, Facts, Lines
from cifarnet.cli.terminal import Terminal
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.percent import percent
from cifarnet.data import Dataset, Split
from cifarnet.data.shape_options import shaping_words
from cifarnet.engine.loop import Watcher
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from cifarnet.cli.animate import SphereFrames

REFRESH = 0.5  # seconds between two looks at the running loss: each look waits for the device
BAR = 24  # columns of a short bar, its percentage and the time that is left


class TerminalWatcher(Watcher):
    """Draws training on a Rich console: on a terminal a bar below a growing table, elsewhere a plain line an epoch.

    Args:
        headline: (name, text) lines that stand before all others.
        animate: draw the sphere after each epoch, and a film at the end.
    """

    def __init__(self, console: Terminal, headline: list[tuple[str, str]] | None = None, animate: bool = False) -> None:
        self.console, self.headline, self.animate = console, headline or [], animate
        self.frames: SphereFrames | None = None
        self.ended = False  # before anything is trained: the run is resumed at its last epoch
        self.summary: dict[str, Any] = {}
        self.said: set[str] = set()
        self.forecast = Forecast()
        self.looked = time.monotonic()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}", markup=False),
        )
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )

    def load(self, config: TrainConfig) -> Dataset:
        """The data set, with a bar where that takes a while."""
        return load_with_progress(config, self.console)

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Prints what is about to run, and prepares the table."""
        self.announce(run, folder)
        self.ended = run.progress.epoch >= run.config.epochs
        if self.animate:
            with spared("the film", self.warn):
                from cifarnet.cli.animate import SphereFrames

                self.frames = SphereFrames(run, folder.path)
        done, everything = run.work
        self.task = self.bar.add_task("training", total=everything, completed=int(done), now="")
        self.table = Lines(self.console, epoch_columns(run.config.epochs, bool(run.validation)))

    def announce(self, run: TrainState, folder: RunFolder) -> None:
        """Says what is about to run."""
        for name, text in self.headline:
            say(self.console, name, text)
        for name, text in facts_of(run, folder):
            say(self.console, name, text)
        epochs = run.config.epochs
        if run.progress.epoch >= epochs:
            self.console.say(f"nothing to do: the run is at its last epoch ({epochs}); ask for more with --epochs")

    def __enter__(self) -> "TerminalWatcher":
        self.bar.start()
        if not self.ended:
            self.table.head()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def step(self, run: TrainState) -> None:
        """Moves the bar."""
        now, step = time.monotonic(), run.progress.step
        if line := self.forecast.line(run, now):
            self.warn(line)
        if self.bar.disable or (now - self.looked < REFRESH and step < run.steps):
            return
        self.looked = now
        sums, mine = run.sums.read(), run.seen_here(step)
        rate = run.seen(step) / max(run.progress.seconds, 1e-9)
        parts = [f"loss {number(sums.loss / mine)}", f"acc {percent(sums.correct / mine, 1)}", f"{speed(rate)} img/s"]
        epoch = f"epoch {run.progress.epoch + 1}/{run.config.epochs}"
        while parts and BAR + len("  ".join([epoch, *parts])) > self.console.width:
            parts.pop()
        self.bar.update(self.task, completed=run.work[0], now="  ".join(parts), description=epoch)

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """Adds the epoch's line to the table."""
        self.table.line(epoch_cells(record, bool(run.validation)))
        if self.frames is not None:
            with spared("a frame", self.warn_once):
                self.frames.add(record["epoch"])

    def warn(self, message: str) -> None:
        """Prints a warning."""
        self.console.remark("warning", spoken(message))

    def warn_once(self, message: str) -> None:
        """Prints a warning that would come each epoch."""
        if message not in self.said:
            self.said.add(message)
            self.warn(message)

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        """Draws the run's figures."""
        self.summary = summary
        with spared("the film", self.warn):
            if self.frames is not None and (film := self.frames.finish()):
                self.console.say(("film     ", "bold"), film, soft_wrap=True)
        draw_figures(run, summary, folder, self.warn)
        if self.console.is_terminal:
            self.console.print()  # between the epochs and the summary


def epoch_columns(epochs: int, validation: bool) -> list[Column]:
    """The columns of the epochs' table: of 80 columns it fits all but two, of 60 the most important ones."""
    columns = [Column("epoch", width=len(str(epochs))), Column("lr", 6, width=8)]
    columns += [Column("train loss", 2), Column("train acc", 1)]
    columns += [Column("val loss", 3, width=9), Column("val acc", width=7)] if validation else []
    columns += [Column("test loss", 3 if validation else 0), Column("test acc"), Column("img/s", 5, width=7)]
    return [*columns, Column("time", 4, width=8)]


def epoch_cells(record: dict[str, Any], validation: bool) -> list[str]:
    """A line of metrics.jsonl as cells of `epoch_columns`, none wider than its column."""
    cells = [f"{record['epoch']}", f"{record['lr']:.2e}"]
    cells += [number(record["train_loss"]), percent(record["train_accuracy"])]
    for split in ("val", "test") if validation else ("test",):
        known = f"{split}_loss" in record
        cells += [number(record[f"{split}_loss"]), percent(record[f"{split}_accuracy"])] if known else ["–", "–"]
    return [*cells, speed(record["images_per_second"]), duration(record["seconds"])]


def number(value: float) -> str:
    """A loss, in nine characters at most."""
    return f"{value:.4f}" if value < 9999 else f"{value:.3e}"


def speed(rate: float) -> str:
    """Images a second, in seven characters at most."""
    return f"{rate:,.0f}" if rate < 999_999 else f"{rate / 1e6:,.2f}M"


def duration(seconds: float) -> str:
    """The time of an epoch, in eight characters at most."""
    if seconds < 999:
        return f"{seconds:.1f} s"
    return f"{seconds:,.0f} s" if seconds < 99_999 else f"{seconds / 3600:,.1f} h"


def draw_figures(run: TrainState, summary: dict[str, Any], folder: RunFolder, warn: Callable[[str], None]) -> None:
    """curves.png and confusion.png in the run's folder; one that cannot be drawn is only warned of."""
    from cifarnet.analysis.plots.titles import has_own_loss, title_of

    config = run.config
    if run.progress.history:
        with spared("curves.png", warn):
            from cifarnet.analysis.plots import curves

            name = folder.path.name
            own = [name] if has_own_loss(config) else []
            curves.draw({name: run.progress.history}, folder.path / "curves.png", title_of(config), own)
    if "confusion" in summary["test"]:
        with spared("confusion.png", warn):
            from cifarnet.analysis.plots import confusion

            matrix, title = summary["test"]["confusion"], title_of(config, "test")
            confusion.draw({"": matrix}, run.classes, folder.path / "confusion.png", title)


def facts_of(run: TrainState, folder: RunFolder) -> list[tuple[str, str]]:
    """(name, text) of what is about to run."""
    config, ranks, head = run.config, run.ranks, run.model.head
    loss = named_loss(head.options) if head.options else config.loss
    held_out = len(run.validation.split) if run.validation else 0
    trained, tested = f"{len(run.train.split):,} train", f"{len(run.test.split):,} test"
    trained += f", {held_out:,} held out" if held_out else ""
    spread = f", its classes over {ranks.world} ranks" if head.apart and ranks.world > 1 else ""
    if config.head_sample < 1:
        spread += f", {100 * config.head_sample:g}% of them drawn each step"
    backend = f"head backend {run.backend}{spread}"
    facts = [("model", f"{config.arch}, {run.parameters:,} parameters, loss {loss}, {backend}")]
    shaped = f" ({words})" if (words := shaping_words(config)) else ""
    digest = f"digest {run.data.digests}"
    facts.append(("data", f"{config.dataset}{shaped}: {trained}, {tested}, {len(run.classes)} classes, {digest}"))
    facts.append(("device", f"{device_name(run.device)}, {run.precision}"))
    if ranks.world > 1:
        apart = any(type(module).__name__.startswith("BatchNorm") for module in run.model.modules())
        note = "; BatchNorm within each rank" if apart else ""
        facts.append(("ranks", f"{ranks.world}, a batch of {config.batch_size} over all of them{note}"))
    facts.append(("run", str(folder.path)))
    if config.workers and isinstance(run.train.split, Split):
        facts.append(("note", "--workers: the images are in memory, where none is decoded"))
    return facts


def say(console: Terminal, name: str, text: str) -> None:
    """A line of what is said before training starts; what does not fit goes on below `text`."""
    console.print(Facts([(name, text)], width=7, style="bold"))
