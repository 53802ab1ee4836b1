"""Training curves of one run or several: accuracy, loss, learning rate, and gradient norms where they were logged."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarnet.analysis.plots.legend import ROW, columns_of
from cifarnet.analysis.plots.mpl import Line2D
from cifarnet.analysis.plots.style import INK, LINES, PAGE, drawing, panel_shape, panels_of, plain_powers, present
from cifarnet.analysis.plots.text import headline, height_of, shorten
from cifarnet.core.errors import Refused

Records = Sequence[Mapping[str, Any]]

OBJECTIVE = "training loss, own formula"
# A panel: its title, and the line style of each metric drawn in it.
PANELS: dict[str, dict[str, Any]] = {
    "accuracy (%)": {"test_accuracy": "-", "val_accuracy": ":", "train_accuracy": "--"},
    "loss": {"test_loss": "-", "val_loss": ":", "train_loss": "--"},
    OBJECTIVE: {"objective": "--"},
    "learning rate": {"lr": "-"},
    "gradient norm": {"grad_norm_first": "-", "grad_norm_last": "--"},
}
COLUMNS = 3  # of the legend
WORDS = {
    "test": "test",
    "val": "validation",
    "train": "train",
    "objective": "train",
    "grad_norm_first": "first layer",
    "grad_norm_last": "last layer",
}


def draw(records_by_name: Mapping[str, Records], path: Path, title: str = "", own_loss: Collection[str] = ()) -> Path:
    """Draws the curves of each run, named by its key, in one colour a run; a metric that no run has gets no panel.

    Args:
        records_by_name: for each run its lines of metrics.jsonl (epoch counts from 1; accuracies in [0, 1]).
        path: PNG, SVG or PDF.
        title: above the figure, for example model, loss and data set.
        own_loss: the runs whose training loss is not the cross-entropy that test images are measured by, but holds a
            margin, say. It has an axis of its own.

    Raises:
        Refused: no run has a finished epoch. Failed: the file cannot be written.
    """
    series = numbers(records_by_name)
    drawn = {name: split_loss(run) if name in own_loss else run for name, run in series.items()}
    if not series:
        raise Refused("curves", "no epoch is finished yet", "wait for the end of the first epoch")
    there = {metric for run in drawn.values() for metric in run}
    panels = [panel for panel, metrics in PANELS.items() if there & set(metrics)]
    rows, columns = (2, 2) if len(panels) == 4 else panel_shape(len(panels))
    names = [shorten(name, 40) for name in series]
    legend_columns = columns_of(names, PAGE, COLUMNS)
    legend_rows = -(-len(series) // legend_columns) if len(series) > 1 else 0
    with drawing(path, PAGE, 2.1 * rows + 0.35 + ROW * legend_rows + height_of(title)) as figure:
        cells = panels_of(figure, len(panels), columns)
        for axes, panel in zip(cells, panels, strict=True):
            fill_panel(axes, panel, drawn)
        for axes in cells[-columns:]:
            axes.set_xlabel("epoch")
        if title:
            headline(figure, title)
        if len(series) > 1:
            handles = [Line2D([], [], color=LINES[index % len(LINES)]) for index in range(len(series))]
            figure.legend(handles, names, loc="outside lower left", ncols=legend_columns)
    return path


def numbers(records_by_name: Mapping[str, Records]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The numbers that are drawn: run -> metric -> {epoch, value}; accuracies in percent."""
    series: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, records in records_by_name.items():
        run = {}
        for metric in (metric for panel in PANELS.values() for metric in panel if metric != "objective"):
            epochs, values = present(records, metric)
            if values:
                factor = 100 if metric.endswith("accuracy") else 1
                run[metric] = {"epoch": epochs, "value": [factor * value for value in values]}
        if run:
            series[name] = run
    return series


def split_loss(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's metrics with its training loss where no other loss is."""
    return {"objective" if metric == "train_loss" else metric: values for metric, values in run.items()}


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
    axes.set_title("loss (cross-entropy)" if panel == "loss" else panel)
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
