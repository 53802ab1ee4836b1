"""Features of two or three dimensions on the circle or the globe: where classes lie, how tight a margin packs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.embedding import Sphere
from cifarnet.analysis.plots.embedding import write_names
from cifarnet.analysis.plots.style import COLOURS, FAINT, PAGE, class_colours, drawing, plain
from cifarnet.analysis.plots.text import headline, shorten

RAW_RADIUS = 1.3  # where the length that 95% of the features keep below is drawn
LIMIT = 1.5
SIDES = {"front": (1.0, 1.0, 0.55), "back": (-1.0, -1.0, -0.55)}  # from where the two views of the globe look


def draw(sphere: Sphere, labels: np.ndarray, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws features [N, d] of classes `labels` [N] and prototypes [C, d], d = 2 or 3; a globe from both sides.

    A faint triangle is a feature as it is (all lengths divided by one number, stated), a line joins it to its point
    on the unit sphere, an arrow is a class's prototype. Each view of a globe shows its near half.

    Raises:
        Failed: the file cannot be written.
    """
    features, prototypes = sphere.features.numpy(), sphere.prototypes.numpy()
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    shrink = float(max(np.quantile(norms, 0.95), 1e-12)) / RAW_RADIUS
    unit = features / np.maximum(norms, 1e-12)
    arrows = prototypes / np.maximum(np.linalg.norm(prototypes, axis=1, keepdims=True), 1e-12)
    flat = features.shape[1] == 2
    views = {"": np.eye(2)} if flat else {side: camera(np.array(eye)) for side, eye in SIDES.items()}
    with drawing(path, PAGE / 2 if flat else PAGE, 0.92 * PAGE / 2 + 0.4) as figure:
        grid = figure.subplots(1, len(views), squeeze=False)[0]
        for axes, (side, view) in zip(grid, views.items(), strict=True):
            plain(axes)
            axes.set_aspect("equal")
            axes.set_xlim(-LIMIT, LIMIT)
            axes.set_ylim(-0.92 * LIMIT, 0.92 * LIMIT)
            draw_globe(axes, view)
            draw_features(axes, features / shrink @ view.T, unit @ view.T, labels, class_colours(len(classes)))
            draw_prototypes(figure, axes, arrows @ view.T, classes)
            axes.set_xlabel(side)
        captions = [f"▲ features, length ÷ {shrink:.3g}   ● on the {'circle' if flat else 'sphere'}   → prototypes"]
        if sphere.lost:
            captions.append(f"the projection leaves out {100 * sphere.lost:.0f}% of the weights")
        headline(figure, title, *captions, fontsize=7.5)
    return path


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


def draw_features(axes: Any, raw: np.ndarray, unit: np.ndarray, labels: np.ndarray, colours: Sequence[Any]) -> None:
    """Triangles, lines and points of the features on the viewer's side."""
    seen = near(unit)
    for index, colour in enumerate(colours):
        mine = seen & (labels == index)
        start, end = raw[mine][:, :2], unit[mine][:, :2]
        axes.scatter(start[:, 0], start[:, 1], s=9, marker="^", color=colour, alpha=0.28, linewidths=0)
        gap = np.full(len(start), np.nan)
        x, y = (np.stack([start[:, axis], end[:, axis], gap], axis=1).ravel() for axis in (0, 1))
        axes.plot(x, y, color=colour, alpha=0.18, linewidth=0.4)
        axes.scatter(end[:, 0], end[:, 1], s=8, color=colour, alpha=0.9, linewidths=0, zorder=3)


def draw_prototypes(figure: Any, axes: Any, tips: np.ndarray, classes: Sequence[str]) -> None:
    """Arrows from the middle to the prototypes on the viewer's side, and their classes' names."""
    colours, seen = class_colours(len(classes)), near(tips)
    for index in np.nonzero(seen)[0].tolist():
        style: Any = {"arrowstyle": "-|>", "color": colours[index], "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=tips[index, :2], xytext=(0, 0), arrowprops=style, zorder=4)
    if len(classes) <= len(COLOURS) and seen.any():
        away = tips[seen][:, :2]
        length = np.linalg.norm(away, axis=1, keepdims=True)
        names = [shorten(classes[index], 12) for index in np.nonzero(seen)[0].tolist()]
        write_names(figure, axes, away, names, away / np.maximum(length, 1e-9))
