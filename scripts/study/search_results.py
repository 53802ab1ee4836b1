#!/usr/bin/env python3
"""What runs with held-out images say of a recipe, as a JSON list on stdout: python scripts/study/search_results.py RUN… --data-dir DIR

A row a run: its command, the accuracy on the training images as its last epoch augmented them, and the accuracy of its last
epoch on the images that it held out, of one view and of six (--tta). The test images are not looked at. The processor is
that of this machine: run it where the runs were trained.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.errors import CifarnetError
from cifarnet.engine.evaluate import collect_logits, open_for_evaluation
from cifarnet.engine.metrics import score
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.head_timing import processor

LOCAL = ("--out", "--data-dir")  # options that say where things lie, not what is trained


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    print(json.dumps([row_of(run, options.data_dir) for run in options.runs], indent=1))


def row_of(run: Path, data_dir: str | None) -> dict[str, Any]:
    """One run's row."""
    folder = RunFolder(run)
    opened = open_for_evaluation(folder.last, split="val", data_dir=data_dir)
    found = {}
    for name, tta in (("held_out", False), ("held_out_tta", True)):
        logits, labels = collect_logits(opened.model, opened.loader.epoch(0), opened.device, opened.precision, tta)
        found[name] = round(score(logits, labels, opened.info.classes).accuracy, 5)
    history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    config = opened.info.config
    return {
        "command": without_places(folder.read_about()["command"]),
        "epochs": len(history),
        "seed": config.seed,
        "train_accuracy": round(history[-1]["train_accuracy"], 5),
        **found,
        "images_held_out": len(labels),
        "seconds": round(sum(record["seconds"] for record in history)),
        "processor": processor(),
        "precision": config.precision,
    }


def without_places(command: str) -> str:
    """The command line without the options that say where things lie."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in LOCAL:
            next(words)
        elif word.split("=")[0] not in LOCAL:
            kept.append(word)
    return shlex.join(kept)


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
