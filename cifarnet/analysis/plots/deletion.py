"""The probability of a class as the pixels that heat maps mark are removed, a panel a class."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from cifarnet.analysis.deletion import Deletion
from cifarnet.analysis.plots.style import FAINT, LINES, PAGE, drawing
from cifarnet.analysis.plots.text import fit, headline, height_of

PANEL = PAGE / 3  # inches
REMOVED = "most marked pixels first; removed: the mean colour"
AREA = "numbers: area under the curve, the lower the better"


def draw(panels: Mapping[str, Mapping[str, Deletion]], path: Path, title: str = "") -> Path:
    """Draws a panel for each class: a curve a map, and the mean and the range of the random orders.

    Args:
        panels: by the class's label and the map's name.

    Raises:
        Failed: the file cannot be written.
    """
    with drawing(path, max(1.4, len(panels)) * PANEL, 2.85 + height_of(title)) as figure:
        cells = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (label, curves) in zip(cells, panels.items(), strict=True):
            draw_panel(axes, curves)
            fit(axes.set_title(label, fontweight="normal"), 72 * 0.8 * PANEL)
            axes.set_xlabel("pixels removed (%)")
        cells[0].set_ylabel("probability of the class (%)")
        headline(figure, title, REMOVED, AREA, fontsize=7.5)
    return path


def draw_panel(axes: Any, curves: Mapping[str, Deletion]) -> None:
    """The curves of one class."""
    one = next(iter(curves.values()))
    removed, area = 100 * one.removed.numpy(), fmean(one.random_areas)
    low, high = (100 * found.numpy() for found in (one.random.amin(dim=0), one.random.amax(dim=0)))
    axes.fill_between(removed, low, high, color=FAINT, alpha=0.25, linewidth=0)
    mean = 100 * one.random.mean(dim=0).numpy()
    axes.plot(removed, mean, color=FAINT, linestyle="--", linewidth=1, label=f"random, mean and range: {area:.3f}")
    for (name, found), colour in zip(curves.items(), LINES, strict=False):
        axes.plot(removed, 100 * found.probabilities.numpy(), color=colour, label=f"{name}: {found.area:.3f}")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.29), borderaxespad=0, handlelength=1.6
    )  # below: it covers no curve
