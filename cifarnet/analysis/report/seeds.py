"""Cells of a report: runs that differ in their seed alone, together; and what sets one cell apart from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev

from cifarnet.analysis.report.results import Result
from cifarnet.analysis.significance import Interval, student_interval

# What may differ between two seeds of one cell: it does not change what is computed.
LOOSE = {"seed", "workers", "data_dir", "device", "threads"}
SAME = ("dataset", "data", "test images", "class names")  # what two cells must share to be compared seed by seed


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one configuration on the same data, with different seeds."""

    name: str
    runs: list[Result]

    @property
    def first(self) -> Result:
        """The run that stands for the group in figures."""
        return self.runs[0]

    def score(self, name: str) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation of a score over the seeds; None where a run does not have it."""
        values = [run.summary["test"][name] for run in self.runs]
        if any(value is None for value in values):
            return None
        return mean(values), stdev(values) if len(values) > 1 else None


def paired_seeds(groups: Sequence[SeedGroup]) -> list[tuple[str, str, Interval]]:
    """The difference in accuracy of each two cells on the same data, first minus second, over the seeds that both have.

    Cells with fewer than two seeds in common have no difference with an interval, and are left out.
    """
    found = []
    for first, second in combinations(groups, 2):
        if any(traits(first.first)[name] != traits(second.first)[name] for name in SAME):
            continue
        ours, theirs = (
            {run.config.seed: run.summary["test"]["accuracy"] for run in one.runs} for one in (first, second)
        )
        interval = student_interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
        if interval:
            found.append((first.name, second.name, interval))
    return found


def group(results: Sequence[Result]) -> list[SeedGroup]:
    """Results by all that decides what they computed, in the order given.

    A group of several is named without the running number, and after what sets it apart where another is named alike.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(repr(traits(result)), []).append(result)
    cells = list(found.values())
    return [SeedGroup(name_of(runs, cells), runs) for runs in cells]


def name_of(runs: Sequence[Result], cells: Sequence[Sequence[Result]]) -> str:
    """The run's own name; of several what they are, how many, and how they differ from other cells of the same kind."""
    if len(runs) == 1:
        return runs[0].name
    alike = [traits(cell[0]) for cell in cells if kind_of(cell[0]) == kind_of(runs[0])]
    mine = traits(runs[0])
    apart = [f"{name} {mine.get(name, 'default')}" for name in differences(alike)]
    return ", ".join([f"{kind_of(runs[0])} ({len(runs)} runs)", *apart])


def kind_of(result: Result) -> str:
    """What a run is called for, without its number."""
    return f"{result.config.arch}-{result.config.loss}-{result.config.dataset}"


def traits(result: Result) -> dict[str, str]:
    """All that decides what a run computed, but for its seed: each option by its name, and the data."""
    values = result.config.to_dict()
    options = values.pop("loss_options")
    values["precision"] = result.summary.get("precision") or result.config.precision
    found = {name: word(value) for name, value in values.items() if name not in LOOSE}
    found |= {f"loss {name}": word(value) for name, value in sorted(options.items())}
    test = result.summary["test"]
    return found | {"data": result.data, "test images": word(test["images"]), "class names": " ".join(result.classes)}


def differences(alike: Sequence[dict[str, str]]) -> list[str]:
    """The names under which not all of them have the same."""
    names = list(dict.fromkeys(name for one in alike for name in one))
    return [name for name in names if len({one.get(name) for one in alike}) > 1]


def word(value: object) -> str:
    """An option's value as people write it."""
    return "–" if value is None else str(value)
