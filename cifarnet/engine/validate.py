"""Measures the model in training: after an epoch, and for the summary at the end."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.data.shape_options import shaping_options
from cifarnet.engine.calibrate import fit_calibration
from cifarnet.engine.evaluate import collect_logits, measure_batches, only_coarse
from cifarnet.engine.metrics import CoarseScores, Scores, coarse_score, score
from cifarnet.engine.train_state import TrainState
from cifarnet.engine.views import VIEW_WEIGHTS
from cifarnet.models.calibration import Calibration
from cifarnet.models.checkpoint import load_model, read_info, restore_weights, save_model
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.sharded_file import existing

# Passes batches on, and raises Interrupted once a signal has come.
UntilStopped = Callable[[Iterable[Any]], Iterator[Any]]


def evaluate_epoch(
    run: TrainState, record: dict[str, Any], until_stopped: UntilStopped = iter
) -> Scores | CoarseScores:
    """Adds loss and accuracy on the test split (and the validation split) to `record`; returns the test scores.

    Of a trial the validation split alone is measured, and its scores are returned. `views`, with `tta`: of so many of each image.
    """
    record |= kept_views(run)
    if run.validation is not None:
        held_out = evaluate_on(run, "validation", until_stopped)
        record |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
        if run.trial:
            return held_out
    scores = evaluate_on(run, "test", until_stopped)
    record |= {"test_loss": scores.loss, "test_accuracy": scores.accuracy}
    return scores


def kept_views(run: TrainState) -> dict[str, int]:
    """{"views": the number of views of each image that are measured} with `tta`, else nothing; 1 of so many classes that it has no effect."""
    if not run.config.tta:
        return {}
    return {"views": 1 if only_coarse(len(run.classes)) else len(VIEW_WEIGHTS)}


def evaluate_on(run: TrainState, name: str, until_stopped: UntilStopped = iter) -> Scores | CoarseScores:
    """Scores of the model as it is on `test` or `validation`; each rank sees its part of the split and scores the whole."""
    loader, ranks = getattr(run, name), run.ranks
    ranks.copy_from_first(run.result.buffers())
    count = len(loader.split)  # what comes after are repetitions
    if only_coarse(len(run.classes)):
        losses, correct = measure_batches(run.result, until_stopped(loader.epoch(0)), run.device, run.precision)
        return coarse_score(ranks.concatenated(losses)[:count], ranks.concatenated(correct)[:count])
    logits, labels = collect_logits(
        run.result, until_stopped(loader.epoch(0)), run.device, run.precision, run.config.tta
    )
    return score(ranks.concatenated(logits)[:count], ranks.concatenated(labels)[:count], run.classes)


def note_best(run: TrainState, record: dict[str, Any]) -> bool:
    """Keeps the validation accuracy in `run.progress` where it is the best so far, and says so. One that is no number never is."""
    accuracy = record.get("val_accuracy")
    if run.trial or accuracy is None or not math.isfinite(accuracy) or not math.isfinite(record["val_loss"]):
        return False
    if run.progress.best is not None and accuracy <= run.progress.best:
        return False
    run.progress.best = accuracy
    return True


def summarise(
    run: TrainState, folder: RunFolder, scores: Scores | CoarseScores | None, until_stopped: UntilStopped = iter
) -> dict[str, Any]:
    """Writes summary.json: the test scores of `best` where a validation split chose it, else of the last epoch.

    The validation images also calibrate `best`. Of a trial: the scores of the last epoch on the validation split, under that name.

    Args:
        scores: of the last epoch, where it has been measured.

    Returns:
        what summary.json holds. The model has the weights of `best` then, where there is one.
    """
    split = "validation" if run.trial else "test"
    calibration: Calibration | None = None
    reason = "it is a trial" if run.trial else "no images were held out"
    if run.validation is not None and not run.trial:
        reason = "no epoch was the best on the held-out images"
    chosen = run.ranks.of_first(lambda: existing(folder.best) or existing(folder.last))
    if chosen is not None and chosen == existing(folder.best):
        restore_best(run, chosen)
        calibration, reason = calibrate_best(run, chosen, until_stopped)
        scores = None
    if scores is None:
        scores = evaluate_on(run, split, until_stopped)
    summary = {
        **facts_of(run, folder.path, chosen),
        "calibration": {**vars(calibration)} if calibration else None,
        "not_calibrated": reason,
        "tta": kept_views(run).get("views", 1) > 1,
        **kept_views(run),
        split: scores.to_dict(),
    }
    if run.ranks.first:
        folder.write_summary(summary)
    return summary


def facts_of(run: TrainState, path: Path, chosen: Path | None) -> dict[str, Any]:
    """The facts of a run at `path` that its summary has beside the scores, which are those of the checkpoint `chosen`."""
    return {
        "run": str(path),
        "checkpoint": str(chosen),
        "arch": run.config.arch,
        "loss": run.config.loss,
        "dataset": run.config.dataset,
        "data_digest": run.data.digest,
        "source_digest": run.data.source,
        "shaping": shaping_options(run.config),
        "seed": run.config.seed,
        "parameters": run.parameters,
        "epochs": run.progress.epoch,
        "seconds": round(sum(record["seconds"] for record in run.progress.history), 1),
        "device": str(run.device),
        "ranks": run.ranks.world,
        "precision": run.precision,
        "backend": run.backend,
    }


def restore_best(run: TrainState, path: Path) -> None:
    """The weights of `best` at `path` become those of `run.result`, on every rank. Raises Refused on each where it is damaged."""
    if run.model.apart:
        with run.ranks.together():
            restore_weights(path, run.result)
        return

    def restore() -> None:
        best, _ = load_model(path, of_features=True)
        run.result.load_state_dict(best.state_dict())

    run.ranks.of_first(restore)
    run.ranks.copy_from_first(run.result.state_dict().values())


def calibrate_best(run: TrainState, path: Path, until_stopped: UntilStopped = iter) -> tuple[Calibration | None, str]:
    """Fits a calibration of `best` at `path`, whose weights the model has, on the validation images, and writes it there.

    Returns it with ""; or None with the reason.
    """
    if only_coarse(len(run.classes)) or run.validation is None:
        return None, "of so many classes no logits are kept"
    ranks, count = run.ranks, len(run.validation.split)
    batches = until_stopped(run.validation.epoch(0))
    logits, labels = collect_logits(run.result, batches, run.device, "fp32")  # as predict and export
    logits, labels = ranks.concatenated(logits)[:count], ranks.concatenated(labels)[:count]
    try:
        found = fit_calibration(logits, labels, "validation images of the training")
    except Refused as error:
        return None, error.why
    if ranks.first or run.model.apart:  # another machine may not have the file
        save_model(path, run.result, replace(read_info(path), calibration=found), ranks)
    return found, ""
