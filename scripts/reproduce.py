#!/usr/bin/env python3
"""Runs the report's tables and writes published, ours and the difference side by side.

    python scripts/reproduce.py --data-dir DIR --out DIR [--budget cpu|gpu] [--seeds 3] [--only NAME ...]
                                [--max-minutes M] [--data-note "CIFAR-10, JPEG copy"] [--list]

One run folder a cell and seed under OUT/runs, one JSON a run under OUT/results, the table in OUT/tables.md. Called again it
goes on where it stopped, in the middle of an epoch too; --max-minutes stops it in good order.
"""

import argparse
import json
import statistics
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarnet.config import TrainConfig
from cifarnet.data import Dataset, load
from cifarnet.devices import device_name
from cifarnet.errors import Interrupted
from cifarnet.recipes import recipe_values
from cifarnet.report.published import published_accuracy
from cifarnet.runs import RunFolder
from cifarnet.session import build_session
from cifarnet.signals import StopRequest
from cifarnet.train import Watcher, train

MARGINS = ("arcface", "curricularface", "adaface")
OUT_OF_TIME = 15  # the signal number that a spent budget counts as


@dataclass(frozen=True)
class Cell:
    """A cell of a table of the report: its name, the table, and the configuration that fills it."""

    name: str
    table: str
    config: TrainConfig


def recipe(name: str, loss: str = "ce", **changes: Any) -> TrainConfig:
    """The configuration of a recipe with some values replaced."""
    return TrainConfig.from_dict(recipe_values(name, loss) | {"loss": loss} | changes)


def cells(budget: str) -> list[Cell]:
    """All cells; the CPU's budget leaves out the deeper nets and most sweeps, and trains the rest for fewer epochs."""
    gpu = budget == "gpu"
    epochs = 60 if gpu else 12
    found = [Cell("baseline", "3.2", recipe("baseline")), Cell("baseline-plus", "A.1", recipe("baseline-plus"))]
    for arch in ("resnet18", "resnet50") if gpu else ("resnet18",):
        for loss in ("ce", *MARGINS):
            found.append(Cell(f"{arch}-{loss}", "3.2", recipe("modern", loss, arch=arch, epochs=epochs)))
    found.append(
        Cell("resnet18-arcface-frozen", "frozen head", recipe("modern", "arcface", epochs=epochs, frozen_head=True))
    )
    found.append(Cell("resnet18-report", "report's protocol", recipe("report", epochs=epochs)))
    if gpu:
        stems = [
            Cell(f"resnet18-{stem}", "3.8", recipe("modern", epochs=epochs, stem=stem))
            for stem in ("cifar", "imagenet")
        ]
        plain = [Cell("plainnet50", "A.3", recipe("modern", arch="plainnet50", epochs=epochs, log_grad=True))]
        sweep = [
            Cell(
                f"resnet18-arcface-s{s}-m{m}",
                "s and m",
                recipe("modern", "arcface", epochs=20, scale=float(s), margin=m),
            )
            for s in (8, 16, 32, 64)
            for m in (0.1, 0.3, 0.5)
        ]
        found += stems + plain + sweep
    return found


def run_cell(cell: Cell, seed: int, data: Dataset, out: Path, stop: StopRequest) -> dict[str, Any]:
    """Trains a cell to its end, from where it stands, and returns its result.

    Raises:
        Interrupted: the time is spent, or a signal came; the state is saved.
    """
    config = replace(cell.config, seed=cell.config.seed + seed)
    session = build_session(config, data)
    with RunFolder(out / "runs" / f"{cell.name}-{seed}") as folder:
        if folder.state.exists():
            session.load(folder.state)
            folder.rewrite_metrics(session.progress.history)
        folder.write_config(config)
        summary = train(session, folder, Watcher(), stop)
    published = published_accuracy(config)
    return {
        "cell": cell.name,
        "table": cell.table,
        "seed": config.seed,
        "published": published.value if published else None,
        "accuracy": summary["test"]["accuracy"],
        "auroc": summary["test"]["auroc"],
        "epochs": summary["epochs"],
        "seconds": summary["seconds"],
        "device": device_name(session.device),
        "precision": session.precision,
        "backend": session.backend,
        "config": config.to_dict() | {"data_dir": None},
    }


def write_table(out: Path, note: str) -> Path:
    """OUT/tables.md from the JSON files under OUT/results: a row a cell, mean and standard deviation over its seeds."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / "results").glob("*.json")):
        result = json.loads(path.read_text())
        rows.setdefault(result["cell"], []).append(result)
    lines = [
        f"Data: {note}.",
        "",
        "| table | cell | published | ours | difference | seeds | epochs | seconds | device |",
        "|" + "---|" * 9,
    ]
    for name, results in sorted(rows.items(), key=lambda item: (item[1][0]["table"], item[0])):
        first, values = results[0], [100 * result["accuracy"] for result in results]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        mean = statistics.mean(values)
        published = first["published"]
        known = [f"{100 * published:.2f}", f"{mean - 100 * published:+.2f}"] if published else ["–", "–"]
        seconds = statistics.mean(result["seconds"] for result in results)
        cells_of_row = [
            first["table"],
            name,
            known[0],
            f"{mean:.2f}{spread}",
            known[1],
            str(len(values)),
            str(first["epochs"]),
        ]
        lines.append("| " + " | ".join([*cells_of_row, f"{seconds:,.0f}", first["device"]]) + " |")
    path = out / "tables.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def main() -> None:
    """Runs what is still to be run, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument(
        "--data-note", default="CIFAR-10", help="said above the table, for example: CIFAR-10, JPEG copy"
    )
    parser.add_argument("--list", action="store_true", help="name the cells and end")
    options = parser.parse_args()
    chosen = [cell for cell in cells(options.budget) if not options.only or cell.name in options.only]
    if options.list or not chosen:
        print("\n".join(cell.name for cell in cells(options.budget)))
        return
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    data = load("cifar10", options.data_dir)
    with StopRequest() as stop:
        if options.max_minutes is not None:
            timer = threading.Timer(60 * options.max_minutes, lambda: setattr(stop, "number", OUT_OF_TIME))
            timer.daemon = True
            timer.start()
        try:
            for seed in range(options.seeds):
                for cell in chosen:
                    path = options.out / "results" / f"{cell.name}-{seed}.json"
                    if path.exists():
                        continue
                    result = run_cell(cell, seed, data, options.out, stop)
                    path.write_text(json.dumps(result, indent=2) + "\n")
                    print(
                        f"{cell.name} seed {seed}: {100 * result['accuracy']:.2f}% in {result['seconds']:,.0f} s",
                        flush=True,
                    )
        except Interrupted as error:
            print(f"stopped ({error.why}); call again to go on")
    print(write_table(options.out, options.data_note))


if __name__ == "__main__":
    main()
