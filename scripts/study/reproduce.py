#!/usr/bin/env python3
"""Runs the report's tables and writes published, ours and the difference side by side.

    python scripts/study/reproduce.py --data-dir DIR --out docs/results/reproduce_exact --list      # runs, cost, what is left
    python scripts/study/reproduce.py --data-dir DIR --out docs/results/reproduce_exact --budget 60 # an hour of it
    python scripts/study/reproduce.py --out docs/results/reproduce_exact --table                    # the table again
        [--cells cpu|gpu|quick] [--only NAME ...] [--seeds 3] [--keep FILE] [--rehearse]

One run folder a cell and seed under OUT/runs, one JSON a run under OUT/results, the table in OUT/tables.md. Called again it
goes on where it stopped, in the middle of an epoch too; --budget (minutes), SIGTERM or Ctrl-C stops it in good order, and it
ends with what is not finished and the command that finishes it. Results that were made with another recipe than a cell has now
are refused, and those of other epochs where a new run would join them. Each says whose pixels it was measured on: "exact",
"JPEG copy (not pixel-exact)", or, where a substituted.tsv beside the files lists some images, how many of them are not the
published ones; and the data's digest.

All cells have their first seed before any has its second. The epochs of each are kept in OUT/plan.json, which later calls
follow. On a CPU only the deep networks are measured first, and get fewer epochs where one run would take more than 300 minutes
of a core; remove the plan where the machine was busy with other work at that moment. On a GPU all are measured, and share 40
minutes, the quick ones 7. Two processes with OMP_NUM_THREADS=1 and different --only do more than one with two threads.

--keep FILE holds the plan and all results so far in one file; another machine that is given it goes on. --rehearse shows in
seconds that the command runs: one epoch of a few random pixels.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from reproduce_cells import MINUTES, Cell, cells, choose, small
from reproduce_kept import pack, unpack
from reproduce_plan import cap, check_results, follow_plan, planned, read_plan, result_path, runs_of, unfinished
from reproduce_table import write_table
from study_run import Budget, core_minutes, facts_of, read_json, train_run, write_json

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError, Interrupted, Refused, plural
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset, load
from cifarnet.engine.evaluate import collect_logits
from cifarnet.engine.metrics import score
from cifarnet.engine.train_state import TrainState
from scripts.bench.random_images import random_images


def main() -> None:
    """Runs what is still to be run, then writes the table."""
    options = parse_options()
    if options.table:
        if not (options.out / "results").is_dir():
            raise Refused(str(options.out), "holds no results", "name the --out of earlier runs")
        print(write_table(options.out))
        return
    chosen = choose(cells(options.cells), options.only)
    if options.list:
        print_plan(chosen, options)
        return
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    if options.keep:
        unpack(options.keep, options.out)
    with Budget(options.budget) as stop:
        data = random_images(32, 16) if options.rehearse else load("cifar10", options.data_dir)
        chosen = [small(cell) for cell in chosen] if options.rehearse else chosen
        check_results(chosen, options.out, data)
        chosen = follow_plan(chosen, data, options)
        keep(options)
        try:
            for cell, seed in runs_of(chosen, options.seeds):
                if stop.number is not None:
                    break
                if cell.capped and not result_path(options.out, cell, seed).exists():
                    cell = cap(cell, chosen, data, options.out)
                fill(cell, seed, data, options.out, stop)
                keep(options)  # after each: a machine may be taken away
        except Interrupted:
            pass
    if stop.words:
        print(f"stopped ({stop.words}); call again to go on")
    print(write_table(options.out))
    print_unfinished(chosen, options)
    sys.exit(stop.exit_code)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cells", choices=tuple(MINUTES), default="cpu", help="those that such a machine can do")
    parser.add_argument("--seeds", type=int, help="of each cell; default: as the cell says")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these cells alone (see --list)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="stop after so long; call again to go on")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="one file with the plan and the results")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument(
        "--list", action="store_true", help="say what there is, what is left and what it costs, and end"
    )
    parser.add_argument("--table", action="store_true", help="write the table of the results that are there, and end")
    options = parser.parse_args()
    if options.out is None and not options.list:
        parser.error("--out: is needed; a folder for runs, results and the table")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds: {options.seeds} is too few; at least 1")
    return options


def keep(options: argparse.Namespace) -> None:
    """Brings --keep's file up to date."""
    if options.keep:
        pack(options.out, options.keep)


