#!/usr/bin/env python3
"""Each loss on CIFAR-10 for a few epochs of the baseline network: does it learn, and what does a step cost.

    python scripts/study/loss_table.py --data-dir DIR [--epochs 3] [--json docs/results/losses.json]

A run for each loss with `--scale auto --margin auto` where it takes them, then those with the authors' constants, and two with
simplex prototypes; all else is as `cifarnet train --arch baseline` has it. One seed and few epochs: a sanity run, no ranking.
What stands in the file already is not trained again, so that a table that was stopped goes on.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.errors import CifarnetError
from cifarnet.data import Dataset, load
from cifarnet.engine.fit import fit
from cifarnet.losses.more_rows import MORE_LOSSES
from cifarnet.losses.registry import LOSSES
from cifarnet.storage.run_folder import RunFolder

SEED = 17


def main() -> None:
    """Trains what the file lacks, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--epochs", type=int, default=3)
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
    table |= {"device": f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} thread(s)"}
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
    """Accuracies in [0, 1], milliseconds a step (of the fastest epoch), or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        try:
            path = fit(config, folder + "/run", dataset=data)
        except CifarnetError as error:
            return {"ended": str(error)}
        epochs = [json.loads(line) for line in RunFolder(path).metrics.read_text().splitlines()]
        summary = json.loads((path / "summary.json").read_text())
        return {
            "test_accuracy": summary["test"]["accuracy"],
            "train_accuracy": [epoch["train_accuracy"] for epoch in epochs],
            "milliseconds_a_step": round(
                1000 * config.batch_size / max(epoch["images_per_second"] for epoch in epochs), 1
            ),
            "precision": summary["precision"],
            "backend": summary["backend"],
            "seconds_in_all": round(time.time() - started),
        }


if __name__ == "__main__":
    main()
