"""The figure of a regime: by how much each loss is better than cross-entropy, seed by seed, with the interval of the mean."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from margins_plan import METHODS, Measure, Regime
from margins_statistics import Difference

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.plots.style import FAINT, INK, LINES, PAGE, drawing
from cifarnet.analysis.plots.text import headline

ROW, HEAD = 0.27, 1.15  # inches of a loss, and of all else
WIDEST = 3.0  # an interval of two seeds may be ten times as long as all differences: it then runs out of the panel
MARGIN, PLAIN = LINES[0], LINES[4]


def draw(regime: Regime, found: Mapping[Measure, Sequence[Difference]], path: Path) -> Path:
    """A panel a measure, a row a loss: a dot a seed, the mean and its 95% interval, blue with a margin; right of the line is better.

    Raises:
        Failed: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [method for method in regime.methods if method != "ce"]
    width = PAGE if len(found) > 1 else 0.62 * PAGE
    with drawing(path, width, HEAD + ROW * len(names)) as figure:
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, (measure, rows) in zip(panels, found.items(), strict=True):
            axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
            for place, one in enumerate(rows):
                draw_row(axes, place, one)
            axes.set_title(measure.words, fontweight="normal", fontsize=7)
            axes.set_xlabel("points better than cross-entropy")
            axes.set_yticks(range(len(names)), names)
            axes.set_xlim(*reach(rows))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
        headline(figure, title_of(regime, found), fontsize=8)
    return path


def draw_row(axes: Any, place: int, one: Difference) -> None:
    """A loss's dots, and over them the mean with its interval; in words where there is nothing yet."""
    colour = MARGIN if METHODS[one.method].margin else PLAIN
    if not one.values:
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line at 0
        where = axes.get_yaxis_transform()
        axes.text(0.02, place, "not run", color=FAINT, fontsize=6, va="center", transform=where, bbox=paper)
        return
    axes.plot(
        list(one.values.values()),
        [place] * len(one.values),
        "o",
        color=colour,
        markersize=4,
        markeredgecolor="white",
        zorder=3,
    )
    if one.interval is not None:
        ends = [one.interval.low, one.interval.high]
        axes.plot(ends, [place, place], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        axes.plot(one.interval.mean, place, "|", color=INK, markersize=10, markeredgewidth=1.2, zorder=2.5)


def title_of(regime: Regime, found: Mapping[Measure, Sequence[Difference]]) -> str:
    """The regime, and of how many seeds the figure is."""
    counts = {len(one.values) for rows in found.values() for one in rows}
    least, most = min(counts), max(counts)
    many = f"{most}" if least == most else f"{least} to {most}"
    of_all = "" if least == regime.seeds else f" of {regime.seeds}"
    return f"{regime.title}: {many}{of_all} {regime.unit}s, 95% intervals"


def reach(rows: Sequence[Difference]) -> tuple[float, float]:
    """The ends of a panel, points: all dots and 0, and intervals as far as WIDEST times the furthest dot."""
    dots = [0.0, *(value for one in rows for value in one.values.values())]
    most = WIDEST * max(map(abs, dots)) or 1.0
    ends = [end for one in rows if one.interval for end in (one.interval.low, one.interval.high)]
    low, high = max(-most, min(dots + ends)), min(most, max(dots + ends))
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
