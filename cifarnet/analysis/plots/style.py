"""The style of all figures: sizes, fonts, colours that colour-blind readers tell apart, and how a figure is saved."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.fonts import FONT
from cifarnet.analysis.plots.mpl import Figure, FigureCanvasAgg, LogFormatter, matplotlib, quiet_log
from cifarnet.analysis.plots.text import FigureOfTexts, warn_of_missing_glyphs
from cifarnet.core.errors import Refused
from cifarnet.core.process_wide import ProcessWide
from cifarnet.storage.output import write_output

COLUMN, PAGE = 3.5, 7.1  # inches: a column and a page of a two-column paper
IN_A_ROW = 3  # panels, as in the figures of a page
FORMATS = (".png", ".svg", ".pdf")
PASSES, STILL = 8, 1e-4  # of a layout; parts of a figure's side, a twentieth of a point
INK, FAINT = "#222222", "#8a8a8a"
RIGHT, WRONG = "#1a7f37", "#cf222e"

# Petroff's ten-colour cycle (arXiv 2107.02270): found by search for distinctness under simulated colour blindness.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
# Petroff's six-colour cycle: fewer lines, further apart.
LINES = ("#5790fc", "#e42536", "#f89c20", "#964a8b", "#9c9ca1", "#7a21dd")
MARKERS = "osD^vP*X<>"

# Over the defaults of matplotlib, never over what the user's own matplotlibrc says.
STYLE: Any = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 200,
    "font.family": FONT,
    "font.size": 7.5,
    "text.parse_math": False,  # a class may be called $x
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "cifarnet",  # the same numbers give the same file
}


def check_path(path: Path) -> Path:
    """`path`, if a figure can go there; call it before the work that makes the figure.

    Raises:
        Refused: the suffix names no format of ours, or a folder is in the way.
    """
    if path.suffix.lower() not in FORMATS:
        raise Refused(str(path), f"'{path.suffix}' is no format for a figure", f"end the name in {', '.join(FORMATS)}")
    if path.is_dir():
        raise Refused(str(path), "is a folder", "name a file")
    return path


@contextmanager
def drawing(path: Path, width: float = PAGE, height: float = 2.6) -> Iterator[FigureOfTexts]:
    """A figure of `width` x `height` inches in our style, saved to `path` at the end of the block.

    Raises:
        Refused: a suffix that is no format of ours. Failed: the file cannot be written.
    """
    check_path(path)
    with our_style():
        # Laid out in the pixels that it is saved in: at others texts have other widths.
        figure = FigureOfTexts(figsize=(width, height), dpi=STYLE["savefig.dpi"], layout="constrained")
        FigureCanvasAgg(
            figure
        )  # keeps one renderer, and with it the sizes of texts, for all passes and for the drawing
        yield figure
        settle(figure)
        save(figure, path)


@contextmanager
def _styled() -> Iterator[None]:
    defaults: dict[Any, Any] = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context({**defaults, **STYLE}), quiet_log(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # said by `warn_of_missing_glyphs`
        yield


_STYLE = ProcessWide(_styled)


def our_style() -> ProcessWide:
    """Our style alone holds within it, whatever the user's says; and matplotlib says nothing of its own on stderr."""
    return _STYLE


def save(figure: Figure, path: Path) -> None:
    """Renders in memory and writes atomically; a figure that is there already is replaced whole."""
    kind = path.suffix.lower()[1:]
    stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    buffer = io.BytesIO()
    if kind != "svg":
        warn_of_missing_glyphs(figure)
    figure.savefig(buffer, format=kind, metadata=stamp)
    write_output(path, buffer.getvalue())


def class_colours(count: int) -> list[Any]:
    """A colour a class, the same in every figure: the cycle up to ten, beyond that evenly spaced hues."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [matplotlib.colormaps["turbo"](0.03 + 0.94 * index / (count - 1)) for index in range(count)]


def line_colours(count: int) -> list[Any]:
    """A colour a run: the six that are furthest apart, for more runs as for so many classes."""
    return list(LINES[:count]) if count <= len(LINES) else class_colours(count)


def class_markers(count: int) -> str:
    """A marker a class: shape tells classes apart where colour does not."""
    return (MARKERS * (count // len(MARKERS) + 1))[:count]


def panels_of(figure: Figure, count: int, columns: int = IN_A_ROW, **shared: Any) -> list[Any]:
    """`count` axes, `columns` in a row."""
    columns = min(count, columns)
    cells = figure.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel()
    for empty in cells[count:]:
        empty.remove()
    return list(cells[:count])


def panel_shape(count: int) -> tuple[int, int]:
    """Rows and columns of so many panels."""
    return -(-count // IN_A_ROW), min(count, IN_A_ROW)


def plain(axes: Any) -> None:
    """Takes away ticks, grid and frame: for pictures and maps whose coordinates mean nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def whole_numbers(axis: Any) -> None:
    """Puts ticks at whole numbers alone, at one where the axis has no more: the locator wants two, and takes fractions."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


class PlainLog(LogFormatter):
    """Labels the ticks between the powers of ten, where there is room, as `plain_powers` labels these."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:.4g}" if super().__call__(x, pos) else ""


def plain_powers(axis: Any) -> None:
    """Labels a logarithmic axis 0.01, 1, 100: its own labels are formulas, which the style leaves unread."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(PlainLog(labelOnlyBase=False))


def settle(figure: FigureOfTexts) -> None:
    """Lays the figure out until its axes stand still, and leaves them there: whatever is drawn or saved then moves nothing.

    Axes of one aspect find their place beside what stands around them bit by bit: the further, the longer their names are.
    """
    figure.take_fonts()
    engine: Any = figure.get_layout_engine()
    before = None
    for _ in range(PASSES if engine and figure.axes else 0):  # matplotlib warns where there is nothing to lay out
        engine.execute(figure)
        places = np.array([axes.get_position(original=True).extents for axes in figure.axes])
        if before is not None and np.abs(places - before).max(initial=0) < STILL:
            break
        before = places
    figure.set_layout_engine(None)  # with "none" saving would draw twice, the first time for a layout


def pack(figure: Figure, inches: float) -> None:
    """Puts pictures close together, this far apart."""
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=inches, h_pad=inches, wspace=0, hspace=0)


def present(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a metric, where the records have it as a finite number."""
    pairs = [(record.get("epoch"), record.get(name)) for record in records]
    pairs = [(epoch, value) for epoch, value in pairs if is_number(epoch) and is_number(value)]
    return [float(epoch) for epoch, _ in pairs], [float(value) for _, value in pairs]  # type: ignore[arg-type]


def is_number(value: Any) -> bool:
    """True for a finite number: a value of a metrics log that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
