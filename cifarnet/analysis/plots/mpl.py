"""Matplotlib, imported whatever backend the user's environment asks for: figures are drawn to files and need none.

The drawing files take matplotlib's names from here, so that this import is always the first.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from cifarnet.core.errors import Failed


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Matplotlib's log reaches whom the user has set up for it, and else nobody: it would print raw lines on stderr."""
    log, nobody = logging.getLogger("matplotlib"), logging.NullHandler()
    log.addHandler(nobody)
    try:
        yield
    finally:
        log.removeHandler(nobody)


@contextlib.contextmanager
def without_backend() -> Iterator[None]:
    """Hides MPLBACKEND: of a name that it does not know, as a notebook's may be elsewhere, matplotlib's import fails."""
    asked = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = asked  # what the import would have done: the user's own plots are as ever


try:
    with quiet_log(), without_backend():
        import matplotlib
        from matplotlib import font_manager, patheffects
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.cm import ScalarMappable
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, get_font
        from matplotlib.ft2font import FT2Font
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle
        from matplotlib.text import Text
        from matplotlib.textpath import text_to_path
        from matplotlib.ticker import LogFormatter
except (OSError, ValueError) as error:  # no folder for its cache, or a matplotlibrc that is no text
    raise Failed(
        "drawing figures", f"matplotlib does not start ({error})", "see MPLCONFIGDIR and MATPLOTLIBRC"
    ) from error

__all__ = [
    "FT2Font", "Figure", "FigureCanvasAgg", "FontProperties", "Line2D", "LogFormatter", "Rectangle", "ScalarMappable",
    "Text", "findSystemFonts", "findfont", "font_manager", "get_font", "matplotlib", "patheffects", "quiet_log", "text_to_path",
]  # fmt: skip
