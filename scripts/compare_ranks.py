#!/usr/bin/env python3
"""The same training with one process and with several (gloo, CPU): losses side by side.

    python scripts/compare_ranks.py [--data-dir DIR] [--ranks 2] [--out docs/results/distributed.json]

digits for three epochs; with --data-dir also one epoch of CIFAR-10 with the baseline recipe. Beside them stands what
rounding alone does: one process again, with another memory layout (--no-channels-last), which sums in another order.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from cifarnet.runs import RunFolder, read_metrics

DIGITS = "--dataset digits --arch baseline --epochs 3 --batch-size 128 --augment basic --precision fp32 --device cpu"
CIFAR = "--recipe baseline --batch-size 256 --epochs 1 --precision fp32 --device cpu"
METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def train(arguments: list[str], ranks: int) -> list[dict[str, Any]]:
    """The records of metrics.jsonl of a run with so many ranks."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launch, "-m", "cifarnet", "train", *arguments, "-q", "--out", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return read_metrics(RunFolder(Path(folder)).metrics)[0]


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    """The largest relative difference of a loss, over all epochs."""
    pairs = [(x[key], y[key]) for x, y in zip(one, other, strict=True) for key in ("train_loss", "test_loss")]
    return max(abs(y - x) / abs(x) for x, y in pairs)


def compare(name: str, arguments: list[str], ranks: int) -> dict[str, Any]:
    """The runs, epoch by epoch, and how far the others are from the first."""
    runs = {
        "1 rank": train(arguments, 1),
        f"{ranks} ranks": train(arguments, ranks),
        "1 rank, other order of sums": train([*arguments, "--no-channels-last"], 1),
    }
    one, many, reordered = runs.values()
    result = {"ranks_differ_by": difference(one, many), "rounding_differs_by": difference(one, reordered)}
    for alone, together in zip(one, many, strict=True):
        losses = f"train {alone['train_loss']:.7f} {together['train_loss']:.7f}  test {alone['test_loss']:.7f} {together['test_loss']:.7f}"
        print(f"{name:<28} epoch {alone['epoch']}  {losses}", flush=True)
    print(f"{name:<28} " + ", ".join(f"{key} {value:.1e}" for key, value in result.items()), flush=True)
    epochs = {run: [{key: record[key] for key in METRICS} for record in records] for run, records in runs.items()}
    return {"arguments": " ".join(arguments), **result, "epochs": epochs}


def main() -> None:
    """Runs all pairs and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--data-note", default="CIFAR-10")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/distributed.json"))
    options = parser.parse_args()
    runs = {}
    for loss, optimizer in (("ce", "sgd"), ("ce", "adamw"), ("adaface", "adamw"), ("curricularface", "adamw")):
        name = f"digits, {loss}, {optimizer}"
        choice = ["--loss", loss, "--optimizer", optimizer, "--lr", "0.1" if optimizer == "sgd" else "0.001"]
        runs[name] = compare(name, [*DIGITS.split(), *choice], options.ranks)
    if options.data_dir:
        name = f"{options.data_note}, ce, adam"
        result = compare(name, [*CIFAR.split(), "--data-dir", options.data_dir], options.ranks)
        result["arguments"] = CIFAR
        runs[name] = result
    document = {
        "what": "gloo on one CPU, one thread a rank",
        "torch": torch.__version__,
        "ranks": options.ranks,
        "runs": runs,
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
