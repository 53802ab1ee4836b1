"""Carries out a search: each trial is a training in a folder of its own, read, resumed or begun."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Diverged, Failed
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset
from cifarnet.engine import fit as training
from cifarnet.engine.halving import Outcome, Rung, Trial, halve
from cifarnet.engine.loop import Watcher
from cifarnet.engine.same_run import check_same_run, load_config
from cifarnet.engine.search import Search, write_table
from cifarnet.storage.run_files import read_json, read_metrics
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.sharded_file import existing


def run_search(
    search: Search,
    out: Path,
    *,
    dataset: Dataset | None = None,
    init_from: Path | None = None,
    watcher_of: Callable[[str, Rung], Watcher] = lambda name, rung: Watcher(),
    heed: Callable[[str, Trial], None] = lambda loss, trial: None,
    stop: StopRequest | None = None,
) -> Search:
    """Trains what is not trained yet, and keeps the table in out/tune.json as it grows; returns the search with its trials.

    Args:
        out: a new folder, or that of the same search, which then goes on (see `check_place`).
        watcher_of: what is told how a trial goes, by the setting's name and its rung.
        heed: called with each trial as it ends.
        stop: as `fit` takes it.

    Raises:
        Failed: every setting of every loss diverged. Interrupted: a signal came; all is saved.
    """

    def run(loss: str, number: int, place: int) -> Outcome:
        rung = search.rungs[place]
        config = replace(search.configs[loss][number], epochs=rung.epochs)
        path, name = search.folder(out, loss, number, rung.epochs), search.name(loss, number)
        return trial_outcome(config, path, lambda: watcher_of(name, rung), dataset, init_from, stop)

    def note(loss: str, ended: list[Trial], trial: Trial) -> None:
        ended.append(trial)
        write_table(search, out, {**search.trials, loss: ended})
        heed(loss, trial)

    write_table(search, out, {})
    for loss in search.configs:
        search.trials[loss] = halve(search.rungs, partial(run, loss), partial(note, loss, []))
        write_table(search, out, search.trials)
    if search.best() is None:
        raise Failed("tune", "every setting diverged", "try a smaller `lr`")
    return search


def trial_outcome(
    config: TrainConfig,
    path: Path,
    watcher: Callable[[], Watcher],
    dataset: Dataset | None,
    init_from: Path | None,
    stop: StopRequest | None = None,
) -> Outcome:
    """The outcome of the trial in `path`: read where it has been trained, else trained, from its saved state where there is one."""
    if found := read_outcome(config, path):
        return found
    begun = existing(RunFolder(path).state) is not None
    try:
        training.fit(
            config,
            path,
            resume=begun,
            overwrite=not begun,
            init_from=None if begun else init_from,
            dataset=dataset,
            watcher=watcher(),
            stop=stop,
            trial=True,
        )
    except Diverged as error:
        return Outcome(None, error=str(error))
    found = read_outcome(config, path)
    if found is None:
        raise Failed(str(path), "its result cannot be read", "remove the folder, and go on with `resume`")
    return found


def read_outcome(config: TrainConfig, path: Path) -> Outcome | None:
    """The outcome of the run in `path` after `config.epochs`, or None where it has not come so far.

    Raises:
        Refused: it was begun under another configuration.
    """
    folder = RunFolder(path)
    state = existing(folder.state)
    if state is None:
        return None
    saved = load_config(state)
    precision = saved.precision if config.precision == "auto" else config.precision
    check_same_run(saved, replace(config, precision=precision, epochs=max(config.epochs, saved.epochs)))
    accuracy, images = measured(folder, config.epochs)
    if isinstance(accuracy, float) and isinstance(images, int):
        return Outcome(accuracy, images)
    if folder.diverged.exists():
        why = read_json(folder.diverged, "remove the folder", within=path)
        return Outcome(None, error=str(why.get("why", "diverged") if isinstance(why, dict) else "diverged"))
    return None


def measured(folder: RunFolder, epochs: int) -> tuple[Any, Any]:
    """Accuracy after so many epochs and the number of held-out images, as the folder's files have them; None: they have not."""
    if not folder.summary.exists() or not folder.metrics.exists():
        return None, None
    summary = read_json(folder.summary, "remove the folder", within=folder.path)
    validation = summary.get("validation") if isinstance(summary, dict) else None
    record = next((one for one in read_metrics(folder.metrics)[0] if one.get("epoch") == epochs), {})
    return record.get("val_accuracy"), validation.get("images") if isinstance(validation, dict) else None
