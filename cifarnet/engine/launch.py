"""From a configuration to a run that stands ready on every rank: what one rank lacks is found before the first step."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.launcher import job, may_restart, restarts
from cifarnet.core.view_words import views_in_words
from cifarnet.data import Dataset
from cifarnet.data.identity import identity_of
from cifarnet.data.shaping import in_class_order
from cifarnet.engine.ddp import wrap_ddp
from cifarnet.engine.evaluate import only_coarse
from cifarnet.engine.same_data import known_classes
from cifarnet.engine.same_run import check_same_run, load_config
from cifarnet.engine.setup import build_run, resolve_execution
from cifarnet.engine.train_state import TrainState
from cifarnet.engine.validate import kept_views
from cifarnet.models.checkpoint import load_model
from cifarnet.storage.find_checkpoint import find_checkpoint
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import mark_latest, next_folder, own_name
from cifarnet.storage.safetensors_header import CHECKPOINT
from cifarnet.storage.sharded_file import INDEX, TensorSet, existing, metadata_of


def take_folder(
    held: ExitStack, config: TrainConfig, out: Path | None, resume: bool, overwrite: bool
) -> tuple[Path, bool, str]:
    """Holds the run's folder as long as `held` lasts.

    After a restart by torchrun the same command goes on with the run that it began.

    Returns:
        its path (of runs/latest that of the run itself), whether to resume the run in it, and the precision: for
        `precision=auto` of a run that is resumed what it came to when the run was begun.

    Raises:
        Refused: the folder cannot be taken, or the run in it was begun under another configuration.
    """
    if out is None and resume:
        raise Refused("resume", "needs the run's folder", "name it with `out`")
    if out is None and may_restart():
        raise Refused("out", "torchrun --max-restarts needs it, to find the run again", "name the run's folder")
    folder = RunFolder(own_name(out) if out else next_folder(config))
    if restarts() and folder.is_of(job()):
        resume = existing(folder.state) is not None
        overwrite = not resume
    held.enter_context(open_run(folder.path, resume=resume, overwrite=overwrite)).claim(job())
    if not resume:
        return folder.path, resume, config.precision
    saved = load_config(folder.state)
    precision = saved.precision if config.precision == "auto" else config.precision
    check_same_run(saved, replace(config, precision=precision))
    return folder.path, resume, precision


def prepare(
    config: TrainConfig,
    ranks: Ranks,
    load: Callable[[], Dataset],
    *,
    state: Path | None = None,
    init_from: Path | None = None,
) -> tuple[TrainState, list[str]]:
    """The run on this rank, joined to the others, and warnings for the user.

    Args:
        load: reads the data set; on each machine one rank is first, so that only one downloads what is missing.
        state: the training state to go on from, which every rank must be able to read.
        init_from: a checkpoint or run whose weights to start from.

    Raises:
        Refused, Failed: on every rank, what went wrong on one: data that cannot be read, an option that cannot be met,
            another configuration, other data, or another torch than the first rank's.
    """
    with ranks.together():  # before minutes of reading or downloading
        resolve_execution(config, ranks)
        if state is not None and ranks.first:
            check_best(RunFolder(state.parent))
        classes = known_classes(state) if state is not None else ()
        source = find_checkpoint(init_from) if init_from is not None else None
        if source is not None:
            metadata_of(source, CHECKPOINT, "model")
    with ranks.local_first():
        dataset = in_class_order(load(), classes)
    if ranks.world > 1:
        assert_equal_across_ranks(ranks.gather(lambda: rank_fingerprint(config, dataset)))
    with ranks.together():
        run = build_run(config, dataset, source, ranks)
        warnings = run.load(state) + edited(RunFolder(state.parent), config) if state is not None else []
        warnings += views_warnings(run)
    place = f"at epoch {run.progress.epoch}, step {run.progress.step}"
    mine = {"training state": place, "precision": run.precision, "head backend": run.backend}
    assert_equal_across_ranks(ranks.gather(lambda: mine))
    wrap_ddp(run)
    return run, warnings


def views_warnings(run: TrainState) -> list[str]:
    """A warning where `tta` has no effect, or was another thing when the first epochs of a resumed run were measured."""
    if not run.config.tta:
        return []
    if only_coarse(len(run.classes)):
        why = f"of {len(run.classes):,} classes only loss and accuracy are measured, of one view of each image"
        return [f"`tta` has no effect: {why}"]
    now = kept_views(run)["views"]
    measured = [record for record in run.progress.history if "test_loss" in record or "val_loss" in record]
    if all(record.get("views") == now for record in measured):
        return []
    words = f"two views of each image so far and is {views_in_words(now)}"
    return [f"`tta` may have been {words}: accuracies before and after do not compare"]


def check_best(folder: RunFolder) -> None:
    """Raises Refused where the best model is broken: a run that goes on would train to its end, and then fail on it."""
    best = existing(folder.best)
    if best is None:
        return
    try:
        if best.name.endswith(INDEX):  # too large to be read twice
            TensorSet(best, CHECKPOINT, "model")
        else:
            load_model(best, of_features=True)
    except Refused as error:
        last = f"evaluate {folder.last} in its place, or " if folder.last.exists() else ""
        fix = (
            f"{last}remove it and `resume`, at the end of the run with more `epochs`: the best one is then one to come"
        )
        raise Refused(error.what, error.why, fix) from error


def edited(folder: RunFolder, config: TrainConfig) -> list[str]:
    """A warning where config.json says other values than the run goes on with: they would be changed back without a word.

    Of what a resume may change epochs alone count: workers, device and the like are the command's each time.
    """
    if not folder.config.exists():
        return []
    try:
        noted, saved = folder.read_config().to_dict(), load_config(folder.state).to_dict()
    except Refused as error:
        return [f"{error}; it is written again from the training state"]
    now, words = config.to_dict(), "the training state's values are taken; more epochs are an option of `resume`"
    lasting = [item.name for item in fields(TrainConfig) if not item.metadata["resume"]] + ["epochs"]
    differ = ", ".join(
        f"`{name}` {noted[name]} (the training state {saved[name]})"
        for name in lasting
        if noted[name] not in (saved[name], now[name])
    )
    return [f"{folder.config} says {differ}: {words}"] if differ else []


def begin(run: TrainState, folder: RunFolder, resume: bool, about: Mapping[str, str]) -> None:
    """Puts the folder in order for the run that goes on in it, or starts in it; files of an earlier one then go.

    Args:
        about: kept in config.json beside the options; of a run that goes on, what was kept at its start.
    """
    if resume:
        # Its scores are of fewer epochs: the run is not finished. Of a trial they stand for the rung that is behind it.
        if run.progress.epoch < run.config.epochs and not run.trial:
            folder.summary.unlink(missing_ok=True)
        folder.rewrite_metrics(run.progress.history)
        folder.diverged.unlink(missing_ok=True)
        about = folder.read_about() if folder.config.exists() else about
    else:
        folder.clear()
        about = {**about, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    folder.write_config(run.config, {**about, "data_digest": run.data.digest, "source_digest": run.data.source})
    if folder.checkpoint and not run.trial:
        mark_latest(folder)


def rank_fingerprint(config: TrainConfig, dataset: Dataset) -> dict[str, str]:
    """All that must be the same on all ranks, in words: each option but those of place and device, the data, torch."""
    own = ("data_dir", "workers", "device")
    options = {f"`{name}`": str(value) for name, value in config.to_dict().items() if name not in own}
    digest = identity_of(dataset.classes, dataset.train, dataset.test).digest_in_order
    data = f"{len(dataset.train):,} + {len(dataset.test):,} images, {len(dataset.classes)} classes, digest {digest}"
    return options | {"data": data, "torch": torch.__version__}


def assert_equal_across_ranks(fingerprints: list[dict[str, Any]]) -> None:
    """Refuses ranks that differ from the first, naming the lowest such rank and what differs."""
    for rank, other in enumerate(fingerprints):
        differing = [name for name in fingerprints[0] if other.get(name) != fingerprints[0][name]]
        if differing:
            changes = ", ".join(f"{name} {other.get(name)}, not {fingerprints[0][name]}" for name in differing)
            raise Refused(
                f"rank {rank}", f"differs from rank 0: {changes}", "start all ranks alike, with the same data"
            )
