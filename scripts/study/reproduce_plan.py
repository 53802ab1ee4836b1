"""Which runs a reproduction has and is still to have, for how many epochs, and that the results there fit to the new ones."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from reproduce_cells import MINUTES, Cell, capped_epochs, measure_rates, plan_epochs, with_epochs
from study_run import FREE, check_pixels, check_values, read_json, write_json

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused, plural
from cifarnet.data import Dataset

Run = tuple[Cell, int]  # a cell and the number of its seed


def runs_of(chosen: list[Cell], seeds: int | None) -> list[Run]:
    """Each cell with its first seed, then each with its second, as far as it has them."""
    wanted = {cell.name: seeds or cell.seeds for cell in chosen}
    return [(cell, seed) for seed in range(max(wanted.values())) for cell in chosen if seed < wanted[cell.name]]


def unfinished(chosen: list[Cell], options: argparse.Namespace) -> list[Run]:
    """The runs that have no result yet, in the order in which they are run."""
    runs = runs_of(chosen, options.seeds)
    return [one for one in runs if options.out is None or not result_path(options.out, *one).exists()]


def result_path(out: Path, cell: Cell, seed: int) -> Path:
    """Where the JSON of a cell and seed lies."""
    return out / "results" / f"{cell.name}-{seed}.json"


def results_of(cell: Cell, out: Path) -> Iterable[tuple[Path, dict[str, Any]]]:
    """The results of a cell that are there, with their paths."""
    found = ((path, read_json(path)) for path in sorted((out / "results").glob("*.json")))
    return ((path, result) for path, result in found if result["cell"] == cell.name)


def read_plan(out: Path) -> dict[str, int]:
    """Epochs of each cell; empty where there is no plan yet."""
    path = out / "plan.json"
    return read_json(path) if path.exists() else {}


def planned(chosen: list[Cell], plan: dict[str, int]) -> list[Cell]:
    """The cells with the epochs of the plan; those that it lacks as they are."""
    return [with_epochs(cell, plan.get(cell.name, cell.config.epochs)) for cell in chosen]


def follow_plan(chosen: list[Cell], data: Dataset, options: argparse.Namespace) -> list[Cell]:
    """The cells with the epochs of OUT/plan.json; those that it lacks are added, but for capped ones (see `cap`).

    Raises:
        Refused: results that are there have other epochs; the plan is left as it is.
    """
    plan = read_plan(options.out)
    new = [cell for cell in chosen if cell.name not in plan and not cell.capped]
    rates: dict[str, float] = {}
    if new and options.cells != "cpu":
        rates = measure_rates(new, data)
        plan |= plan_epochs(new, rates, len(data.train), options.seeds or 1, MINUTES[options.cells])
    plan = {cell.name: cell.config.epochs for cell in new} | plan
    found = planned(chosen, plan)
    open_ = {cell.name for cell, _ in unfinished(found, options)}
    check_epochs([cell for cell in found if cell.name in plan and cell.name in open_], options.out)
    for cell in new:
        rate = f", {rates[cell.name]:,.0f} images a second" if rates else ""
        print(f"{cell.name}: {plural(plan[cell.name], 'epoch')}{rate}", flush=True)
    if new:
        write_json(options.out / "plan.json", plan)
    return found


def cap(cell: Cell, chosen: list[Cell], data: Dataset, out: Path) -> Cell:
    """A capped cell with the epochs of OUT/plan.json, those of its network; where it has none the network is timed first.

    Raises:
        Refused: results of the cell that are there have other epochs; the plan is left as it is.
    """
    plan = read_plan(out)
    alike = [one.name for one in chosen if one.capped and one.config.arch == cell.config.arch]
    known = next((plan[name] for name in [cell.name, *alike] if name in plan), None)
    if known is None:
        rate = measure_rates([cell], data)[cell.name]
        known = capped_epochs(cell, rate, len(data.train), torch.get_num_threads())
        print(f"{cell.name}: {plural(known, 'epoch')}, {rate:,.0f} images a second", flush=True)
    cell = with_epochs(cell, known)
    check_epochs([cell], out)
    write_json(out / "plan.json", plan | {cell.name: known})
    return cell


def check_results(chosen: list[Cell], out: Path, data: Dataset) -> None:
    """Refuses results of other values than the cells have now, or of other images: seeds of two recipes have no mean."""
    for cell in chosen:
        for path, result in results_of(cell, out):
            made = TrainConfig.from_dict(result["config"], str(path))
            check_values(cell.config, made, path, (*FREE, "epochs"))
            check_pixels(result, data, path)


def check_epochs(joined: list[Cell], out: Path) -> None:
    """Refuses results of other epochs than the plan's of cells that a new run is to join: they have no mean either."""
    plan = out / "plan.json"
    for cell in joined:
        for path, result in results_of(cell, out):
            made, now = result["epochs"], cell.config.epochs
            if made != now:
                fix = f'choose another folder, or plan as many in {plan} ("{cell.name}": {made})'
                raise Refused(str(path), f"was made with {plural(made, 'epoch')} (now {now})", fix)
