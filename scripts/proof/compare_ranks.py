#!/usr/bin/env python3
"""The same training with one process and with two ranks (gloo, CPU): losses side by side.

    python scripts/proof/compare_ranks.py [--data-dir DIR] [--data-note TEXT] [--out docs/results/distributed.json]

digits for three epochs; with --data-dir also one epoch of CIFAR-10 with the baseline recipe. fp32 training amplifies a
difference in the last bit, so a third run tells rounding from error: one process that differentiates both halves of each
batch and adds, which is the arithmetic of two ranks. Its weights must be those of two ranks, bit for bit. (Not for losses
with a running state: two halves would move it twice.)
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
from safetensors.torch import load_file

from cifarnet.core.config import TrainConfig
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.setup import build_run
from cifarnet.engine.train_state import Forward
from cifarnet.losses import LOSSES
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder

DIGITS = "--dataset digits --arch baseline --epochs 3 --batch-size 128 --augment basic --precision fp32 --device cpu"
CIFAR = "--recipe baseline --batch-size 256 --epochs 1 --precision fp32 --device cpu"
METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def program(arguments: list[str], ranks: int, folder: Path) -> None:
    """Trains with so many ranks."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "cifarnet", "train", *arguments, "-q", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def in_halves(forward: Forward) -> Forward:
    """The step on both halves of a batch, and the mean loss of the whole."""

    def both(images, labels, mixture):  # type: ignore[no-untyped-def]
        parts = list(zip(images.tensor_split(2), labels.tensor_split(2), strict=True))
        results = [(len(y), *forward(x, y, mixture)) for x, y in parts]
        loss = sum(loss * (count / len(labels)) for count, loss, _ in results)
        return loss, sum(hits for _, _, hits in results)

    return both


def one_process_in_halves(config: TrainConfig, data_dir: str | None, folder: Path) -> None:
    """Trains in this process, with the arithmetic of two ranks."""
    run = build_run(config, load(config.dataset, data_dir))
    run.forward = in_halves(run.forward)
    folder.mkdir()
    with StopRequest() as stop:
        train(run, RunFolder(folder), Watcher(), stop)


def compare(name: str, arguments: list[str], data_dir: str | None) -> dict[str, Any]:
    """The runs, epoch by epoch."""
    data = ["--data-dir", data_dir] if data_dir else []
    with tempfile.TemporaryDirectory() as place:
        folders = {run: Path(place) / run for run in ("1 rank", "2 ranks", "1 rank in halves")}
        program([*arguments, *data], 1, folders["1 rank"])
        program([*arguments, *data], 2, folders["2 ranks"])
        config = RunFolder(folders["1 rank"]).read_config()
        if LOSSES[config.loss].state:
            del folders["1 rank in halves"]
        else:
            one_process_in_halves(config, data_dir, folders["1 rank in halves"])
        epochs = {run: read_metrics(RunFolder(folder).metrics)[0] for run, folder in folders.items()}
        weights = {run: load_file(folder / "last.safetensors") for run, folder in folders.items()}
    many, halves = weights["2 ranks"], weights.get("1 rank in halves")
    same = None if halves is None else all(torch.equal(many[key], halves[key]) for key in many)
    pairs = list(zip(epochs["1 rank"], epochs["2 ranks"], strict=True))
    largest = [max(abs(y[k] - x[k]) / abs(x[k]) for k in ("train_loss", "test_loss")) for x, y in pairs]
    for (x, y), apart in zip(pairs, largest, strict=True):
        losses = f"train {x['train_loss']:.7f} {y['train_loss']:.7f}  test {x['test_loss']:.7f} {y['test_loss']:.7f}"
        print(f"{name:<32} epoch {x['epoch']}  {losses}  {apart:.1e}", flush=True)
    print(f"{name:<32} weights of 2 ranks are those of one process in halves: {same}", flush=True)
    return {
        "arguments": " ".join(arguments),
        "relative_difference_of_losses": largest,
        "weights_equal_one_process_in_halves": same,
        "epochs": {run: [{key: record[key] for key in METRICS} for record in rows] for run, rows in epochs.items()},
    }


def main() -> None:
    """Runs all of them and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--data-note", default="CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("docs/results/distributed.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {}
    if options.data_dir:
        name = f"{options.data_note}, ce, adam"
        runs[name] = compare(name, CIFAR.split(), options.data_dir)
        name = f"{options.data_note}, ce, sgd 1e-3"  # steps too small to amplify much
        runs[name] = compare(name, [*CIFAR.split(), "--optimizer", "sgd", "--lr", "1e-3"], options.data_dir)
    for loss, optimizer in (("ce", "sgd"), ("ce", "adamw"), ("adaface", "adamw"), ("curricularface", "adamw")):
        name = f"digits, {loss}, {optimizer}"
        choice = f"{DIGITS} --loss {loss} --optimizer {optimizer} --lr {0.1 if optimizer == 'sgd' else 0.001}"
        runs[name] = compare(name, choice.split(), None)
    document = {"what": "gloo on one CPU, one thread a rank", "torch": torch.__version__, "runs": runs}
    options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
