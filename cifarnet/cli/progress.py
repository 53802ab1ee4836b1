"""Loading a data set so that a long wait is seen: a bar on a terminal, elsewhere a line now and then."""

import time
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cifarnet.cli.terminal import Terminal
from cifarnet.core.config import TrainConfig
from cifarnet.data import DATASETS, Dataset, load, load_options

PATIENCE, PAUSE = 5, 60  # seconds before the first line, and between two


def load_with_progress(config: TrainConfig, console: Terminal) -> Dataset:
    """The data set of a run."""
    return load_shown(console, config.dataset, config.data_dir, **load_options(config))


def load_shown(console: Terminal, name: str, data_dir: str | None, **options: Any) -> Dataset:
    """`data.load` with its progress on `console`: a download, or the first reading of an image set."""
    from_files = name in DATASETS and DATASETS[name].from_files
    doing = f"reading {name}, once" if from_files else f"downloading {name}"
    unit = "" if from_files else " bytes"
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: list[Any] = []
        due = time.monotonic() + PATIENCE

        def show(done: int, total: int) -> None:
            nonlocal due
            if console.is_terminal:
                if not tasks:
                    tasks.append(bar.add_task(doing, total=total))
                bar.update(tasks[0], completed=done, total=total)
            elif (now := time.monotonic()) > due:
                due = now + PAUSE
                console.say(f"{doing}: {done:,} of {total:,}{unit}")

        return load(name, data_dir, progress=show, **options)
