"""Cells of a report: runs that differ in their seed alone, together; and what sets one cell apart from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev

from cifarnet.analysis.report.results import Result
from cifarnet.analysis.significance import ROUNDING, Interval, student_interval
from cifarnet.data.shape_options import shaping_options

# What may differ between two seeds of one cell: it does not change what is computed.
LOOSE = {"seed", "workers", "data_dir", "device", "checkpoint_every", "log_grad"}
SAME = ("dataset", "data", "test images", "class names")  # what two cells must share to be compared seed by seed


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one configuration on the same data, each of another seed."""

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


def leaders(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Of the cells on each data set those with the highest mean accuracy, several where it is the same; sets in the order given."""
    of_data: dict[tuple[str, ...], list[SeedGroup]] = {}
    for one in groups:
        of_data.setdefault(tuple(traits(one.first)[name] for name in SAME), []).append(one)
    found = []
    for cells in of_data.values():
        best = max(mean_accuracy(one) for one in cells)
        found.append([one for one in cells if best - mean_accuracy(one) < ROUNDING])
    return found


def mean_accuracy(one: SeedGroup) -> float:
    """The mean accuracy over the seeds, a part."""
    return mean(run.summary["test"]["accuracy"] for run in one.runs)


def paired_seeds(groups: Sequence[SeedGroup]) -> list[tuple[str, str, Interval]]:
    """The difference in accuracy of each two cells on the same data, first minus second, over the seeds that both have.

    Two runs of a seed count where they were trained on the same images. Cells with fewer than two such seeds have no
    difference with an interval, and are left out.
    """
    found = []
    for first, second in combinations(groups, 2):
        pairs = [(one, other) for one, other in same_seeds(first, second) if one.data == other.data]
        interval = student_interval(
            [one.summary["test"]["accuracy"] - other.summary["test"]["accuracy"] for one, other in pairs]
        )
        if interval:
            found.append((first.name, second.name, interval))
    return found


def unpaired_seeds(groups: Sequence[SeedGroup]) -> list[tuple[str, str, list[int]]]:
    """Two cells whose images were chosen by the same options, and the seeds by which they got different ones all the same.

    The seed draws by the place of an image in the set, so that the same set in another layout gives other images. Cells
    with fewer than two seeds in common are left out: they have no interval for another reason.
    """
    found = []
    for first, second in combinations(groups, 2):
        if chosen_by(first.first) != chosen_by(second.first):
            continue
        pairs = same_seeds(first, second)
        seeds = [one.config.seed for one, other in pairs if one.data != other.data]
        if seeds and len(pairs) > 1:
            found.append((first.name, second.name, seeds))
    return found


def same_seeds(first: SeedGroup, second: SeedGroup) -> list[tuple[Result, Result]]:
    """The runs of the seeds that both cells have, by seed; none where the cells are not of the same data."""
    one, other = traits(first.first), traits(second.first)
    if any(one[name] != other[name] for name in SAME):
        return []
    ours, theirs = ({run.config.seed: run for run in cell.runs} for cell in (first, second))
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def chosen_by(result: Result) -> dict[str, object]:
    """The options that choose a run's training images and their labels, together with its seed."""
    return shaping_options(result.config) | {"val_fraction": result.config.val_fraction}


def group(results: Sequence[Result]) -> list[SeedGroup]:
    """Results by all that decides what they computed, in the order given; a second run of a seed is a group by itself.

    A group of several is named without the running number, and after what sets it apart where another is named alike.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(repr(traits(result)), []).append(result)
    cells = [cell for runs in found.values() for cell in each_seed_once(runs)]
    return [SeedGroup(name_of(runs, cells), runs) for runs in cells]


def each_seed_once(runs: Sequence[Result]) -> list[list[Result]]:
    """A cell with one run of each seed, then every further run of a seed alone: a seed is one draw, run twice or not.

    The run whose path sorts first stands for its seed, in whatever order they are given.
    """
    stands: dict[int, Result] = {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        stands.setdefault(run.config.seed, run)
    once = [run for run in runs if stands[run.config.seed] is run]
    return [once, *([run] for run in runs if stands[run.config.seed] is not run)]


def repeats(groups: Sequence[SeedGroup]) -> list[tuple[Result, Result]]:
    """The runs that stand alone as the second of a seed, each with the run that stands for the seed in its cell."""
    stands: dict[tuple[str, int], Result] = {}
    found = []
    for run in (run for one in groups for run in one.runs):
        first = stands.setdefault((repr(traits(run)), run.config.seed), run)
        if first is not run:
            found.append((run, first))
    return found


def name_of(runs: Sequence[Result], cells: Sequence[Sequence[Result]]) -> str:
    """The run's own name; of several what they are, how many, and how they differ from other cells of the same kind."""
    if len(runs) == 1:
        return runs[0].name
    alike = [traits(cell[0]) for cell in cells if kind_of(cell[0]) == kind_of(runs[0])]
    mine = traits(runs[0])
    apart = [f"{name} {mine.get(name, 'default')}" for name in differences(alike)]
    return ", ".join([f"{kind_of(runs[0])} ({len(runs)} runs)", *apart])


def kind_of(result: Result) -> str:
    """The name of a run without its number."""
    return f"{result.config.arch}-{result.config.loss}-{result.config.dataset}"


def traits(result: Result) -> dict[str, str]:
    """All that decides what a run computed, but for its seed: each option by its name, and the data set.

    Which of the set's images the run was trained on follows from these and the seed (`Result.data`).
    """
    values = result.config.to_dict()
    options = values.pop("loss_options")
    values["precision"] = result.summary.get("precision") or result.config.precision
    found = {name: word(value) for name, value in values.items() if name not in LOOSE}
    found |= {f"loss {name}": word(value) for name, value in sorted(options.items())}
    found["tta"] = result.views or word(False)  # two views are not six
    test = result.summary["test"]
    return found | {"data": result.origin, "test images": word(test["images"]), "class names": " ".join(result.classes)}


def differences(alike: Sequence[dict[str, str]]) -> list[str]:
    """The names under which not all of them have the same."""
    names = list(dict.fromkeys(name for one in alike for name in one))
    return [name for name in names if len({one.get(name) for one in alike}) > 1]


def word(value: object) -> str:
    """An option's value as people write it."""
    return "–" if value is None else str(value)
