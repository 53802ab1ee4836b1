"""The effect of a margin: angles to the own and to the nearest other prototype, prototype cosines, feature norms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.embedding import AngleStatistics
from cifarnet.analysis.plots.style import INK, PAGE, drawing, whole_numbers
from cifarnet.analysis.plots.text import fit, headline, height_of, names_in
from cifarnet.core.errors import plural

OWN, OTHER, PLAIN = "#3f90da", "#e76300", "#717581"
BINS = np.arange(0, 181, 2.5)
ROOM = 72 * (PAGE - 0.7)  # points, of a row's title: from the left histogram to the page's edge


def draw(panels: Mapping[str, AngleStatistics], path: Path, title: str = "") -> Path:
    """Draws three histograms a run: angles (own and nearest other), cosines between prototypes, lengths of the features.

    Runs stand below each other, each row named by its key, and a column has one scale. The dashed line in the second
    column is -1/(C-1): all pairs of C prototypes spread as far apart as can be.

    Raises:
        Failed: the file cannot be written.
    """
    everything = list(panels.values())
    cosines = edges([one.cosines for one in everything], 20).clip(-1, 1)
    norms = edges([one.norms for one in everything], 30)
    high = min(180.0, max(float(max(one.own.max(), one.nearest.max())) for one in everything) + 5)
    with drawing(path, PAGE, 0.75 + 1.75 * len(panels) + height_of(title)) as figure:
        shape: Any = {"width_ratios": (1.5, 1, 1), "squeeze": False, "sharex": "col", "sharey": "col"}
        grid = figure.subplots(len(panels), 3, **shape)
        names = names_in(list(panels), ROOM, 8, "bold")
        for (left, middle, right), name, one in zip(grid, names, everything, strict=True):
            draw_angles(left, one)
            middle.hist(one.cosines, cosines, color=PLAIN)
            middle.axvline(-1 / (classes_of(one) - 1), color=INK, linestyle="--", linewidth=0.9)
            right.hist(one.norms, norms, color=PLAIN)
            middle.set_ylabel("pairs")
            whole_numbers(middle.yaxis)
            right.set_ylabel("images")
            fit(left.set_title(name), ROOM)
        left, middle, right = grid[-1]
        left.set_xlim(0, high)
        left.set_xticks(np.arange(0, high, 30))
        left.set_ylim(top=1.32 * left.get_ylim()[1])
        left.set_xlabel("angle θ of a feature to a prototype (degrees)")
        apart = sorted({classes_of(one) - 1 for one in everything})
        middle.set_xlabel(
            f"cos θ between two prototypes\ndashed, as far apart as can be: {' and '.join(f'−1/{n}' for n in apart)}"
        )
        right.set_xlabel("length |z| of a feature")
        counts = list(
            dict.fromkeys(
                f"{plural(len(one.own), 'image')} of {plural(len(np.unique(one.labels)), 'class')}"
                for one in everything
            )
        )
        headline(figure, " · ".join([*([title] if title else []), *counts]), fontsize=8)
    return path


def draw_angles(axes: Any, one: AngleStatistics) -> None:
    """Both histograms of angles, their medians in the legend."""
    for values, colour, name in ((one.own, OWN, "own class"), (one.nearest, OTHER, "nearest other")):
        label = f"{name}: median {np.median(values):.0f}°"
        axes.hist(values, BINS, color=colour, alpha=0.65, label=label)
    axes.set_ylabel("images")
    axes.legend(loc="upper left", handlelength=1.2)


def edges(values: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The edges of `count` bins that all runs share."""
    return np.histogram_bin_edges(np.concatenate(values), count)


def classes_of(one: AngleStatistics) -> int:
    """The number C of prototypes, of which there are C (C - 1) / 2 pairs."""
    return round((1 + np.sqrt(1 + 8 * len(one.cosines))) / 2)


def numbers(angles: AngleStatistics) -> Mapping[str, Any]:
    """The arrays that are drawn, by name."""
    return dict(angles.__dict__)
