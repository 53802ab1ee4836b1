"""The one way to put text on a terminal: every string is taken as it is, never as markup, and made fit for the terminal first."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.style import Style
from rich.text import Text

from cifarnet.cli.streams import fitting

# Text, or text and its style.
Cell = str | tuple[str, str]

UNLIMITED = 10_000  # columns where nobody reads at a terminal: a line is as long as it needs to be
STYLES = {"warning": "yellow", "error": "red"}


class Terminal(Console):
    """A Rich console for foreign text: names, paths, versions and what files say become neither markup nor control codes.

    Line ends within a string are escaped too: a name cannot begin a line of its own.
    """

    def __init__(self, **options: Any) -> None:
        if options.get("width"):
            # Of a terminal without control codes Rich believes a width with a height alone.
            options.setdefault("height", 25)
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def shown(self, text: str | os.PathLike[str]) -> str:
        """`text` as this terminal can show it."""
        return fitting(text, self.encoding)

    def text(self, *parts: Cell | os.PathLike[str]) -> Text:
        """The parts as one piece of text, each in its style."""
        pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
        return Text.assemble(*((self.shown(text), style) for text, style in pairs))

    def say(self, *parts: Cell | os.PathLike[str], soft_wrap: bool | None = None) -> None:
        """Prints the parts as one line, which is folded at the width; with `soft_wrap` the terminal does that itself."""
        self.print(self.text(*parts), soft_wrap=soft_wrap)

    def remark(self, kind: str, text: str) -> None:
        """Prints `warning: text` or `error: text`."""
        self.say((f"{kind}:", STYLES[kind]), f" {text}")

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A line that moves while work lasts; nothing where this is no terminal."""
        plain = self.text(status) if isinstance(status, str) else status
        return super().status(plain, **{"spinner": "line" if self.options.ascii_only else "dots"} | options)

    def render_str(self, text: str, *, style: str | Style = "", **options: Any) -> Text:
        """Any string that Rich is given, as text: without markup, emoji codes and highlighting."""
        return Text(self.shown(text), style, justify=options.get("justify"), overflow=options.get("overflow"))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's segments, their text once more made fit: nothing reaches the terminal past this."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text == "\n":
                yield segment
            else:
                yield Segment("\n".join(map(self.shown, text.split("\n"))), segment.style)

    def on_broken_pipe(self) -> None:
        """The reader of our output went away: said to the caller, as with any other stream."""
        raise


def messages(quiet: bool = False) -> Terminal:
    """The console of progress and messages: stderr, plain where it is no terminal or NO_COLOR is set."""
    on_terminal = sys.stderr.isatty()
    width = _width_of_dumb(sys.stderr) if on_terminal else UNLIMITED
    return Terminal(stderr=True, quiet=quiet, soft_wrap=not on_terminal, width=width)


def results() -> Terminal:
    """The console of results: stdout. Into a pipe or a file lines are as long as they need to be, or as COLUMNS says."""
    if sys.stdout.isatty():
        return Terminal(width=_width_of_dumb(sys.stdout))
    return Terminal(width=None if os.environ.get("COLUMNS", "").isdigit() else UNLIMITED)


def _width_of_dumb(stream: Any) -> int | None:
    """The width of a terminal without control codes, which Rich takes to be 80; None: Rich asks for it, at each line."""
    if os.environ.get("TERM", "").lower() not in ("dumb", "unknown") or os.environ.get("COLUMNS", "").isdigit():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None
