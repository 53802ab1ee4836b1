"""Features in the plane: a point an image, a colour and a marker a class, the class's name at its middle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.mpl import patheffects
from cifarnet.analysis.plots.style import COLOURS, COLUMN, INK, class_colours, class_markers, drawing, plain
from cifarnet.analysis.plots.text import shorten, title_axes


def draw(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws points [N, 2] of classes `labels` [N].

    Up to ten classes each has its name at the median of its points, moved apart where names would meet.

    Raises:
        Failed: the file cannot be written.
    """
    colours, markers = class_colours(len(classes)), class_markers(len(classes))
    with drawing(path, COLUMN, COLUMN) as figure:
        axes = figure.subplots()
        plain(axes)
        for index in range(len(classes)):
            mine = points[labels == index]
            axes.scatter(
                mine[:, 0], mine[:, 1], s=9, color=colours[index], marker=markers[index], linewidths=0, alpha=0.85
            )
        axes.margins(0.06)
        if len(classes) <= len(COLOURS):
            there = np.unique(labels).tolist()
            places = [place_of_name(points[labels == index], np.ptp(points[:, 1])) for index in there]
            middles, outward = np.array([place[0] for place in places]), np.array([place[1] for place in places])
            write_names(figure, axes, middles, [shorten(classes[index], 12) for index in there], outward)
        if title:
            title_axes(axes, title, fontsize=7.5)
    return path


def place_of_name(points: np.ndarray, height: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a class's name stands, and to which side of it: amid its points [n, 2], or above where packed.

    The middle is the point that half of the class lies closest around, so that of two clusters the larger is named.
    """
    some = points[:: 1 + len(points) // 500]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)
    x, y = (float(value) for value in some[np.median(apart, axis=1).argmin()])
    low, high = np.quantile(points[:, 1], (0.1, 0.9))  # stragglers do not count
    return ((x, float(high)), (0.0, 1.0)) if high - low < 0.15 * height else ((x, y), (0.0, 0.0))


def write_names(
    figure: Any, axes: Any, middles: np.ndarray, names: Sequence[str], outward: np.ndarray | float = 0.0
) -> None:
    """Writes names at `middles` [C, 2] in data coordinates, or beside them in the directions `outward` [C, 2].

    Names that overlap are pushed apart.
    """
    style: Any = {"ha": "center", "va": "center", "fontsize": 7, "fontweight": "bold"}
    texts = [axes.text(x, y, name, color=INK, zorder=3.2, **style) for (x, y), name in zip(middles, names, strict=True)]
    halo = [patheffects.Stroke(linewidth=2.2, foreground="white")]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    centres = axes.transData.transform(middles)
    half = np.array([[box.width / 2 + 3, box.height / 2 + 1] for box in boxes])
    beside = centres + outward * (half + 4)
    for text, centre in zip(texts, push_apart(beside, half), strict=True):
        x, y = axes.transData.inverted().transform(centre)
        text.set_position((x, y))
        # The halo is a text of its own, behind: one text with an effect would be no text in an SVG, but outlines.
        axes.text(x, y, text.get_text(), path_effects=halo, zorder=3.1, **style)


def push_apart(centres: np.ndarray, half: np.ndarray, rounds: int = 200) -> np.ndarray:
    """Boxes with centres [n, 2] and half sizes [n, 2], moved up and down, least first, until none overlaps."""
    moved = centres.astype(float).copy()
    for _ in range(rounds):
        still = True
        for i in range(len(moved)):
            for j in range(i):
                gap = np.abs(moved[i] - moved[j]) - (half[i] + half[j])
                if (gap < 0).all():
                    still = False
                    shift = -gap[1] / 2 + 0.5
                    up = 1.0 if moved[i, 1] >= moved[j, 1] else -1.0
                    moved[i, 1] += up * shift
                    moved[j, 1] -= up * shift
        if still:
            break
    return moved
