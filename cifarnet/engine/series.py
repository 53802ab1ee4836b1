"""One configuration under several seeds, one after the other, each in a folder of its own beside the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import launched
from cifarnet.core.errors import CifarnetError, Interrupted, Refused
from cifarnet.core.fields import check_path
from cifarnet.engine import fit as training
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.loop import Watcher
from cifarnet.engine.same_run import check_same_run, load_config
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_files import read_json
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import next_name, read_facts, seed_folder
from cifarnet.storage.sharded_file import existing

NEW, GO_ON, DONE = "new", "go on", "done"


@dataclass(frozen=True)
class SeedRun:
    """One seed of a series: its folder; its summary.json, or the error that it ended with; was it finished before?"""

    seed: int
    path: Path
    summary: dict[str, Any] | None = None
    error: CifarnetError | None = None
    before: bool = False


def fit_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    about: Mapping[str, str] | None = None,
    watcher_of: Callable[[int], Watcher] = lambda seed: Watcher(),
    heed: Callable[[SeedRun], None] = lambda run: None,
) -> list[SeedRun]:
    """Trains `config` once a seed; a run that fails is named, and the others are trained all the same.

    Args:
        out: the folders are `<out>-seed<seed>`; None: runs/<arch>-<loss>-<dataset>-<n>-seed<seed>, of one free n.
        resume: under the same configuration, finished runs are read, an interrupted one goes on, the others begin.
        overwrite, init_from, about: of each run, as `fit`.
        watcher_of: what is told how the training of a seed goes.
        heed: called with each run that has ended.

    Raises:
        Refused: as `fit`, before anything is trained; seeds that name one twice, several processes.
        Interrupted: a signal came; the state of the run in hand is saved.
    """
    check_series(config, seeds)
    if resume and out is None:
        raise Refused("resume", "needs the series' folder", "name it with `out`")
    plan = [
        (seed, path, start_of(replace(config, seed=seed), path, resume, overwrite))
        for seed, path in series_folders(config, seeds, out)
    ]
    ended: list[SeedRun] = []
    for seed, path, start in plan:
        train = None
        if start != DONE:
            train = partial(
                training.fit,
                replace(config, seed=seed),
                path,
                resume=start == GO_ON,
                overwrite=overwrite or (resume and start == NEW),
                init_from=None if start == GO_ON else init_from,
                about=about,
                watcher=watcher_of(seed),
            )
        ended.append(ended_run(seed, path, train, is_first=not ended))
        heed(ended[-1])
    return ended


def ended_run(seed: int, path: Path, train: Callable[[], object] | None, is_first: bool) -> SeedRun:
    """The run of `seed` in `path` once `train` has ended, well or not; None: it was finished before.

    Raises:
        Refused: `is_first` was refused: the others would be as well.
        Interrupted: a signal came.
    """
    try:
        if train is not None:
            train()
        summary = read_json(RunFolder(path).summary, "train it again", within=path)
    except Interrupted:
        raise
    except CifarnetError as error:
        if isinstance(error, Refused) and is_first:
            raise
        return SeedRun(seed, path, error=without_frames(error))
    return SeedRun(seed, path, summary, before=train is None)


def without_frames(error: CifarnetError) -> CifarnetError:
    """The error, without the frames that it passed: these hold model, optimizer and images of the training that failed."""
    chain: list[BaseException | None] = [error]
    for one in chain:
        if one is not None:
            one.__traceback__ = None
            chain += [other for other in (one.__cause__, one.__context__) if other not in chain]
    return error


def check_series(config: TrainConfig, seeds: Sequence[int]) -> None:
    """Raises Refused for no seed, one twice, one that is none, a configuration that cannot be, or several processes."""
    if not seeds:
        raise Refused("seeds", "names no seed", "give whole numbers, as in 0,1,2")
    twice = [seed for place, seed in enumerate(seeds) if seed in seeds[:place]]
    if twice:
        raise Refused("seeds", f"names {twice[0]} twice", "name each seed once")
    if launched().world > 1:
        raise Refused("seeds", "trains one run after the other in one process", "start torchrun once a `seed`")
    for seed in seeds:
        check_options(replace(config, seed=seed))


def series_folders(config: TrainConfig, seeds: Sequence[int], out: str | Path | None) -> list[tuple[int, Path]]:
    """Each seed and its folder; none is made."""
    check_path("out", out)
    base = Path(out) if out is not None else next_name(config)
    return [(seed, seed_folder(base, seed)) for seed in seeds]


def start_of(config: TrainConfig, path: Path, resume: bool, overwrite: bool) -> str:
    """How the run in `path` begins: NEW, GO_ON or DONE (there is nothing to train).

    Raises:
        Refused: the folder cannot be taken, or the run in it was begun under another configuration or cannot go on.
    """
    folder = RunFolder(path)
    state = existing(folder.state)
    if not resume or (state is None and not folder.has_checkpoint):
        open_run(path, resume=False, overwrite=overwrite or resume)
        return NEW
    saved = load_config(state) if state else folder.read_config()
    check_same_run(saved, replace(config, precision=saved.precision) if config.precision == "auto" else config)
    facts = read_facts(path)
    if facts and facts.state == "finished" and facts.epochs_done >= config.epochs:
        return DONE
    open_run(path, resume=True, overwrite=False)  # refused where its state is gone
    return GO_ON
