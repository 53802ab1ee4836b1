"""The table of a series of seeds: a row a seed, their mean and deviation."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

from cifarnet.cli.table import Cell, Column, Table
from cifarnet.core.percent import percent

if TYPE_CHECKING:
    from cifarnet.engine.series import SeedRun

SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1", "auroc": "AUROC", "auprc": "AUPRC", "ece": "ECE"}


def series_table(runs: Sequence["SeedRun"]) -> Table:
    """A row a seed, then the mean and the sample standard deviation of those that were trained."""
    tests = [one.summary["test"] for one in runs if one.summary]
    names = [name for name in SCORES if tests and all(test.get(name) is not None for test in tests)] or ["accuracy"]
    columns = [Column("seed"), Column("run", 1, number=False)]
    columns += [Column(SCORES[name], 0 if name == "accuracy" else 2 + place) for place, name in enumerate(names)]
    rows: list[list[Cell]] = []
    for one in runs:
        test = one.summary["test"] if one.summary else {}
        rows.append([str(one.seed), str(one.path), *(percent(test[name]) if test else "failed" for name in names)])
    if len(tests) > 1:
        values = {name: [test[name] for test in tests] for name in names}
        rows.append(["mean", "", *((percent(mean(values[name])), "bold") for name in names)])
        rows.append(["sd", "", *(percent(stdev(values[name]), unit="") for name in names)])
    return Table(columns, rows)
