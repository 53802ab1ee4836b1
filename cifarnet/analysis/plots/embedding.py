"""Features in the plane: a point an image, a colour and a marker a class, a panel a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.legend import add_classes, height_of_classes
from cifarnet.analysis.plots.style import (
    COLUMN,
    PAGE,
    class_colours,
    class_markers,
    drawing,
    panel_shape,
    panels_of,
    plain,
)  # fmt: skip
from cifarnet.analysis.plots.text import fit, headline, height_of, names_in

Points = tuple[np.ndarray, np.ndarray]  # [N, 2] and the classes [N]
ROOM = 0.53  # of the widest cloud, to each side of a panel's middle


def draw(
    panels: Mapping[str, Points], classes: Sequence[str], path: Path, title: str = "", one_scale: bool = True
) -> Path:
    """Draws the points of each panel, named by its key; the classes are named below.

    Args:
        one_scale: all panels have the same unit; else each is filled by its points.

    Raises:
        Failed: the file cannot be written.
    """
    rows, columns = panel_shape(len(panels))
    width = COLUMN if columns == 1 else PAGE
    side = width / columns
    height = rows * (side + 0.25 * (len(panels) > 1)) + 0.2 + height_of(title) + height_of_classes(classes, width)
    rooms = [max(1e-9, ROOM * float(np.ptp(points, axis=0).max())) for points, _ in panels.values()]
    rooms = [max(rooms)] * len(rooms) if one_scale else rooms
    names = names_in(list(panels), 72 * 0.95 * side, 7, "bold")
    with drawing(path, width, height) as figure:
        cells = panels_of(figure, len(panels))
        for axes, room, name, (points, labels) in zip(cells, rooms, names, panels.values(), strict=True):
            plain(axes)
            draw_points(axes, points, labels, len(classes), s=9 if columns == 1 else 5)
            middle = (points.min(axis=0) + points.max(axis=0)) / 2
            axes.set_xlim(middle[0] - room, middle[0] + room)
            axes.set_ylim(middle[1] - room, middle[1] + room)
            axes.set_aspect("equal")
            fit(axes.set_title(name, fontsize=7), 72 * 0.95 * side)
        add_classes(figure, classes, markers=True)
        if title:
            headline(figure, title, fontsize=7.5)
    return path


def draw_points(axes: Any, points: np.ndarray, labels: np.ndarray, classes: int, **style: Any) -> None:
    """Points [N, 2] of classes `labels` [N]. Each class's are drawn a few at a time, so that none covers the others."""
    colours, markers = class_colours(classes), class_markers(classes)
    for part in np.array_split(np.random.default_rng(0).permutation(len(points)), 8):
        for index in np.unique(labels[part]).tolist():
            mine = points[part][labels[part] == index]
            look: Any = {"color": colours[index], "marker": markers[index]}
            axes.scatter(mine[:, 0], mine[:, 1], linewidths=0, alpha=0.85, **look, **style)
