"""Loading a data set so that a long wait is seen: a bar on a terminal, elsewhere a line now and then."""

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cifarnet.core.config import TrainConfig
from cifarnet.data import Dataset, Identities, load

PATIENCE, PAUSE = 5, 60  # seconds before the first line, and between two
FROM_FILES = ("folder", "webdataset")


def load_with_progress(config: TrainConfig, console: Console) -> Dataset:
    """The data set of a run."""
    options = {"image_size": config.image_size, "coarse": config.coarse, "identities": Identities.of(config)}
    return load_shown(console, config.dataset, config.data_dir, **options)


def load_shown(console: Console, name: str, data_dir: str | None, **options: Any) -> Dataset:
    """`data.load` with its progress on `console`: a download, or the first reading of an image set."""
    doing = f"reading {name}, once" if name in FROM_FILES else f"downloading {name}"
    unit = "" if name in FROM_FILES else " bytes"
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
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
                console.print(f"{doing}: {done:,} of {total:,}{unit}")

        return load(name, data_dir, progress=show, **options)
