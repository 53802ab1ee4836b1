#!/usr/bin/env python3
"""Runs the report's tables and writes published, ours and the difference side by side.

    python scripts/study/reproduce.py --data-dir DIR --out DIR [--budget cpu|gpu|quick] [--seeds 3] [--only NAME ...]
                                [--max-minutes M] [--keep FILE] [--list] [--rehearse]

One run folder a cell and seed under OUT/runs, one JSON a run under OUT/results, the table in OUT/tables.md. Called again it
goes on where it stopped, in the middle of an epoch too; --max-minutes (or SIGTERM, Ctrl-C) stops it in good order. Results
that were made with another recipe than a cell has now are refused. Each says whose pixels it was measured on: "exact", "JPEG
copy (not pixel-exact)", or, where a substituted.tsv beside the files lists some images, how many of them are not the published ones.

The first call measures how fast this machine trains each network and shortens the costly cells, so that all end within the
budget: 3 hours on a CPU, 40 minutes on a GPU, there 7 for the quick one (ResNet-18 with each margin). The epochs are kept in OUT/plan.json and later calls follow it; remove it where
the machine was busy with other work at that moment. The CPU's ResNet-18 cells are made for 12
epochs; a slow machine gives them fewer.

--keep FILE holds the plan and all results so far in one file; another machine that is given it goes on. --rehearse shows in
seconds that the command runs: one epoch of a few random pixels.
"""

import argparse
import contextlib
import json
import statistics
import sys
import threading
from pathlib import Path
from typing import Any

from reproduce_cells import MINUTES, Cell, cells, choose, measure_rates, plan_epochs, small, with_epochs
from reproduce_kept import pack, unpack

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.report.published import cell_of
from cifarnet.cli.common import messages
from cifarnet.cli.watcher import TerminalWatcher
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.errors import CifarnetError, Interrupted, Refused, plural
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset, load, pixels_of
from cifarnet.engine.fit import fit
from cifarnet.engine.resume import load_config
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.atomic import write_file
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.random_images import random_images

# What runs of a cell may differ in: the plan's, the seed's, the machine's.
FREE = ("epochs", "seed", "data_dir", "precision")
OUT_OF_TIME = 15  # the signal number that a spent budget counts as


def main() -> None:
    """Runs what is still to be run, then writes the table."""
    options = parse_options()
    chosen = choose(cells(options.budget), options.only)
    if options.list:
        print("\n".join(cell.name for cell in chosen))
        return
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    if options.keep:
        unpack(options.keep, options.out)
    spent, code = threading.Event(), 0
    with StopRequest() as stop:
        if options.max_minutes is not None:
            timer = threading.Timer(
                60 * options.max_minutes, lambda: (spent.set(), setattr(stop, "number", OUT_OF_TIME))
            )
            timer.daemon = True
            timer.start()
        data = random_images(32, 16) if options.rehearse else load("cifar10", options.data_dir)
        chosen = [small(cell) for cell in chosen] if options.rehearse else chosen
        check_results(chosen, options.out / "results")
        planned = follow_plan(chosen, data, options)
        keep(options)
        try:
            for seed in range(options.seeds):
                for cell in planned:
                    fill(cell, seed, data, options.out, stop)
                    keep(options)  # after each: a machine may be taken away
        except Interrupted as error:
            print(f"stopped ({'the time is up' if spent.is_set() else error.why}); call again to go on")
            code = 0 if spent.is_set() else error.exit_code
    print(write_table(options.out))
    sys.exit(code)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", choices=tuple(MINUTES), default="cpu")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these cells alone (see --list)")
    parser.add_argument("--max-minutes", type=float, help="stop after so long; call again to go on")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="one file with the plan and the results")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--list", action="store_true", help="name the cells and end")
    options = parser.parse_args()
    if options.out is None and not options.list:
        parser.error("--out: is needed; a folder for runs, results and the table")
    if options.seeds < 1:
        parser.error(f"--seeds: {options.seeds} is too few; at least 1")
    return options


def keep(options: argparse.Namespace) -> None:
    """Brings --keep's file up to date."""
    if options.keep:
        pack(options.out, options.keep)


def follow_plan(chosen: list[Cell], data: Dataset, options: argparse.Namespace) -> list[Cell]:
    """The cells with the epochs of OUT/plan.json; those that it lacks are measured, fitted to the budget and added."""
    path = options.out / "plan.json"
    plan: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    new = [cell for cell in chosen if cell.name not in plan]
    if new:
        rates = measure_rates(new, data)
        plan |= plan_epochs(new, rates, len(data.train), options.seeds, MINUTES[options.budget])
        for cell in new:
            print(f"{cell.name}: {rates[cell.name]:,.0f} images a second, {plan[cell.name]} epochs", flush=True)
        write_file(path, (json.dumps(plan, indent=2) + "\n").encode())
    return [with_epochs(cell, plan[cell.name]) for cell in chosen]


def check_results(chosen: list[Cell], folder: Path) -> None:
    """Refuses results of other values than the cells have now: seeds of two recipes have no mean."""
    for cell in chosen:
        for path in sorted(folder.glob("*.json")):
            result = json.loads(path.read_text())
            if result["cell"] == cell.name:
                check_values(cell, TrainConfig.from_dict(result["config"], str(path)), path)


