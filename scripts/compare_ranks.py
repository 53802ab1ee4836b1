#!/usr/bin/env python3
"""The same training with one process and with several (gloo, CPU): losses side by side.

    python scripts/compare_ranks.py [--data-dir DIR] [--ranks 2] [--out docs/results/distributed.json]

digits for three epochs with three losses; with --data-dir also one epoch of CIFAR-10 with the baseline recipe.
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


def compare(name: str, arguments: list[str], ranks: int) -> dict[str, Any]:
    """Both runs, epoch by epoch, and the largest relative difference of a loss."""
    one, many = train(arguments, 1), train(arguments, ranks)
    epochs, largest = [], 0.0
    for alone, together in zip(one, many, strict=True):
        epochs.append({"1": {key: alone[key] for key in METRICS}, str(ranks): {key: together[key] for key in METRICS}})
        for key in ("train_loss", "test_loss"):
            largest = max(largest, abs(together[key] - alone[key]) / abs(alone[key]))
        losses = f"train loss {alone['train_loss']:.7f} {together['train_loss']:.7f}  test loss {alone['test_loss']:.7f} {together['test_loss']:.7f}"
        print(f"{name:<24} epoch {alone['epoch']}  {losses}", flush=True)
    return {"arguments": " ".join(arguments), "epochs": epochs, "largest_relative_difference": largest}


def main() -> None:
    """Runs all pairs and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--data-note", default="CIFAR-10")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/distributed.json"))
    options = parser.parse_args()
    runs = {
        f"digits, {loss}": compare(f"digits, {loss}", [*DIGITS.split(), "--loss", loss], options.ranks)
        for loss in ("ce", "adaface", "curricularface")
    }
    if options.data_dir:
        name = f"{options.data_note}, ce"
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
    print(
        f"largest relative difference of a loss: {max(run['largest_relative_difference'] for run in runs.values()):.1e}"
    )


if __name__ == "__main__":
    main()
