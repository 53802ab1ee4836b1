#!/usr/bin/env python3
"""Seconds of training that the fast recipes take to their accuracies, several seeds; compile and warm-up stated apart.

    python scripts/study/time_to_accuracy.py --data-dir DIR [--only NAME ...] [--seeds 3] [--json FILE]

speed: `--recipe speed --tta --compile`, for 92% in under 3 s on one H200 (CIFAR-10's exact images: 94%).
resnet18: `--arch resnet18 --recipe quick --epochs 24`, for the report's 90.8% in under 30 s there.
speed-graph, resnet18-graph: the same with `--cuda-graph`, on a GPU.

A run first trains one epoch, which compiles the step, chooses algorithms and fills the allocator, and then goes back to
the weights that it began with. Seconds are those of the epochs' steps with their data and augmentation, the device waited
for: without the warm-up, the checkpoints and the one evaluation at the end. --dataset digits is for a first try; --rehearse
shows in seconds on any machine that the command runs: one epoch of a few random pixels, without compiling.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.errors import CifarnetError, Failed, Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset, load, pixels_of
from cifarnet.engine.loop import Watcher, run_epoch, train
from cifarnet.engine.recipes import recipe_values
from cifarnet.engine.resume import RunProgress
from cifarnet.engine.setup import build_run
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.random_images import random_images

RUNS = {
    "speed": recipe_values("speed") | {"tta": True, "compile": True},
    "resnet18": recipe_values("quick") | {"arch": "resnet18", "epochs": 24},
}
RUNS |= {f"{name}-graph": values | {"cuda_graph": True} for name, values in RUNS.items()}


def main() -> None:
    """Runs what was asked for, seed by seed, and prints a line for each and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--only", nargs="*", choices=tuple(RUNS), default=("speed", "resnet18"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: {options.seeds} is too few; at least 1")
    data = random_images(32, 16) if options.rehearse else load(options.dataset, options.data_dir)
    small = {"epochs": 1, "batch_size": 16, "compile": False, "cuda_graph": False} if options.rehearse else {}
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    with StopRequest() as stop:
        for name in options.only:
            config = TrainConfig.from_dict(RUNS[name] | {"dataset": options.dataset} | small)
            config = dataclasses.replace(config, eval_every=config.epochs)
            try:
                results.append(measure(name, config, data, options.seeds, stop))
            except Failed as error:  # one that cannot be recorded, say: the others go on
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
            if options.json:  # what is measured is kept, whatever becomes of the next
                options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(bool(failed))


def measure(name: str, config: TrainConfig, data: Dataset, seeds: int, stop: StopRequest) -> dict[str, Any]:
    """Runs one configuration with several seeds."""
    rows = []
    for seed in range(config.seed, config.seed + seeds):
        rows.append(train_once(dataclasses.replace(config, seed=seed), data, stop))
        print("{}: seed {seed}, warm-up {warm_up:.1f} s, training {seconds:.2f} s, {percent:.2f}%".format(
            name, **rows[-1], percent=100 * rows[-1]["accuracy"]
        ), flush=True)  # fmt: skip
    accuracy, seconds = (statistics.mean(row[key] for row in rows) for key in ("accuracy", "seconds"))
    print(
        f"{name}: {100 * accuracy:.2f}% in {seconds:.2f} s of training, means of {seeds} on {rows[0]['device']}, data: {rows[0]['data']}"
    )
    return {"name": name, "accuracy": accuracy, "seconds": seconds, "runs": rows, "config": config.to_dict()}


def train_once(config: TrainConfig, data: Dataset, stop: StopRequest) -> dict[str, Any]:
    """Warms a run up, takes it back to its start, and trains it.

    Raises:
        Interrupted: a signal came.
    """
    torch.compiler.reset()
    started = time.perf_counter()
    run = build_run(config, data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        start = [(tensor, tensor.clone()) for model in run.models.values() for tensor in model.state_dict().values()]
        run_epoch(run, folder, Watcher(), stop)  # it waits for the device
        rewind(run, start)
        warm_up = time.perf_counter() - started
        summary = train(run, folder, Watcher(), stop)
    return {
        "seed": config.seed,
        "warm_up": warm_up,
        "seconds": sum(record["seconds"] for record in run.progress.history),  # the summary's are rounded to a tenth
        "accuracy": summary["test"]["accuracy"],
        "loss": summary["test"]["loss"],
        "epochs": config.epochs,
        "precision": run.precision,
        "device": device_name(run.device),
        "data": pixels_of(data),
        "torch": torch.__version__,
    }


@torch.no_grad()
def rewind(run: TrainState, start: list[tuple[Tensor, Tensor]]) -> None:
    """Takes the run back to its start in place, so that a step that is recorded still holds. start: tensors and what they were."""
    for tensor, was in start:
        tensor.copy_(was)
    for state in run.optimizer.state.values():
        for value in state.values():
            value.zero_()  # what a first step begins with
    run.sums.values.zero_()
    run.progress = RunProgress()
    run.model.head.seek(0)


if __name__ == "__main__":
    try:
        main()
    except Interrupted as error:  # its advice is for a run that can go on
        print(f"error: {error.why}", file=sys.stderr)
        sys.exit(error.exit_code)
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
