#!/usr/bin/env python3
"""How long commands take from the key to their end, each in a process of its own: what a start costs.

    python scripts/bench/start.py [--rounds 7] [--json FILE]

All commands in turn, round after round; medians, since other work on the machine only adds. `import torch` alone stands beside
them: a command that computes is no faster than that. A first round, which fills the disk cache, is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from head_timing import processor

ROOT = Path(__file__).parents[2]

IMAGE = ROOT / "docs" / "gallery" / "grid.png"
COMMANDS = (
    "import torch",
    "cifarnet --help",
    "cifarnet predict IMAGE",
    "cifarnet predict IMAGE --run packaged:baseline",
    "cifarnet train --dataset digits --arch baseline --epochs 1",
)


def seconds(command: str) -> float:
    """Of one run, in an empty folder, where `predict` finds no run and takes the packaged model."""
    arguments = (
        ["-c", command] if command.startswith("import") else ["-m", *command.replace("IMAGE", str(IMAGE)).split()]
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for number in range(options.rounds + 1):
        for command in COMMANDS:
            spent = seconds(command)
            if number:
                taken[command].append(round(spent, 3))
    for command, values in taken.items():
        print(f"{statistics.median(values):6.2f} s  {command}")
    if options.json:
        facts = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
        options.json.write_text(json.dumps({**facts, "seconds": taken}, indent=2) + "\n")


if __name__ == "__main__":
    main()
