"""A training run with its progress on the terminal: a bar that moves, a line an epoch."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor

from cifarnet.cli.progress import load_with_progress
from cifarnet.core.config import MarginOptions, TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.distributed import connect, job, may_restart, restarts
from cifarnet.core.errors import CifarnetError, Refused, printable
from cifarnet.core.signals import StopRequest
from cifarnet.engine.launch import prepare
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.resume import check_same_run, load_config
from cifarnet.engine.train_state import Session
from cifarnet.losses import LOSSES
from cifarnet.losses.auto_scale import misfits
from cifarnet.storage.run_folder import RunFolder, next_folder, open_run
from cifarnet.storage.sharded_file import existing

if TYPE_CHECKING:
    from cifarnet.cli.animate import SphereFrames

REFRESH = 0.5  # seconds between two looks at the running loss: each look waits for the device


class TerminalWatcher(Watcher):
    """Draws training on a Rich console: on a terminal a bar below a growing table, elsewhere a plain line an epoch."""

    def __init__(self, console: Console, session: Session, frames: "SphereFrames | None" = None) -> None:
        self.console, self.session, self.frames = console, session, frames
        self.looked = time.monotonic()
        self.start = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}"),
        )
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        total = session.config.epochs * session.steps
        done = session.progress.epoch * session.steps + session.progress.step
        self.task = self.bar.add_task("training", total=total, completed=done, now="")
        names = ["epoch", "lr", "train loss", "train acc"]
        names += ["val loss", "val acc"] if session.validation else []
        names += ["test loss", "test acc", "img/s", "time"]
        self.header = " ".join(f"{name:>10}" for name in names)

    def __enter__(self) -> "TerminalWatcher":
        self.bar.start()
        self.console.print(f"[bold]{self.header}[/]")
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def step(self, epoch: int, step: int, steps: int, totals: Tensor, seen: int) -> None:
        """Moves the bar."""
        now = time.monotonic()
        if self.bar.disable or (now - self.looked < REFRESH and step < steps):
            return
        self.looked = now
        loss, hits = totals[:2].tolist()
        rate = seen / max(self.session.progress.seconds, 1e-9)
        mine = self.session.seen_here(step)
        text = f"loss {loss / mine:.3f}  acc {100 * hits / mine:.1f}%  {rate:,.0f} img/s"
        done = (epoch - 1) * steps + step
        self.bar.update(self.task, completed=done, now=text, description=f"epoch {epoch}/{self.session.config.epochs}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Adds the epoch's line to the table."""
        cells = [
            f"{record['epoch']}",
            f"{record['lr']:.2e}",
            f"{record['train_loss']:.4f}",
            f"{100 * record['train_accuracy']:.2f}%",
        ]
        for split in ("val", "test") if self.session.validation else ("test",):
            known = f"{split}_loss" in record
            cells += (
                [f"{record[f'{split}_loss']:.4f}", f"{100 * record[f'{split}_accuracy']:.2f}%"] if known else ["–", "–"]
            )
        cells += [f"{record['images_per_second']:,.0f}", f"{record['seconds']:.1f} s"]
        self.console.print(" ".join(f"{cell:>10}" for cell in cells))
        if self.frames is not None:
            self.frames.add(record["epoch"])

    def warn(self, message: str) -> None:
        """Prints a warning."""
        self.console.print(f"[yellow]warning:[/] {message}")


def train_with_progress(
    config: TrainConfig,
    out: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    init_from: Path | None,
    console: Console,
    headline: list[tuple[str, str]],
    animate: bool = False,
) -> dict[str, Any]:
    """Loads the data, trains in the run folder `out` with progress on `console`, and returns the summary.

    Under torchrun every rank comes here; the first one alone holds the folder, prints and draws.
    """
    if animate:
        from cifarnet.cli.animate import SphereFrames, check_animation

        check_animation(config)
    with connect(config.device) as ranks, ExitStack() as held:
        if not ranks.first:
            console = Console(quiet=True)
        path, resume = ranks.of_first(lambda: take_folder(held, config, out, resume, overwrite))
        folder = RunFolder(path)
        session, warnings = prepare(
            config,
            ranks,
            lambda: load_with_progress(config, console),
            state=folder.state if resume else None,
            init_from=init_from,
        )
        for warning in warnings:
            console.print(f"[yellow]warning:[/] {warning}")
        ranks.of_first(lambda: begin(session, folder, resume))
        for name, text in headline:
            say(console, name, text)
        describe(session, folder, console)
        if resume and session.progress.epoch >= config.epochs:
            console.print(f"nothing to do: the run is at its last epoch ({config.epochs}); ask for more with --epochs")
        frames = SphereFrames(session, folder.path) if animate and ranks.first else None
        with TerminalWatcher(console, session, frames) as watcher, StopRequest(together=ranks.world > 1) as stop:
            summary = train(session, folder, watcher, stop)
        if frames is not None and (film := frames.finish()):
            console.print(f"[bold]film[/]     {film}", soft_wrap=True)
        if ranks.first:
            draw_figures(session, summary, folder, console)
    return summary