def fill(cell: Cell, seed: int, data: Dataset, out: Path, stop: StopRequest) -> None:
    """Runs a cell with a seed and writes its JSON, unless that is there.

    Raises:
        Interrupted: the time is spent, or a signal came; the state is saved.
    """
    path = result_path(out, cell, seed)
    if path.exists():
        return
    result = run_cell(cell, seed, data, out / "runs" / f"{cell.name}-{seed}", stop)
    write_json(path, result)
    print(f"{cell.name} seed {seed}: {100 * result['accuracy']:.2f}% in {result['seconds']:,.0f} s", flush=True)


def run_cell(cell: Cell, seed: int, data: Dataset, path: Path, stop: StopRequest) -> dict[str, Any]:
    """Trains a cell to its end in the run folder `path`, from where it stands, and returns its result."""
    config = TrainConfig.from_dict(cell.config.to_dict() | {"seed": cell.config.seed + seed})
    run, summary = train_run(config, path, data, f"{cell.name} seed {seed}", stop)
    return {
        "cell": cell.name,
        "table": cell.table,
        "plain": cell.plain,
        "reference": cell.reference,
        "seed": run.config.seed,
        "accuracy": summary["test"]["accuracy"],
        "auroc": summary["test"]["auroc"],
        "auprc": summary["test"]["auprc"],
        **one_view(run),
        **facts_of(run, summary, data),
    }


def one_view(run: TrainState) -> dict[str, float]:
    """The accuracy without --tta of a run that was measured with it, beside the other; of other runs nothing."""
    if not run.config.tta:
        return {}
    logits, labels = collect_logits(run.result, run.test.epoch(0), run.device, run.precision)
    return {"accuracy_one_view": score(logits, labels, run.classes).accuracy}


def print_plan(chosen: list[Cell], options: argparse.Namespace) -> None:
    """A line a cell: its epochs, how many runs are left of how many, and minutes of a core that one takes."""
    chosen = chosen if options.out is None else planned(chosen, read_plan(options.out))
    left = unfinished(chosen, options)
    for cell in chosen:
        runs = sum(one is cell for one, _ in runs_of(chosen, options.seeds))
        open_ = sum(one is cell for one, _ in left)
        cost, source = cost_of(cell, options)
        words = "–" if cost is None else f"{cost:,.0f} core-minutes each ({source})"
        print(f"{cell.name:24}  {plural(cell.config.epochs, 'epoch'):>10}  {open_} of {runs} left  {words}")
    costs = [cost_of(cell, options)[0] or 0.0 for cell, _ in left]
    print(f"{plural(len(left), 'run')} left, about {sum(costs):,.0f} minutes of a core")


def cost_of(cell: Cell, options: argparse.Namespace) -> tuple[float | None, str]:
    """Minutes of a core that a run of a cell takes, and how that is known: measured here, or estimated; None: it is not."""
    paths = [] if options.out is None else sorted((options.out / "results").glob(f"{cell.name}-[0-9].json"))
    found = [core_minutes(read_json(path)) for path in paths]
    return (sum(found) / len(found), "measured") if found else (cell.minutes, "estimated")


def print_unfinished(chosen: list[Cell], options: argparse.Namespace) -> None:
    """What is not finished, what it costs, and the command that finishes it; nothing where all is."""
    left = unfinished(chosen, options)
    if not left:
        return
    print("not finished: " + ", ".join(f"{cell.name} seed {seed}" for cell, seed in left))
    cost = sum(cost_of(cell, options)[0] or 0.0 for cell, _ in left)
    line = ["python", "scripts/study/reproduce.py", "--data-dir", options.data_dir or "DIR", "--out", str(options.out)]
    line += ["--cells", options.cells] if options.cells != "cpu" else []
    line += ["--seeds", str(options.seeds)] if options.seeds else []
    line += ["--only", *options.only] if options.only else []
    print(f"finished by (about {cost:,.0f} minutes of a core): {shlex.join(line)}")


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
