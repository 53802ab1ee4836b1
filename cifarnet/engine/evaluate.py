"""Measures a session's model: after an epoch, and for the summary at the end."""

import math
from typing import Any

from cifarnet.engine.metrics import FewScores, Scores, collect_logits, few_scores, measure_many, measures_few, score
from cifarnet.engine.train_state import Session
from cifarnet.models.checkpoint import load_model, restore_weights
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.sharded_file import existing


def evaluate_epoch(session: Session, record: dict[str, Any]) -> Scores | FewScores:
    """Adds loss and accuracy on the test split (and the validation split) to `record`; returns the test scores."""
    if session.validation is not None:
        held_out = evaluate_on(session, "validation")
        record |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
    scores = evaluate_on(session, "test")
    record |= {"test_loss": scores.loss, "test_accuracy": scores.accuracy}
    return scores


def evaluate_on(session: Session, name: str) -> Scores | FewScores:
    """Scores of the model as it is on `test` or `validation`; each rank sees its part of the split and scores the whole."""
    loader, ranks = getattr(session, name), session.ranks
    ranks.copy_from_first(session.result.buffers())
    flip = session.config.tta
    count = len(loader.split)  # what comes after are repetitions
    if measures_few(session.config, len(session.classes)):
        losses, hits = measure_many(session.result, loader.epoch(0), session.device, session.precision)
        return few_scores(ranks.concatenated(losses)[:count], ranks.concatenated(hits)[:count])
    logits, labels = collect_logits(session.result, loader.epoch(0), session.device, session.precision, flip)
    return score(ranks.concatenated(logits)[:count], ranks.concatenated(labels)[:count], session.classes)


def is_best(session: Session, record: dict[str, Any]) -> bool:
    """Whether the validation accuracy is the best so far; a metric that is not a number never is."""
    accuracy = record.get("val_accuracy")
    if accuracy is None or not math.isfinite(accuracy) or not math.isfinite(record["val_loss"]):
        return False
    if session.progress.best is not None and accuracy <= session.progress.best:
        return False
    session.progress.best = accuracy
    return True


def summarise(session: Session, folder: RunFolder, scores: Scores | FewScores | None) -> dict[str, Any]:
    """Writes summary.json: the test scores of `best` where a validation split chose it, else of the last epoch."""
    ranks = session.ranks
    chosen = ranks.of_first(lambda: existing(folder.best) or existing(folder.last))
    if chosen is not None and chosen == existing(folder.best):
        if session.sharded:
            restore_weights(chosen, session.result)
        elif ranks.first:
            best, _ = load_model(folder.best, of_features=True)
            session.result.load_state_dict(best.state_dict())
        if not session.sharded:
            ranks.copy_from_first(session.result.state_dict().values())
        scores = None
    if scores is None:
        scores = evaluate_on(session, "test")
    summary = {
        "run": str(folder.path),
        "checkpoint": str(chosen),
        "arch": session.config.arch,
        "loss": session.config.loss,
        "dataset": session.config.dataset,
        "parameters": session.parameters,
        "epochs": session.progress.epoch,
        "seconds": round(sum(record["seconds"] for record in session.progress.history), 1),
        "device": str(session.device),
        "ranks": ranks.world,
        "precision": session.precision,
        "backend": session.backend,
        "test": scores.to_dict(),
    }
    if ranks.first:
        folder.write_summary(summary)
    return summary
