"""Features of two or three dimensions on the circle or the globe: where classes lie, how tight a margin packs them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.embedding import Sphere
from cifarnet.analysis.plots.legend import add_classes, height_of_classes
from cifarnet.analysis.plots.style import COLOURS, FAINT, IN_A_ROW, PAGE, class_colours, class_markers, drawing, plain
from cifarnet.analysis.plots.text import fit, headline, height_of, names_in
from cifarnet.core.percent import percent

Points = tuple[Sphere, np.ndarray]  # and the classes [N]
LONGEST = 1.2  # where the longest feature of all panels is drawn
LIMIT = 1.25
SIDES = {"front": (1.0, 1.0, 0.55), "back": (-1.0, -1.0, -0.55)}  # from where the two views of the globe look


def draw(panels: Mapping[str, Points], classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws features [N, d] with their classes [N], and prototypes [C, d], d = 2 or 3; a globe from both sides.

    A faint triangle is a feature as it is (all lengths of all panels divided by one number, stated), a line joins it to
    its point on the unit sphere, an arrow is a class's prototype. Each view of a globe shows its near half. The classes
    are named below.

    Raises:
        Failed: the file cannot be written.
    """
    spheres = [sphere for sphere, _ in panels.values()]
    shrink = max(float(np.linalg.norm(sphere.features.numpy(), axis=1).max()) for sphere in spheres) / LONGEST
    shrink = max(shrink, 1e-12)
    flat = all(sphere.features.shape[1] == 2 for sphere in spheres)
    notes = [f"▲ features, length ÷ {shrink:.3g}", f"● on the {'circle' if flat else 'sphere'}   → prototypes"]
    lost = [percent(sphere.lost, 0) for sphere in spheres if sphere.lost]
    notes += [f"the projection leaves out {', '.join(lost)} of the weights"] if lost else []
    sides = 1 if flat else 2
    columns = sides if len(panels) == 1 else min(len(panels), IN_A_ROW)
    rows = -(-len(panels) * sides // columns) if len(panels) == 1 else sides * -(-len(panels) // IN_A_ROW)
    width = PAGE / 2 if columns == 1 else PAGE
    notes = notes if columns == 1 else ["   ".join(notes[:2]), *notes[2:]]
    side = width / columns
    height = rows * (side + 0.1) + 0.2 + height_of(title) + 0.16 * len(notes) + height_of_classes(classes, width)
    names = names_in(list(panels), 72 * 0.95 * side, 7, "bold")
    with drawing(path, width, height) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            plain(axes)
        for number, (name, panel) in enumerate(zip(names, panels.values(), strict=True)):
            top, column = sides * (number // IN_A_ROW), number % IN_A_ROW
            cells = list(grid[0] if len(panels) == 1 else grid[top : top + sides, column])
            draw_panel(cells, panel, shrink, len(classes))
            fit(cells[0].set_title(name, fontsize=7), 72 * 0.95 * side)
        add_classes(figure, classes, markers=len(classes) > len(COLOURS))
        headline(figure, title, *notes, fontsize=7.5)
    return path


def draw_panel(cells: Sequence[Any], panel: Points, shrink: float, classes: int) -> None:
    """A run in its axes: one of a circle, two of a globe, its front and its back."""
    sphere, labels = panel
    colours = class_colours(classes)
    # Beyond the cycle of colours hues lie close together: shapes help to tell classes apart.
    markers = class_markers(classes) if classes > len(COLOURS) else "o" * classes
    features, prototypes = sphere.features.numpy(), sphere.prototypes.numpy()
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    arrows = prototypes / np.maximum(np.linalg.norm(prototypes, axis=1, keepdims=True), 1e-12)
    views = {"": np.eye(2)} if len(features.T) == 2 else {name: camera(np.array(eye)) for name, eye in SIDES.items()}
    for axes, (side, view) in zip(cells, views.items(), strict=False):
        axes.set_aspect("equal")
        axes.set_xlim(-LIMIT, LIMIT)
        axes.set_ylim(-LIMIT, LIMIT)
        draw_globe(axes, view)
        draw_features(axes, features / shrink @ view.T, unit @ view.T, labels, colours, markers)
        draw_prototypes(axes, arrows @ view.T, colours)
        axes.set_xlabel(side)


def camera(eye: np.ndarray) -> np.ndarray:
    """Rows: to the right, up, and towards the viewer who looks from `eye` [3] at the origin, z upright."""
    towards = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def near(points: np.ndarray) -> np.ndarray:
    """Which points [N, d], in the camera's axes, are on the viewer's side (all of them in the plane)."""
    return points[:, 2] >= 0 if points.shape[1] == 3 else np.ones(len(points), dtype=bool)


def draw_globe(axes: Any, view: np.ndarray) -> None:
    """The unit circle; on a globe also its meridians and parallels, every 30 degrees."""
    turn = np.linspace(0, 2 * np.pi, 181)
    axes.plot(np.cos(turn), np.sin(turn), color=FAINT, linewidth=0.8)
    if len(view) == 2:
        return
    lines = [
        (np.cos(turn) * np.cos(a), np.sin(turn) * np.cos(a), np.full_like(turn, np.sin(a))) for a in thirds(-60, 61)
    ]
    lines += [(np.cos(turn) * np.cos(a), np.cos(turn) * np.sin(a), np.sin(turn)) for a in thirds(0, 180)]
    for line in lines:
        seen = np.stack(line, axis=1) @ view.T
        seen[~near(seen)] = np.nan
        axes.plot(seen[:, 0], seen[:, 1], color="#dddddd", linewidth=0.5, zorder=0)


def thirds(start: int, stop: int) -> np.ndarray:
    """Angles every 30 degrees, in radians."""
    return np.radians(np.arange(start, stop, 30))


def draw_features(
    axes: Any, raw: np.ndarray, unit: np.ndarray, labels: np.ndarray, colours: Sequence[Any], markers: str
) -> None:
    """Triangles, lines and points of the features on the viewer's side."""
    seen = near(unit)
    for index, (colour, marker) in enumerate(zip(colours, markers, strict=True)):
        mine = seen & (labels == index)
        start, end = raw[mine][:, :2], unit[mine][:, :2]
        axes.scatter(start[:, 0], start[:, 1], s=9, marker="^", color=colour, alpha=0.28, linewidths=0)
        gap = np.full(len(start), np.nan)
        x, y = (np.stack([start[:, axis], end[:, axis], gap], axis=1).ravel() for axis in (0, 1))
        axes.plot(x, y, color=colour, alpha=0.18, linewidth=0.4)
        axes.scatter(end[:, 0], end[:, 1], s=8, marker=marker, color=colour, alpha=0.9, linewidths=0, zorder=3)


def draw_prototypes(axes: Any, tips: np.ndarray, colours: Sequence[Any]) -> None:
    """Arrows from the middle to the prototypes on the viewer's side."""
    for index in np.nonzero(near(tips))[0].tolist():
        style: Any = {"arrowstyle": "-|>", "color": colours[index], "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=tips[index, :2], xytext=(0, 0), arrowprops=style, zorder=4)
