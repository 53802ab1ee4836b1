"""Foreign text in figures: class names, names of runs and files, titles. Shown as it is, and never wider than its place."""

import bisect
import functools
import warnings
from collections.abc import Sequence
from typing import Any

from cifarnet.analysis.plots.fonts import fonts_for, to_install
from cifarnet.analysis.plots.mpl import Figure, FontProperties, Text, text_to_path
from cifarnet.core.errors import printable
from cifarnet.core.warn import warn

LETTER = 0.634  # the width of its n, in units of the font's size
LINES, LONGEST = 3, 1000  # of a title: lines, and characters of a line
HINTED = 0.97  # a line's width is that of its outlines; pixels may make it 3% wider
CONTEXT = 3  # characters before those that tell names apart
EDGE = 0.01  # where a figure's title begins, in units of its width


def width_of(text: str, size: float, weight: Any = "normal", families: Sequence[str] = ()) -> float:
    """The width of a line of text, in points; `families` where those of a longer text are known."""
    font = FontProperties(family=list(families or fonts_for([text]).families), size=size, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def cut(line: str, room: float, size: float, weight: Any = "normal") -> str:
    """`line` without control characters, and with an ellipsis where it is wider than `room` points."""
    line = printable(line[:LONGEST])
    families = fonts_for([line]).families
    if width_of(line, size, weight, families) <= room:
        return line
    kept = bisect.bisect_right(
        range(len(line)), room, key=lambda end: width_of(line[:end] + "…", size, weight, families)
    )
    return line[: max(kept - 1, 0)] + "…"


def shorten(name: str, length: int) -> str:
    """`name` without control characters, in at most `length` characters and no wider than as many letters n."""
    name = printable(name[:LONGEST])
    name = name if len(name) <= length else name[: length - 1] + "…"
    return cut(name, length * LETTER, 1)


def short_names(names: Sequence[str], length: int) -> list[str]:
    """The names, as `shorten` makes them, but different where they are: those that end alike when cut keep their ends, and
    those whose ends are alike too are numbered, from 0.
    """
    found = [shorten(name, length) for name in names]
    for alike in repeated(found):
        first, *_, last = sorted(names[place] for place in alike)
        common = next((end for end, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        for place in alike:
            found[place] = shorten("…" + names[place][max(common - CONTEXT, 0) :], length)
    for alike in repeated(found):
        for place in alike:
            found[place] = shorten(f"{place} {names[place]}", length)
    return found


def names_in(names: Sequence[str], room: float, size: float, weight: Any = "normal") -> list[str]:
    """The names as `short_names` makes them, for `room` points each."""
    return short_names(names, int(room / width_of("n", size, weight)))


def repeated(names: Sequence[str]) -> list[list[int]]:
    """The places of each name that is there more than once."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [found for found in places.values() if len(found) > 1]


def fit(artist: Text, room: float) -> None:
    """Shortens each line of a text to `room` points."""
    size, weight = float(artist.get_fontsize()), artist.get_fontweight()
    artist.set_text("\n".join(cut(line, HINTED * room, size, weight) for line in artist.get_text().split("\n")))


def stacked(title: str, own: tuple[str, ...]) -> str:
    """The lines of a title, if there are any, above the figure's own; of many lines the title's last stays."""
    lines = title.split("\n") if title else []
    if len(lines) > LINES:
        lines = [*lines[: LINES - 2], lines[LINES - 2] + " …", lines[-1]]
    return "\n".join([*lines, *own])


def height_of(title: str) -> float:
    """The height that a title's lines beyond the first add to a figure, in inches."""
    return 0.16 * stacked(title, ()).count("\n")


def headline(figure: Figure, title: str, *own: str, **style: Any) -> None:
    """Writes `title`, and below it the figure's own lines, above a figure from its left edge."""
    artist = figure.suptitle(stacked(title, own), x=EDGE, ha="left", **style)
    fit(artist, 72 * figure.get_figwidth() * (1 - 2 * EDGE))


def title_axes(axes: Any, title: str, *own: str, **style: Any) -> None:
    """As `headline`, above axes whose left edge follows from the names beside them; call it when all else is there."""
    text, figure = stacked(title, own), axes.figure
    artist = axes.set_title("\n".join("x" for _ in text.split("\n")), **style)
    figure.draw_without_rendering()  # lays out
    artist.set_text(text)
    fit(artist, 72 * (figure.bbox.x1 - axes.bbox.x0) / figure.dpi - 72 * EDGE * figure.get_figwidth())


def texts_of(figure: Figure) -> list[str]:
    """All texts in a figure; the numbers at its ticks are among them once it has been laid out."""
    return [artist.get_text() for artist in figure.findobj(Text)]


class FigureOfTexts(Figure):
    """A figure whose texts have the fonts that hold their characters, whenever it is laid out or drawn."""

    def take_fonts(self) -> None:
        """Names the families to each text; matplotlib finds a font for each character in them."""
        families = fonts_for(texts_of(self)).families
        for artist in self.findobj(Text) if len(families) > 1 else []:
            artist.set_fontfamily(list(families))

    def draw(self, renderer: Any) -> None:
        """As matplotlib's."""
        self.take_fonts()
        super().draw(renderer)


def warn_of_missing_glyphs(figure: Figure) -> None:
    """Warns, once of the same, of characters that no font here has: boxes stand for them."""
    missing = fonts_for(texts_of(figure)).missing
    if missing:
        warn_once(missing)


@functools.cache
def warn_once(missing: str) -> None:
    """A training draws many figures of the same classes."""
    fonts = [name for name in dict.fromkeys(map(to_install, missing)) if name]
    fix = (
        f"install {' and '.join(fonts[:3])}, or see an .svg, which keeps the text"
        if fonts
        else "an .svg keeps the text"
    )
    warn(f"figures: no font here has {cut(missing, 30, 1)}: boxes stand for that; {fix}")
