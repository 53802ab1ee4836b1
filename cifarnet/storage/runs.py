"""The runs of a folder: the name of a new one, which is the newest, and the facts of each for a list."""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.storage.atomic import point_link
from cifarnet.storage.lock import is_held
from cifarnet.storage.run_files import read_json, read_metrics
from cifarnet.storage.run_folder import LOCK, RunFolder

RUNS = Path("runs")
LATEST = RUNS / "latest"  # a link to the newest run that has a checkpoint


def next_name(config: TrainConfig, after: int = 0) -> Path:
    """runs/<arch>-<loss>-<dataset>-<n> with the next n that is free, and larger than `after`; a series has one n."""
    # The name of a caller's own data set may be any text.
    named = re.sub(r"[^\w.+-]+|^\.+", "-", config.dataset, flags=re.ASCII).strip("-")[:100] or "data"
    stem = f"{config.arch}-{config.loss}-{named}-"
    numbered = re.compile(rf"{re.escape(stem)}(\d{{1,9}})(-seed\d+)?")
    taken = [int(found[1]) for path in RUNS.glob(f"{stem}*") if (found := numbered.fullmatch(path.name))]
    return RUNS / f"{stem}{max(*taken, after) + 1 if taken else after + 1}"


def seed_folder(base: Path, seed: int) -> Path:
    """The folder of one seed of a series: `<base>-seed<seed>`, beside the others. Raises Refused for a base without a name."""
    if not base.name or base.name == "..":
        raise Refused("out", f"'{base}' has no name that the seeds could be added to", "name a folder, as in runs/mine")
    return base.with_name(f"{base.name}-seed{seed}")


def newest_series() -> Path | None:
    """The base of the series in runs/ whose training state is the youngest; None where there is none."""
    series = {path: found[1] for path in _folders(RUNS) if (found := re.fullmatch(r"(.+)-seed\d+", path.name))}
    newest = max(series, key=lambda path: RunFolder(path).written_state, default=None)
    return newest and newest.with_name(series[newest])


def next_folder(config: TrainConfig) -> Path:
    """Makes the folder of that name; of two runs started at the same moment each gets its own.

    Raises:
        Refused: runs/ cannot be written.
    """
    for attempt in itertools.count():
        path = next_name(config, attempt)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not RUNS.is_dir():
                raise Refused(str(RUNS), "is a file", "choose another folder with `out`") from None
        except OSError as error:
            raise Refused(
                str(RUNS), f"cannot be written ({error.strerror})", "choose another folder with `out`"
            ) from error
    raise AssertionError  # count() has no end


def mark_latest(folder: RunFolder) -> None:
    """Points runs/latest at this run (nothing happens where links cannot be made)."""
    try:
        RUNS.mkdir(exist_ok=True)
        point_link(LATEST, os.path.relpath(folder.path.resolve(), RUNS.resolve()))
    except OSError:
        return


def latest() -> Path | None:
    """runs/latest, or None where there is none.

    Raises:
        Refused: it is a link that leads nowhere, or in a circle.
    """
    if not os.path.lexists(LATEST):
        return None
    try:
        if LATEST.stat():
            return LATEST
    except OSError as error:
        leads = f"leads to {os.readlink(LATEST)}" if LATEST.is_symlink() else "cannot be read"
        raise Refused(str(LATEST), f"{leads}: {error.strerror}", "name a run folder") from error
    return None


def own_name(path: Path) -> Path:
    """The folder that `path` leads to, where it is a link to one: runs/latest leads elsewhere later. Else `path` itself.

    It is named from the working directory where it is below it.
    """
    if not (path.is_symlink() and path.is_dir()):
        return path
    link = path.readlink()
    leads = path.resolve() if ".." in link.parts else path.parent / link
    return leads.relative_to(Path.cwd()) if leads.is_relative_to(Path.cwd()) else leads


def newest_state() -> Path | None:
    """The run in runs/, or that of runs/latest, whose training state is the youngest; None where there is none."""
    found = [path for path in (*_folders(RUNS), latest()) if path and RunFolder(path).written_state]
    return max(found, key=lambda path: RunFolder(path).written_state, default=None)


