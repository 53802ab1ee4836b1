#!/usr/bin/env python3
"""Where a margin pays: losses with and without a margin, in four regimes, against cross-entropy; makes docs/margins.md.

    python scripts/study/margins.py --list                               # regimes, runs that are left, what they cost
    python scripts/study/margins.py --data-dir DIR --budget 60           # an hour of it; call again to go on
    python scripts/study/margins.py --data-dir DIR --regime unseen tail  # these alone, in this order
    python scripts/study/margins.py --page                               # page and figures from the results that are there
        [--docs docs] [--rehearse]

A run folder each under DOCS/results/margins/runs, a JSON each under DOCS/results/margins/results; DOCS/margins.md and a figure
a regime under DOCS/margins are made of the JSON alone. A regime has all losses with its first seed before any with its second;
of each loss the constants are chosen first, by the search of `cifarnet tune`, on held-out training images. --budget (minutes),
SIGTERM or Ctrl-C stops it in good order, in the middle of an epoch too; it ends with what is not finished and the command that
finishes it. What is chosen (network, epochs, images) stands in margins_plan.py. Two processes with OMP_NUM_THREADS=1, each
with regimes of its own, do more than one with two threads. --rehearse runs all of it on digits with a small network.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from margins_page import write_page
from margins_plan import CIFAR10, REGIMES, Item, Regime, choose, items_of, source_of
from margins_run import Study, check_results, cost_of, fill, rehearsal, result_path
from study_run import Budget

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.errors import CifarnetError, Failed, Interrupted, plural
from cifarnet.core.percent import percent
from cifarnet.core.signals import StopRequest
from cifarnet.data import load

TINY: dict[str, Any] = {
    "dataset": "digits",
    "arch": "baseline",
    "batch_size": 128,
    "progressive": 0,
    "precision": "fp32",
}
TINY |= {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "augment": "none"}


def main() -> None:
    """Runs what is still to be run, then writes the page."""
    options = parse_options()
    regimes = choose(options.regime)
    every = rehearsal(list(REGIMES)) if options.rehearse else list(REGIMES)
    regimes = rehearsal(regimes) if options.rehearse else regimes
    out = options.docs / "results" / "margins"
    print_plan(regimes, out)
    if options.list:
        return
    code = 0 if options.page else run(regimes, out, options)
    check_results(every, out, *((TINY, load("digits").classes) if options.rehearse else ({}, CIFAR10)))
    print(write_page(options.docs, every))
    print_unfinished(regimes, out, options)
    sys.exit(code)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where page, figures and results go")
    parser.add_argument("--regime", nargs="+", metavar="NAME", help="these alone, in this order (see --list)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="stop after so long; call again to go on")
    parser.add_argument(
        "--list", action="store_true", help="say what there is, what is left and what it costs, and end"
    )
    parser.add_argument("--page", action="store_true", help="write page and figures of the results there are, and end")
    parser.add_argument("--rehearse", action="store_true", help="digits, a small network, two epochs: minutes for all")
    options = parser.parse_args()
    if options.rehearse and options.docs == Path("docs"):
        parser.error("--rehearse: needs a --docs of its own")
    return options


def run(regimes: list[Regime], out: Path, options: argparse.Namespace) -> int:
    """Runs what is left of these regimes; returns the exit code: 0 at the end of the work or of the time."""
    failed = False
    with Budget(options.budget) as stop:
        data = load("digits") if options.rehearse else load("cifar10", options.data_dir)
        study = Study(out, data, TINY if options.rehearse else {})
        for item in (item for regime in regimes for item in items_of(regime)):
            if stop.number is not None:
                break
            source = source_of(item)
            if item.seed is not None and source and not result_path(out, source).exists():
                continue  # all of its tries diverged
            try:
                run_item(study, item, stop)
            except Interrupted:
                break
            except Failed as error:  # one that diverged, or all tries of a loss: the others go on
                print(f"{item.name}: {error}", file=sys.stderr)
                failed = True
    if stop.words:
        print(f"stopped ({stop.words}); call again to go on")
    return stop.exit_code or int(failed)


def run_item(study: Study, item: Item, stop: StopRequest) -> None:
    """Fills an item and says what came of it, in a line; one that is there already is checked alone."""
    there = result_path(study.out, item).exists()
    found = fill(study, item, stop)
    if there:
        return
    if item.seed is None:
        words = ", ".join(f"{one['constants']} {score(one['accuracy'])}" for one in found["tries"])
    else:
        words = ", ".join(f"{name} {score(value)}" for name, value in found["measures"].items())
    print(f"{item.name}: {words} in {found['seconds']:,.0f} s", flush=True)


def score(value: float | None) -> str:
    """A score for a line; a try that diverged has none."""
    return "diverged" if value is None else percent(value)


def print_plan(regimes: list[Regime], out: Path) -> None:
    """A line a regime: how many runs are left of how many, and minutes of a core that one takes and that all will."""
    whole = 0.0
    for regime in regimes:
        items = items_of(regime)
        left = [item for item in items if not result_path(out, item).exists()]
        cost = sum(cost_of(item, out) for item in left)
        one = cost_of(Item(regime, "arcface", 0), out)
        print(
            f"{regime.name:9} {plural(regime.epochs, 'epoch'):>9} of {regime.images:,} images, {len(left)} of {len(items)} left, "
            f"{one:.1f} core-minutes a run, {cost:,.0f} in all"
        )
        whole += cost
    print(f"about {whole:,.0f} minutes of a core", flush=True)


def print_unfinished(regimes: list[Regime], out: Path, options: argparse.Namespace) -> None:
    """What is not finished, and the command that finishes it; nothing where all is."""
    left = [item for regime in regimes for item in items_of(regime) if not result_path(out, item).exists()]
    if not left:
        return
    names = list(dict.fromkeys(item.regime.name for item in left))
    line = ["python", "scripts/study/margins.py", "--data-dir", options.data_dir or "DIR", "--regime", *names]
    line += ["--docs", str(options.docs)] if options.docs != Path("docs") else []
    line += ["--rehearse"] if options.rehearse else []
    cost = sum(cost_of(item, out) for item in left)
    print(f"not finished: {plural(len(left), 'item')} of {', '.join(names)}")
    print(f"finished by (about {cost:,.0f} minutes of a core): {shlex.join(line)}")


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
