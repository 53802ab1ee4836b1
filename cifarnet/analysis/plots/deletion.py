"""The probability of a class as the pixels that heat maps mark are removed, a panel a class."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from cifarnet.analysis.deletion import Deletion
from cifarnet.analysis.plots.mpl import patheffects
from cifarnet.analysis.plots.style import FAINT, INK, LINES, PAGE, drawing
from cifarnet.analysis.plots.text import fit, headline, height_of

PANEL = PAGE / 3  # inches
REMOVED = "most marked pixels first; removed: {}"
AREA = "numbers: area under the curve, the lower the better"


def draw(panels: Mapping[str, Mapping[str, Deletion]], path: Path, colour: str, title: str = "") -> Path:
    """Draws a panel for each class: a curve a map; of random pixels and maps the mean, and a standard deviation about it.

    Args:
        panels: by the class's label and the map's name.
        colour: that of a removed pixel, in words.

    Raises:
        Failed: the file cannot be written.
    """
    with drawing(path, max(1.4, len(panels)) * PANEL, 2.75 + height_of(title)) as figure:
        cells = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (label, curves) in zip(cells, panels.items(), strict=True):
            draw_panel(axes, curves)
            fit(axes.set_title(label, fontweight="normal"), 72 * 0.8 * PANEL)
            axes.set_xlabel("pixels removed (%)")
        cells[0].set_ylabel("probability of the class (%)")
        top = 100 * max(float(one.probabilities.max()) for curves in panels.values() for one in curves.values())
        cells[0].set_ylim(0, 103 if top > 50 else max(1.4 * top, 1e-3))  # room for the numbers above the curves
        handles, names = cells[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=4 if len(panels) > 1 else 2)
        headline(figure, title, REMOVED.format(colour), AREA, fontsize=7.5)
    return path


def draw_panel(axes: Any, curves: Mapping[str, Deletion]) -> None:
    """The curves of one class, and the area under each in its colour."""
    one = next(iter(curves.values()))
    removed, areas = 100 * one.removed.numpy(), []
    for (name, found), colour in zip(curves.items(), LINES, strict=False):
        axes.plot(removed, 100 * found.probabilities.numpy(), color=colour, label=name)
        areas.append((found.area, colour))
    for name, drawn, colour, dashes in (
        ("random pixels", one.random, FAINT, "--"),
        ("random maps", one.random_maps, INK, ":"),
    ):
        mean, spread = (100 * part.numpy() for part in (drawn.mean(dim=0), drawn.std(dim=0)))
        axes.fill_between(
            removed, (mean - spread).clip(0), (mean + spread).clip(max=100), color=FAINT, alpha=0.2, linewidth=0
        )
        axes.plot(removed, mean, dashes, color=colour, linewidth=1, label=name)
        areas.append((fmean(one.areas(drawn)), colour))
    outline: Any = [patheffects.withStroke(linewidth=2, foreground="white")]
    for number, (area, colour) in enumerate(areas):
        style: Any = {"color": colour, "fontsize": 7, "fontweight": "bold", "path_effects": outline}
        place = (0.98, 0.97 - 0.08 * number)
        axes.text(
            *place,
            f"{area:.3f}" if area >= 0.01 else f"{area:.2g}",
            transform=axes.transAxes,
            ha="right",
            va="top",
            **style,
        )
    axes.set_xlim(0, 100)
