"""The results of a report in a few lines: how many runs, and which are best."""

from collections.abc import Sequence

from cifarnet.analysis.report.results import Result, told_apart
from cifarnet.analysis.report.seeds import SeedGroup, group, leaders, mean_accuracy
from cifarnet.analysis.significance import PART, student_interval, wilson_interval
from cifarnet.cli.terminal import Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent


def print_report(console: Terminal, finished: Sequence[Result], left_out: int) -> None:
    """The numbers of runs, of configurations and of runs `left_out`; then of each data set the best, by test accuracy."""
    groups = group(told_apart(finished))
    apart = f" of {plural(len(groups), 'configuration')}" if len(finished) > 1 else ""
    more = f", {left_out:,} left out" if left_out else ""
    console.say((plural(len(finished), "run") + apart, "bold"), more)
    best = leaders(groups)
    names = [cells[0].first.config.dataset for cells in best]
    for name, cells in zip(names, best, strict=True):
        run = cells[0].first
        # The same name may stand for several sets of images.
        data = f"{name} {(run.source or 'not recorded')[:8]}" if names.count(name) > 1 else name
        others = f" and {len(cells) - 1:,} more" if len(cells) > 1 else ""
        which = "best on " if len(groups) > 1 else ""
        views = f", {run.views} (--tta)" if run.views else ""
        console.say(f"{which}{data}: {cells[0].name}{others}, ", (accuracy_words(cells[0]), "bold"), views)


def accuracy_words(cell: SeedGroup) -> str:
    """The accuracy with its 95% interval: of several seeds that of the mean over them, of one that of a part of the images."""
    values = [run.summary["test"]["accuracy"] for run in cell.runs]
    if len(values) == 1:
        images = cell.first.summary["test"]["images"]
        if not images:
            return f"accuracy {percent(values[0])}"
        low, high = wilson_interval(round(values[0] * images), images)
        of = f"Wilson, {plural(images, 'image')}"
    else:
        found = student_interval(values, within=PART)
        if found is None or not found.defined:
            return f"accuracy {percent(mean_accuracy(cell))}, the same of all {len(values)} seeds"
        low, high, of = found.low, found.high, f"Student's t, n = {found.n}"
    return f"accuracy {percent(mean_accuracy(cell))}, 95% interval {percent(low)} to {percent(high)} ({of})"