def check_values(cell: Cell, made: TrainConfig, path: Path) -> None:
    """Refuses a result, or a run that is to go on, at `path` that was made with other values than the cell's."""
    mine, theirs = cell.config.to_dict(), made.to_dict()
    differ = [name for name in mine if mine[name] != theirs[name] and name not in FREE]
    other = ", ".join(f"{name} {theirs[name]} (now {mine[name]})" for name in differ)
    if other:
        raise Refused(str(path), f"was made with {other}", "choose another --out, or remove it")


def fill(cell: Cell, seed: int, data: Dataset, out: Path, stop: StopRequest) -> None:
    """Runs a cell with a seed and writes its JSON, unless that is there.

    Raises:
        Interrupted: the time is spent, or a signal came; the state is saved.
    """
    path = out / "results" / f"{cell.name}-{seed}.json"
    if path.exists():
        return
    result = run_cell(cell, seed, data, out / "runs" / f"{cell.name}-{seed}", stop)
    write_file(path, (json.dumps(result, indent=2) + "\n").encode())
    print(f"{cell.name} seed {seed}: {100 * result['accuracy']:.2f}% in {result['seconds']:,.0f} s", flush=True)


class CellWatcher(TerminalWatcher):
    """The table of a cell's training, under one line; it draws no figures."""

    def __init__(self, title: str) -> None:
        super().__init__(messages())
        self.title = title

    def announce(self, run: TrainState, folder: RunFolder) -> None:
        self.run = run
        self.console.say(f"{self.title}, {plural(run.config.epochs, 'epoch')} on {device_name(run.device)}")

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        self.summary = summary


def run_cell(cell: Cell, seed: int, data: Dataset, path: Path, stop: StopRequest) -> dict[str, Any]:
    """Trains a cell to its end in the run folder `path`, from where it stands, and returns its result."""
    config = cell.config.from_dict(cell.config.to_dict() | {"seed": cell.config.seed + seed})
    state = RunFolder(path).state
    if state.exists():
        config = load_config(state)
        check_values(cell, config, state)
    watcher = CellWatcher(f"{cell.name} seed {seed}")
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(path.parents[1]):  # whose runs/latest it becomes
        fit(config, path.resolve(), resume=state.exists(), overwrite=True, dataset=data, watcher=watcher, stop=stop)
    run, summary = watcher.run, watcher.summary
    accuracy = summary["test"]["accuracy"]
    return {
        "cell": cell.name,
        "table": cell.table,
        "plain": cell.plain,
        "reference": cell.reference,
        "seed": config.seed,
        "accuracy": accuracy,
        "auroc": summary["test"]["auroc"],
        "epochs": summary["epochs"],
        "seconds": summary["seconds"],
        "device": device_name(run.device),
        "data": pixels_of(data),
        "precision": run.precision,
        "backend": run.backend,
        "config": run.config.to_dict() | {"data_dir": None},
    }


HEADS = ("table", "cell", "published", "ours", "difference", "against ce", "report's protocol as long", "epochs")
HEADS += ("seconds", "seeds", "precision", "device", "data")
FOLDED = ("seeds", "precision", "device", "data")  # said above the table where they are the same in every row


def write_table(out: Path) -> Path:
    """OUT/tables.md from the JSON files under OUT/results: a row a cell, mean and standard deviation over its seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / "results").glob("*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["cell"], []).append(result)
    means = {name: 100 * statistics.mean(result["accuracy"] for result in results) for name, results in found.items()}
    order = sorted(found.items(), key=lambda item: (item[1][0]["table"], item[0]))
    rows = [dict(zip(HEADS, row_of(name, results, means), strict=True)) for name, results in order]
    same = [head for head in FOLDED if len({row[head] for row in rows}) == 1]
    heads = [head for head in HEADS if head not in same]
    facts = "".join(f" {head.capitalize()}: {rows[0][head]}." for head in same)
    lines = [f"Test accuracy, %. Seconds are those of training one run. –: not published, or not run.{facts}", ""]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(row[head] for head in heads)} |" for row in rows]
    path = out / "tables.md"
    write_file(path, ("\n".join(lines) + "\n").encode())
    return path


def row_of(name: str, found: list[dict[str, Any]], means: dict[str, float]) -> list[str]:
    """A cell's row: what was published, ours, and ours against cross-entropy and against the report's protocol."""
    first, mean = found[0], means[name]
    values = [100 * result["accuracy"] for result in found]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    published = cell_of(TrainConfig.from_dict(first["config"], name))
    plain, reference = (means.get(first[key]) if first[key] != name else None for key in ("plain", "reference"))
    return [
        first["table"],
        name,
        f"{100 * published.accuracy:.2f} ({published.epochs} epochs)" if published else "–",
        f"{mean:.2f}{spread}",
        f"{mean - 100 * published.accuracy:+.2f}" if published else "–",
        "–" if plain is None else f"{mean - plain:+.2f}",
        "–" if reference is None else f"{reference:.2f}",
        " / ".join(map(str, sorted({result["epochs"] for result in found}))),
        f"{statistics.mean(result['seconds'] for result in found):,.0f}",
        str(len(values)),
        *(" / ".join(sorted({result[key] for result in found})) for key in ("precision", "device", "data")),
    ]


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
