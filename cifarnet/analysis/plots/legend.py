"""Legends below a figure: names there hide no point, and stand in no panel."""

from collections.abc import Sequence
from typing import Any

from cifarnet.analysis.plots.mpl import Figure, Line2D
from cifarnet.analysis.plots.style import class_colours, class_markers
from cifarnet.analysis.plots.text import short_names, width_of

SIZE = 7  # points
ROW = 0.16  # inches
NAMED = 20  # classes up to which a figure names them


def columns_of(names: Sequence[str], width: float, most: int = 10) -> int:
    """Columns of a legend in a figure `width` inches wide: `most` or what its longest name leaves room for, rows alike."""
    widest = max(width_of(name, SIZE) for name in names)
    room = max(1, min(most, int(72 * width / (widest + 5 * SIZE))))  # beside a name its mark, and space
    rows = -(-len(names) // room)
    return -(-len(names) // rows)


def class_names(classes: Sequence[str]) -> list[str]:
    """The names in the legend; none where there are too many to tell apart."""
    return short_names(classes, 12) if len(classes) <= NAMED else []


def height_of_classes(classes: Sequence[str], width: float) -> float:
    """The height of `add_classes` in a figure `width` inches wide, in inches."""
    names = class_names(classes)
    return ROW * -(-len(names) // columns_of(names, width)) if names else ROW


def add_classes(figure: Figure, classes: Sequence[str], markers: bool = False) -> None:
    """Adds each class with its colour, and with its marker where the figure has `markers`; of many how many there are."""
    names = class_names(classes)
    if not names:
        text = f"{len(classes):,} classes: too many to name"
        figure.legend([], [], title=text, title_fontsize=SIZE, loc="outside lower left", borderpad=0)
        return
    shapes = class_markers(len(names)) if markers else "o" * len(names)
    style: Any = {"linestyle": "", "markersize": 4.5, "markeredgewidth": 0}
    colours = class_colours(len(names))
    handles = [
        Line2D([], [], color=colour, marker=shape, **style) for colour, shape in zip(colours, shapes, strict=True)
    ]
    columns = columns_of(names, figure.get_figwidth())
    figure.legend(handles, names, loc="outside lower left", ncols=columns, handletextpad=0.2, columnspacing=1.0)
