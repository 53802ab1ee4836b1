"""The confusion matrix: rows the true class, columns the predicted one, in percent of the row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.style import COLUMN, INK, PAGE, drawing, plain
from cifarnet.analysis.plots.text import shorten, title_axes

WRITTEN = 20  # classes up to which every cell is written out


def numbers(matrix: Any) -> np.ndarray:
    """Counts [C, C] as percent of each row (a class without images has zeros), float64."""
    counts = np.asarray(matrix, dtype=np.float64)
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def draw(matrix: Any, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws counts [C, C] (rows true, columns predicted; nested lists or an array) normalised by row.

    The colour scale is that of the square root, so that a few percent of mistakes can be seen beside the diagonal.

    Raises:
        Failed: the file cannot be written.
    """
    percent = numbers(matrix)
    count = len(classes)
    width = min(PAGE, max(COLUMN, 1.3 + 0.36 * count)) if count <= WRITTEN else PAGE
    with drawing(path, width, width * 0.96) as figure:
        axes = figure.subplots()
        plain(axes)
        axes.imshow(np.sqrt(percent), cmap="Blues", vmin=0, vmax=10)
        if count <= WRITTEN:
            write_cells(axes, percent)
        names = [shorten(name, 14) for name in classes]
        size = 7 if count <= WRITTEN else max(2.0, 400 / count)
        turn = 45 if count <= WRITTEN else 90
        turned: dict[str, Any] = {"rotation": turn, "ha": "right", "va": "center", "rotation_mode": "anchor"}
        axes.set_xticks(range(count), names, fontsize=size, **turned)
        axes.set_yticks(range(count), names, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        accuracy = np.trace(np.asarray(matrix)) / max(np.asarray(matrix).sum(), 1)
        subtitle = f"% of each row; accuracy {100 * accuracy:.2f}%"
        title_axes(axes, title, subtitle, fontweight="normal")
    return path


def write_cells(axes: Any, percent: np.ndarray) -> None:
    """Writes each cell that is not zero; dark cells in white."""
    for row, column in zip(*np.nonzero(percent), strict=True):
        value = percent[row, column]
        text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
        ink = "white" if value > 45 else INK
        style: dict[str, Any] = {"fontweight": "bold"} if row == column else {}
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink, **style)