def newer_without_checkpoint(path: Path) -> tuple[Path, str] | None:
    """A run that was begun after that in `path` and has no checkpoint, and what became of it; None where there is none."""
    chosen, others = read_facts(path), []
    for other in _folders(RUNS):
        if not RunFolder(other).has_checkpoint and (facts := read_facts(other)):
            others.append((facts.started, other, facts.state))
    if not chosen or not others or max(others)[0] <= chosen.started:
        return None
    return max(others)[1:]


@dataclass(frozen=True)
class RunFacts:
    """A run in a list. accuracy: on the test images, in [0, 1], None before the first evaluation; `tta`: it is of
    several views of each image, of so many as `views` says, None of a run of before this was recorded.

    state: finished, stopped, diverged or running. started: in UTC, ISO 8601.
    """

    name: str
    path: str
    recipe: str | None
    arch: str
    loss: str
    dataset: str
    data_digest: str | None
    seed: int
    accuracy: float | None
    tta: bool
    epochs_done: int
    epochs_asked: int
    state: str
    started: str
    views: int | None = None


def list_runs(folder: Path) -> tuple[list[RunFacts], list[str]]:
    """The runs in a folder, the oldest first, and a warning for each that cannot be read; of a run's own folder that run.

    Raises:
        Refused: there is no such folder.
    """
    if not folder.is_dir():
        raise Refused(str(folder), "there is no such folder", "name a folder that holds runs")
    listed, warnings = [], []
    for path in [*_folders(folder)] or [folder] * RunFolder(folder).is_run():
        try:
            listed.append(_facts(RunFolder(path)))
        except CifarnetError as error:
            warnings.append(str(error))
    return sorted(listed, key=lambda facts: (facts.started, facts.name)), warnings


def read_facts(path: Path) -> RunFacts | None:
    """The facts of a run, or None where its files cannot be read."""
    try:
        return _facts(RunFolder(path))
    except CifarnetError:
        return None


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (
            path for path in sorted(folder.iterdir()) if not path.is_symlink() and (path / "config.json").is_file()
        )


def _facts(folder: RunFolder) -> RunFacts:
    config, about = folder.read_config(), folder.read_about()
    summary = _summary(folder)
    records = read_metrics(folder.metrics)[0] if folder.metrics.exists() else []
    done = max((record["epoch"] for record in records if isinstance(record.get("epoch"), int)), default=0)
    measured = [record for record in records if isinstance(record.get("test_accuracy"), float)]
    test = summary.get("test")
    final = test.get("accuracy") if isinstance(test, dict) else None
    began = datetime.fromtimestamp(folder.config.stat().st_mtime, UTC).isoformat(timespec="seconds")
    last = measured[-1] if measured else {}
    views = (summary if isinstance(final, float) else last).get("views")
    digest = summary.get("data_digest", about.get("data_digest"))
    return RunFacts(
        name=folder.path.resolve().name,
        path=str(folder.path),
        recipe=about.get("recipe"),
        arch=config.arch,
        loss=config.loss,
        dataset=config.dataset,
        data_digest=digest if isinstance(digest, str) else None,
        seed=config.seed,
        accuracy=final if isinstance(final, float) else last.get("test_accuracy"),
        tta=bool(summary.get("tta", config.tta and views != 1)),
        epochs_done=done,
        epochs_asked=config.epochs,
        state=_state(folder, summary, done, config.epochs),
        started=about.get("started", began),
        views=views if type(views) is int else None,
    )


def _summary(folder: RunFolder) -> dict[str, Any]:
    if not folder.summary.exists():
        return {}
    found = read_json(folder.summary, "train again", within=folder.path)
    return found if isinstance(found, dict) else {}


def _state(folder: RunFolder, summary: dict[str, Any], done: int, asked: int) -> str:
    if is_held(folder.path / LOCK):
        return "running"
    if folder.diverged.exists():
        return "diverged"
    return "finished" if summary and done >= asked else "stopped"
