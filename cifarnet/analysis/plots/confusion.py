"""The confusion matrix: rows the true class, columns the predicted one, in percent of the row; a panel a run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.style import COLUMN, INK, PAGE, drawing, panel_shape, panels_of, plain, settle
from cifarnet.analysis.plots.text import fit, headline, height_of, names_in, short_names
from cifarnet.analysis.plots.titles import shared
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent

LEAST = 3.5  # points of a name: rows that are lower are not all named
WRITTEN = 20  # classes up to which every cell is written out
NAMES = 0.95  # inches: what the classes' names take, beside and below; the colour bar has less


def numbers(matrix: Any) -> np.ndarray:
    """Counts [C, C] as percent of each row (a class without images has zeros), float64."""
    counts = np.asarray(matrix, dtype=np.float64)
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def draw(panels: Mapping[str, Any], classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws counts [C, C] (rows true, columns predicted; nested lists or an array) normalised by row.

    The colours are linear from 0 to 100%, the same in all panels, each named by its key and its accuracy.

    Raises:
        Failed: the file cannot be written.
    """
    count = len(classes)
    rows, columns = panel_shape(len(panels))
    alone = min(PAGE, max(COLUMN, 1.8 * NAMES + 0.36 * count)) if count <= WRITTEN else PAGE
    width = alone if columns == 1 else PAGE
    side = (width - 1.8 * NAMES - 0.1 * (columns - 1)) / columns  # of a matrix; at the right stands the colour bar
    height = rows * (side + 0.35) + NAMES + height_of(title)
    names = names_in(list(panels), 72 * side, 7)
    counts = [int(np.asarray(matrix).sum()) for matrix in panels.values()]
    of_all = shared([plural(images, "image") for images in counts])
    with drawing(path, width, height) as figure:
        cells = panels_of(figure, len(panels), sharex=True, sharey=True)
        for axes, name, matrix, images in zip(cells, names, panels.values(), counts, strict=True):
            parts = numbers(matrix)
            plain(axes)
            shown = axes.imshow(parts, cmap="Blues", vmin=0, vmax=100)
            accuracy = np.trace(np.asarray(matrix)) / max(images, 1)
            of = "" if of_all else f" of {plural(images, 'image')}"
            text = f"{name}\naccuracy {percent(accuracy)}{of}".lstrip()
            fit(axes.set_title(text, fontweight="normal", fontsize=7), 72 * side)
        name_classes(cells, classes, columns, 72 * side / count)
        beside = cells[columns - 1].inset_axes((1.04, 0, 0.05, 1))  # as high as the matrix
        bar = figure.colorbar(shown, cax=beside, ticks=range(0, 101, 25))
        bar.set_label("% of the images of the true class")
        bar.outline.set_visible(False)  # type: ignore[operator]
        if title or of_all:
            headline(figure, " · ".join(filter(None, (title, of_all))), fontsize=8)
        settle(figure)
        # What stands within the axes moves nothing: hundreds of texts are laid out once, and not in every pass.
        for axes, matrix in zip(cells, panels.values() if count <= WRITTEN else (), strict=False):
            write_cells(axes, numbers(matrix), 72 * side / count)
    return path


def name_classes(cells: Sequence[Any], classes: Sequence[str], columns: int, cell: float) -> None:
    """Names the classes left of the first column and below the last panel of each; a cell has `cell` points."""
    count, each = len(classes), math.ceil(LEAST / (0.8 * cell))
    size = min(7.0, max(LEAST, 0.8 * cell))
    places, names = range(0, count, each), short_names(classes[::each], 14)
    note = f", one of {each} named" if each > 1 else ""
    style: dict[str, Any] = {"rotation": 45 if count <= WRITTEN else 90, "va": "center", "rotation_mode": "anchor"}
    for number, axes in enumerate(cells):
        axes.set_xticks(places, names, fontsize=size, ha="right", **style)
        axes.set_yticks(places, names, fontsize=size)
        left, lowest = number % columns == 0, number + columns >= len(cells)
        axes.tick_params(length=0, labelleft=left, labelbottom=lowest)
        axes.set_ylabel("true class" + note if left else "")
        axes.set_xlabel("predicted class" + note if lowest else "")


def write_cells(axes: Any, parts: np.ndarray, cell: float) -> None:
    """Writes each cell that is not zero, `cell` points wide; dark cells in white. Narrow cells have whole numbers."""
    wide = cell >= 15
    for row, column in zip(*np.nonzero(parts), strict=True):
        value = parts[row, column]
        text = percent(value / 100, 0 if value >= 9.95 or not wide else 1, "")
        ink = "white" if value > 67 else INK  # whichever stands out more, by WCAG
        style: dict[str, Any] = {"fontweight": "bold"} if row == column else {}
        if text != "<1":
            size = min(6.5, (0.45 if len(text) < 3 or wide else 0.36) * cell)
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink, **style)
