#!/usr/bin/env python3
"""The most memory that steps of `cifarnet train` take with many classes, training accuracy included, in sizes of W.

    python scripts/bench/memory.py [--classes 1000000] [--dim 128] [--loss arcface] [--backend auto] [--json FILE]

Counted is the peak of --steps steps above a process that has loaded everything and holds no tensors: W, its gradient, AdamW's
two moments, the class names, and what a step takes beside them. Resident memory, as Linux tells it.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import torch
from head_timing import peak

from cifarnet.core.config import TrainConfig
from cifarnet.core.signals import StopRequest
from cifarnet.data import load, load_options
from cifarnet.engine.loop import Watcher, run_epoch
from cifarnet.engine.setup import build_run
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.run_folder import RunFolder


class EnoughSteps(Exception):
    """Ends the epoch early."""


class Counting(Watcher):
    """Stops after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, run: TrainState) -> None:
        """Raises EnoughSteps after the last one."""
        if run.progress.step >= min(self.steps, run.steps):
            raise EnoughSteps


def train_steps(config: TrainConfig, steps: int) -> float:
    """Seconds of `steps` steps in the loop of `cifarnet train`."""
    run = build_run(config, load(config.dataset, **load_options(config)))
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_epoch(run, RunFolder(Path(folder)), Counting(steps), StopRequest())
    except EnoughSteps:
        pass
    return time.perf_counter() - start


def main() -> None:
    """Prints a line and, with --json, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--loss", default="arcface")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    few = TrainConfig(
        dataset="synthetic-identities", arch="identity", augment="none", loss=options.loss, classes=1000,
        dim=options.dim, batch_size=options.batch_size, backend=options.backend, optimizer="adamw",
    )  # fmt: skip
    train_steps(few, 3)
    many = dataclasses.replace(few, classes=options.classes)
    seconds = 0.0

    def train_many() -> None:
        nonlocal seconds
        seconds = train_steps(many, options.steps)

    most, size = peak(train_many, "cpu"), options.classes * options.dim * 4 / 1e6
    result = {"classes": options.classes, "dim": options.dim, "loss": options.loss, "backend": options.backend}
    result |= {
        "batch_size": options.batch_size,
        "steps": options.steps,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
    }
    result |= {"weight_mb": size, "peak_mb": most, "peak_in_weights": most / size, "torch": torch.__version__}
    print(
        f"{options.classes:,} classes, {options.loss}: {most:,.0f} MB, {most / size:.2f} times W; {seconds / options.steps:.2f} s a step"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
