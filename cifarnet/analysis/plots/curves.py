"""Training curves of one run or several: accuracy, loss, learning rate, and gradient norms where they were logged."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.legend import ROW, SIZE, columns_of
from cifarnet.analysis.plots.mpl import Line2D
from cifarnet.analysis.plots.style import (
    INK,
    PAGE,
    drawing,
    line_colours,
    panel_shape,
    panels_of,
    plain_powers,
    present,
    whole_numbers,
)
from cifarnet.analysis.plots.text import headline, height_of, short_names, width_of
from cifarnet.core.errors import Refused

Records = Sequence[Mapping[str, Any]]
Series = Mapping[str, Mapping[str, Mapping[str, list[float]]]]  # run -> metric -> {epoch, value}

OBJECTIVE, GRADIENT = "training loss, own formula", "gradient norm of a layer"
# A panel: its title, and the line style of each metric drawn in it.
PANELS: dict[str, dict[str, Any]] = {
    "accuracy (%)": {"test_accuracy": "-", "val_accuracy": ":", "train_accuracy": "--"},
    "loss": {"test_loss": "-", "val_loss": ":", "train_loss": "--"},
    OBJECTIVE: {"objective": "--"},
    "learning rate": {"lr": "-"},
    GRADIENT: {"grad_norm_first": "-", "grad_norm_last": "--"},
}
# One epoch makes no line: what a curve of a line style is then drawn as. Those of train and validation are larger and
# hollow, so that equal values are both seen.
POINTS: dict[str, dict[str, Any]] = {
    "-": {"marker": "o", "markersize": 3},
    ":": {"marker": "^", "markersize": 6, "fillstyle": "none"},
    "--": {"marker": "s", "markersize": 5.5, "fillstyle": "none"},
}
SPIKE = 20  # times the median loss: a linear axis would show nothing else
COLUMNS = 3  # of the runs' names
HANDLE = 2.2  # width of a line in the key, in units of its letters' size
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
            margin, say. It has a panel of its own.

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
    key = key_of(drawn)
    names = short_names(list(series), 40) if len(series) > 1 else []
    legend_columns = columns_of(names, PAGE - width_of_key(key), COLUMNS) if names else 1
    legend_rows = max(-(-len(names) // legend_columns), bool(key))
    with drawing(path, PAGE, 2.1 * rows + 0.35 + ROW * legend_rows + height_of(title)) as figure:
        cells = panels_of(figure, len(panels), columns)
        for axes, panel in zip(cells, panels, strict=True):
            fill_panel(axes, panel, drawn)
        ends = [axes.get_xlim() for axes in cells]
        for axes in cells:  # a loss that is not finite ends its curve, and not the axis
            axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
        for axes in cells[-columns:]:
            axes.set_xlabel("epoch")
        if title:
            headline(figure, title)
        # Below the panels: in a panel no place is sure to be free of curves.
        if names:
            colours = [Line2D([], [], color=colour, linewidth=3) for colour in line_colours(len(names))]
            figure.legend(colours, names, loc="outside lower left", ncols=legend_columns)
        if key:
            figure.legend(handles=key, loc="outside lower right", ncols=len(key), handlelength=HANDLE)
    return path


def numbers(records_by_name: Mapping[str, Records]) -> Series:
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


def fill_panel(axes: Any, panel: str, series: Series) -> None:
    """One panel: colour tells the run, line style (of one epoch the marker) the split."""
    for index, (run, colour) in enumerate(zip(series.values(), line_colours(len(series)), strict=True)):
        # Runs of one schedule lie on each other: earlier ones are drawn wider, so that all are seen.
        wider = (len(series) - 1 - index) * (panel == "learning rate")
        for metric, dashes in PANELS[panel].items():
            if metric in run:
                epochs, values = run[metric]["epoch"], run[metric]["value"]
                style = {"linestyle": dashes, "linewidth": 1.4 + wider}
                if len(epochs) == 1:  # above all lines, which would hide it
                    style = {**POINTS[dashes], "markersize": POINTS[dashes]["markersize"] + 2 * wider, "zorder": 3}
                axes.plot(epochs, values, color=colour, **style)
    axes.set_title("loss (cross-entropy)" if panel == "loss" else panel)
    if panel in ("loss", OBJECTIVE) and spiked(axes):
        axes.set_yscale("log")
        plain_powers(axes.yaxis)
        axes.set_title(axes.get_title(loc="left") + ", logarithmic", loc="left")
    whole_numbers(axes.xaxis)
    if panel == GRADIENT:
        axes.set_yscale("log")
        plain_powers(axes.yaxis)
    if panel == "learning rate":
        top = max(axes.get_ylim()[1], 1e-12)
        power = 1.0 if top >= 0.01 else 10.0 ** math.floor(math.log10(top))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / power:g}")
        axes.set_title("learning rate" + (f" (×{power:.0e})".replace("e-0", "e-") if power < 1 else ""))


def spiked(axes: Any) -> bool:
    """Is a point of a curve more than twenty times as high as the curve's median? All must be above 0."""
    curves = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
    return any(y.max() > SPIKE * np.median(y) for y in curves) and all(y.min() > 0 for y in curves)


def key_of(series: Series) -> list[Any]:
    """A handle for each line style in the figure: its line, its point, or both, as they are drawn, and what they stand for."""
    handles = []
    for dashes, point in POINTS.items():
        metrics = [name for panel in PANELS.values() for name in panel if panel[name] == dashes and name != "lr"]
        lengths = {name: [len(run[name]["epoch"]) for run in series.values() if name in run] for name in metrics}
        found = {length for each in lengths.values() for length in each}
        if found:
            label = "; ".join(dict.fromkeys(word(name) for name in metrics if lengths[name]))
            line: dict[str, Any] = {"linestyle": dashes if max(found) > 1 else "", "linewidth": 1}
            handles.append(Line2D([], [], color=INK, label=label, **line, **(point if 1 in found else {})))
    return handles


def width_of_key(key: Sequence[Any]) -> float:
    """The width of a legend of one row with these handles, in inches, and some space."""
    return sum(width_of(handle.get_label(), SIZE) + (HANDLE + 3) * SIZE for handle in key) / 72


def word(metric: str) -> str:
    """The name of a metric in the legend."""
    return WORDS.get(metric) or WORDS[metric.split("_")[0]]
