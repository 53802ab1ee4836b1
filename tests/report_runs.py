"""Finished runs for tests of reports, made up."""

import json
from pathlib import Path

import numpy as np

from cifarnet.analysis.report.results import Result
from cifarnet.core.config import TrainConfig


def summary(accuracy, classes=10):
    scores = {
        name: accuracy for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1", "auroc", "auprc", "ece")
    }
    rows = [{"name": f"c{index}"} for index in range(classes)]
    scores |= {"classes": rows, "confusion": np.eye(classes, dtype=int).tolist(), "images": 100}
    return {"epochs": 12, "seconds": 3.0, "device": "cpu", "test": scores}


def result(name, accuracy, **options):
    return Result(Path(name), TrainConfig(arch="baseline", **options), summary(accuracy), [], [])


def write_run(path, **options):
    """A run folder with what a report reads of it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(TrainConfig(arch="baseline", **options).to_dict()))
    (path / "summary.json").write_text(json.dumps(summary(0.5)))
    return path