def take_folder(
    held: ExitStack, config: TrainConfig, out: Path | None, resume: bool, overwrite: bool
) -> tuple[Path, bool]:
    """Holds the run's folder as long as `held` lasts; returns its path, and whether to resume the run in it.

    After a restart by torchrun the same command goes on with the run that it began.
    """
    if out is None and may_restart():
        raise Refused("--out", "torchrun --max-restarts needs it, to find the run again", "name the run's folder")
    folder = RunFolder(out or next_folder(config))
    if restarts() and folder.is_of(job()):
        resume = existing(folder.state) is not None
        overwrite = not resume
        if resume:
            saved = load_config(folder.state)  # which may say what --precision auto came to
            same = saved.precision if config.precision == "auto" else config.precision
            check_same_run(saved, replace(config, precision=same))
    held.enter_context(open_run(folder.path, resume=resume, overwrite=overwrite)).claim(job())
    return folder.path, resume


def begin(session: Session, folder: RunFolder, resume: bool) -> None:
    """Puts the folder in order for the run that goes on in it, or starts in it; what an earlier one left then goes."""
    if resume:
        folder.rewrite_metrics(session.progress.history)
    else:
        folder.clear()
    folder.write_config(session.config)
    folder.mark_latest()


def draw_figures(session: Session, summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    """curves.png and confusion.png in the run's folder; a figure that cannot be written is only warned of."""
    from cifarnet.analysis.plots import confusion, curves
    from cifarnet.analysis.plots.titles import title_of

    config = session.config
    try:
        if session.progress.history:
            curves.draw({folder.path.name: session.progress.history}, folder.path / "curves.png", title_of(config))
        if "confusion" in summary["test"]:
            title = title_of(config, "test")
            confusion.draw(summary["test"]["confusion"], session.classes, folder.path / "confusion.png", title)
    except CifarnetError as error:
        console.print(f"[yellow]warning:[/] {error}")


def describe(session: Session, folder: RunFolder, console: Console) -> None:
    """Says what is about to run, before it runs."""
    config, ranks = session.config, session.ranks
    parameters = session.parameters
    constants = getattr(session.model.head, "options", None)
    loss = named_loss(constants, config.loss)
    held_out = len(session.validation.split) if session.validation else 0
    trained, tested = f"{len(session.train.split) + held_out:,} train", f"{len(session.test.split):,} test"
    spread = f", its classes over {ranks.world} ranks" if session.sharded and ranks.world > 1 else ""
    if config.head_sample < 1:
        spread += f", {100 * config.head_sample:g}% of them drawn each step"
    backend = f"head backend {session.backend}{spread}"
    say(console, "model", f"{config.arch}, {parameters:,} parameters, loss {loss}, {backend}")
    say(console, "data", f"{config.dataset}: {trained}, {tested}, {len(session.classes)} classes")
    say(console, "device", f"{device_name(session.device)}, {session.precision}")
    if ranks.world > 1:
        apart = any(type(module).__name__.startswith("BatchNorm") for module in session.model.modules())
        note = "; BatchNorm within each rank" if apart else ""
        say(console, "ranks", f"{ranks.world}, a batch of {config.batch_size} over all of them{note}")
    say(console, "run", str(folder.path))
    if constants is not None:
        features = session.model.head.weight.shape[1]
        for note in misfits(config.loss, constants.scale, constants.margin, len(session.classes), features):
            say(console, "note", note)


def named_loss(constants: MarginOptions | None, loss: str) -> str:
    """The loss with the constants that it has: SphereFace has no s, MagFace no m."""
    if constants is None:
        return loss
    letters = {"scale": "s", "margin": "m"}
    has = [name for name in letters if name in LOSSES[loss].defaults]
    return f"{loss} ({', '.join(f'{letters[name]} = {getattr(constants, name):g}' for name in has)})"


def say(console: Console, name: str, text: str) -> None:
    """A line of what is said before training starts; what does not fit goes on below `text`."""
    if not console.is_terminal:
        console.print(Text.assemble((f"{name:<8} ", "bold"), printable(text)))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", min_width=7)
    grid.add_column(overflow="fold")
    grid.add_row(name, Text(printable(text)))
    console.print(grid)
