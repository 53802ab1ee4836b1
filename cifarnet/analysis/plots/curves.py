"""Training curves of one run or several: accuracy, loss, learning rate, and gradient norms where they were logged."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarnet.analysis.plots.mpl import Line2D
from cifarnet.analysis.plots.style import INK, LINES, PAGE, drawing, plain_powers, present
from cifarnet.analysis.plots.text import headline, shorten, width_of
from cifarnet.core.errors import Refused

Records = Sequence[Mapping[str, Any]]

# A panel: its title, and the line style of each metric drawn in it.
PANELS: dict[str, dict[str, Any]] = {
    "accuracy (%)": {"test_accuracy": "-", "val_accuracy": ":", "train_accuracy": "--"},
    "loss": {"test_loss": "-", "val_loss": ":", "train_loss": "--"},
    "learning rate": {"lr": "-"},
    "gradient norm": {"grad_norm_first": "-", "grad_norm_last": "--"},
}
LEGEND = 7  # points
WORDS = {
    "test": "test",
    "val": "validation",
    "train": "train",
    "grad_norm_first": "first layer",
    "grad_norm_last": "last layer",
}


def draw(records_by_name: Mapping[str, Records], path: Path, title: str = "") -> Path:
    """Draws the curves of each run, named by its key, in one colour a run; a metric that no run has gets no panel.

    Args:
        records_by_name: for each run its lines of metrics.jsonl (epoch counts from 1; accuracies in [0, 1]).
        path: PNG, SVG or PDF.
        title: above the figure, for example model, loss and data set.

    Raises:
        Refused: no run has a finished epoch. Failed: the file cannot be written.
    """
    series = numbers(records_by_name)
    if not series:
        raise Refused("curves", "no epoch is finished yet", "wait for the end of the first epoch")
    there = {metric for run in series.values() for metric in run}
    panels = [panel for panel, metrics in PANELS.items() if there & set(metrics)]
    rows = 2 if len(panels) == 4 else 1
    columns = len(panels) // rows
    names = [shorten(name, 40) for name in series]
    legend_rows = 1 + (len(series) - 1) // columns_of(names) if len(series) > 1 else 0
    with drawing(path, PAGE, 2.1 * rows + 0.35 + 0.16 * legend_rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=True):
            fill_panel(axes, panel, series)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        if title:
            headline(figure, title)
        if len(series) > 1:
            handles = [Line2D([], [], color=LINES[index % len(LINES)]) for index in range(len(series))]
            figure.legend(handles, names, loc="outside lower left", ncols=columns_of(names))
    return path


def numbers(records_by_name: Mapping[str, Records]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The numbers that are drawn: run -> metric -> {epoch, value}; accuracies in percent."""
    series: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, records in records_by_name.items():
        run = {}
        for metric in (metric for panel in PANELS.values() for metric in panel):
            epochs, values = present(records, metric)
            if values:
                factor = 100 if metric.endswith("accuracy") else 1
                run[metric] = {"epoch": epochs, "value": [factor * value for value in values]}
        if run:
            series[name] = run
    return series


def columns_of(names: Sequence[str]) -> int:
    """Columns of the legend: three, or as many as the longest name leaves room for."""
    widest = max(width_of(name, LEGEND) for name in names)
    return max(1, min(3, int(72 * PAGE / (widest + 5 * LEGEND))))  # beside a name its line, and space


def fill_panel(axes: Any, panel: str, series: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> None:
    """One panel: colour tells the run, line style the split."""
    seen: dict[str, Any] = {}
    for index, run in enumerate(series.values()):
        # Runs of one schedule lie on each other: earlier ones are drawn wider, so that all are seen.
        width = 1.4 + (len(series) - 1 - index) * (panel == "learning rate")
        for metric, dashes in PANELS[panel].items():
            if metric in run:
                epochs, values = run[metric]["epoch"], run[metric]["value"]
                dot = "o" if len(epochs) == 1 else None
                style = {"linestyle": dashes, "linewidth": width, "marker": dot, "markersize": 3}
                axes.plot(epochs, values, color=LINES[index % len(LINES)], **style)
                seen[metric] = dashes
    axes.set_title(panel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if panel == "gradient norm":
        axes.set_yscale("log")
        plain_powers(axes.yaxis)
    if panel == "learning rate":
        power = 10.0 ** math.floor(math.log10(max(axes.get_ylim()[1], 1e-12)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / power:g}")
        axes.set_title(f"learning rate (×{power:.0e})".replace("e-0", "e-"))
    if len(seen) > 1:
        handles = [Line2D([], [], color=INK, linestyle=seen[m], linewidth=1, label=word(m)) for m in seen]
        axes.legend(handles=handles, loc="best", handlelength=1.8)


def word(metric: str) -> str:
    """The name of a metric in the legend."""
    return WORDS.get(metric) or WORDS[metric.split("_")[0]]
