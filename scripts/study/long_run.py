"""Trains 200 epochs on digits and watches the process: memory and open files must not grow after the first ten.

    python scripts/study/long_run.py --json docs/results/long_run.json

Measured after each epoch: resident memory, and open file descriptors. Memory is flat if every epoch from the eleventh on
lies within 2% of the eleventh's. Takes about 3 minutes on one core.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher
from cifarnet.engine.train_state import TrainState

WARM = 10  # epochs in which allocators and caches may still grow
TOLERANCE = 0.02


class Meter(Watcher):
    """Notes memory (bytes) and open files of this process after each epoch."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.files: list[int] = []

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """After each epoch."""
        self.memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
        self.files.append(len(os.listdir("/proc/self/fd")))


def measure(epochs: int) -> dict[str, Any]:
    """Trains, and returns the figures."""
    config = TrainConfig(
        arch="baseline", loss="adaface", dataset="digits", epochs=epochs, batch_size=128, augment="basic", ema=0.99,
        val_fraction=0.1, checkpoint_every=5, precision="fp32", device="cpu", log_grad=True,
    )  # fmt: skip
    meter, started = Meter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # whose runs/latest it becomes
        fit(config, "run", watcher=meter)
    settled = meter.memory[WARM:]
    return {
        "epochs": epochs, "seconds": round(time.monotonic() - started, 1), "memory_mb": round(settled[0] / 2**20, 1),
        "lowest": round(min(settled) / settled[0] - 1, 4), "highest": round(max(settled) / settled[0] - 1, 4),
        "files_first": meter.files[WARM], "files_last": meter.files[-1],
    }  # fmt: skip


def main() -> int:
    """Prints and writes the figures; returns 1 where memory or open files grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.epochs)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    flat = max(-found["lowest"], found["highest"]) <= TOLERANCE
    return 0 if flat and found["files_first"] == found["files_last"] else 1


if __name__ == "__main__":
    sys.exit(main())
