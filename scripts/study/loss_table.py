#!/usr/bin/env python3
"""Each loss on CIFAR-10 for a few epochs of the baseline network: does it learn, and what does a step cost.

    python scripts/study/loss_table.py --data-dir DIR [--epochs 3] [--json docs/results/losses.json]
    python scripts/study/loss_table.py --times     # writes the time of a step into the file, all losses in turn
    python scripts/study/loss_table.py --markdown  # prints the file as docs/losses.md has it

A run for each loss with `--scale auto --margin auto` where it takes them, then those with the authors' constants, and two with
simplex prototypes; all else is as `cifarnet train --arch baseline` has it. One seed and few epochs: a sanity run, no ranking.
What stands in the file already is not trained again, so that a table that was stopped goes on.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.errors import Diverged
from cifarnet.core.percent import percent
from cifarnet.data import Dataset, load
from cifarnet.engine.fit import fit
from cifarnet.engine.setup import build_run
from cifarnet.engine.step import train_step
from cifarnet.losses.more_rows import MORE_LOSSES
from cifarnet.losses.registry import LOSSES
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.random_images import random_images

SEED, BATCH, ROUNDS = 17, 256, 25


def main() -> None:
    """Trains what the file lacks, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("docs/results/losses.json"))
    options = parser.parse_args()
    table = json.loads(options.json.read_text()) if options.json.exists() else {"runs": []}
    table |= {
        "dataset": options.dataset,
        "arch": "baseline",
        "recipe": "report",
        "epochs": options.epochs,
        "seed": SEED,
    }
    table["device"] = device_name(torch.device("cpu"))
    if options.times:
        table["milliseconds_a_step"] = step_times()
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    if options.markdown:
        print(markdown(table))
    if options.times or options.markdown:
        return
    done = {(run["loss"], run["constants"], run["prototypes"]) for run in table["runs"]}
    data = load(options.dataset, options.data_dir)
    for loss, constants, prototypes in wanted():
        if (loss, constants, prototypes) in done:
            continue
        given = fitted(loss) if constants == "auto" else {}
        config = TrainConfig(
            arch="baseline", loss=loss, loss_options=given, prototypes=prototypes, epochs=options.epochs, seed=SEED,
            dataset=options.dataset, data_dir=options.data_dir,
        )  # fmt: skip
        run = {"loss": loss, "constants": constants, "prototypes": prototypes, **trained(config, data)}
        table["runs"].append(run)
        options.json.write_text(json.dumps(table, indent=1) + "\n")
        print(json.dumps(run), flush=True)


def fitted(loss: str) -> dict[str, Any]:
    """scale and margin "auto", of those that the loss fits to the classes."""
    return {name: "auto" for name, constant in LOSSES[loss].constants.items() if constant.auto}


def wanted() -> list[tuple[str, str, str]]:
    """(loss, constants, prototypes) of each run, in the order in which they are trained."""
    newest_first = list(MORE_LOSSES) + [loss for loss in LOSSES if loss not in MORE_LOSSES]
    first = [(loss, "auto" if fitted(loss) else "authors", "learned") for loss in newest_first]
    simplex = [("ce", "authors", "simplex"), ("arcface", "auto", "simplex")]
    authors = [(loss, "authors", "learned") for loss in newest_first if fitted(loss) and loss != "sphereface"]
    return first + simplex + authors  # sphereface's "auto" is the authors' m


def trained(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """Accuracies in [0, 1], or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        try:
            path = fit(config, folder + "/run", dataset=data)
        except Diverged as error:
            return {"ended": str(error)}
        epochs = [json.loads(line) for line in RunFolder(path).metrics.read_text().splitlines()]
        summary = json.loads((path / "summary.json").read_text())
        return {
            "test_accuracy": summary["test"]["accuracy"],
            "train_accuracy": [epoch["train_accuracy"] for epoch in epochs],
            "precision": summary["precision"],
            "backend": summary["backend"],
            "seconds_in_all": round(time.time() - started),
        }


def step_times() -> dict[str, float]:
    """Milliseconds of a training step of each loss, forward, backward and update: the least of ROUNDS, all in turn."""
    data = random_images(BATCH, BATCH)
    least = {}
    runs = {}
    for loss, constants, prototypes in wanted():
        if constants == "auto" or not fitted(loss):
            config = TrainConfig(
                arch="baseline", loss=loss, loss_options=fitted(loss), prototypes=prototypes, batch_size=BATCH
            )
            runs[f"{loss}, {prototypes}"] = build_run(config, data)
    images, labels = next(iter(next(iter(runs.values())).train.epoch(0)))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            train_step(run, images, labels)
            run.progress.step = 0
            least[name] = min(least.get(name, math.inf), time.perf_counter() - started)
    return {name: round(1000 * seconds, 1) for name, seconds in least.items()}


def markdown(table: dict[str, Any]) -> str:
    """Test accuracies and times, a line for each loss."""
    found = {(run["loss"], run["constants"], run["prototypes"]): run for run in table["runs"]}

    def accuracy(*key: str) -> str:
        run = found.get(key)
        return "–" if run is None else run["ended"] if "ended" in run else percent(run["test_accuracy"], 1, "")

    lines = ["| loss | `auto`, % | the authors' constants, % | ms a step |", "|---|---|---|---|"]
    for loss, constants, prototypes in wanted():
        if constants == "auto" or not fitted(loss):
            name = f"`{loss}`" + (f", {prototypes}" if prototypes != "learned" else "")
            auto = accuracy(loss, "auto", prototypes) if constants == "auto" else "no `auto`"
            auto = "as the authors'" if loss == "sphereface" else auto
            theirs = accuracy(loss, "auto" if loss == "sphereface" else "authors", prototypes)
            time_ = table.get("milliseconds_a_step", {}).get(f"{loss}, {prototypes}", "–")
            lines.append(f"| {name} | {auto} | {theirs} | {time_} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
