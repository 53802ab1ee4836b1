"""The one renderer of tables: what does not fit the terminal is left out as a whole column or stacked, never cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from cifarnet.cli.terminal import Cell, Terminal

GAP = 2  # spaces between two columns
LEAST = 16  # columns that a text needs beside its name; with less it stands below the name
STACKED = 2  # so few rows are stacked before a column is left out
ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its heading.
        drop: the order in which columns go where the terminal is narrow, the highest first; 0 stays.
        number: a number, at the right and never folded; a text may go on below itself.
        width: the least width.
    """

    name: str
    drop: int = 0
    number: bool = True
    width: int = 0


class Table:
    """Columns and rows with a title, as wide as they are.

    On a narrow terminal the columns that matter least are left out, and named in a line below; few rows, and rows whose
    most important columns do not fit, are stacked: `name  value` lines.
    """

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], title: Cell = "", gap: int = GAP):
        self.columns, self.rows, self.title, self.gap = columns, rows, title, gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        terminal, room = cast(Terminal, console), options.max_width
        if self.title:
            yield terminal.text(self.title)
        widths = self.widths(terminal)
        least = [
            wide if column.number else min(wide, max(LEAST, 2 * room // 5))
            for column, wide in zip(self.columns, widths, strict=True)
        ]
        kept = that_fit(self.columns, least, room, self.gap)
        lost = [column.name for index, column in enumerate(self.columns) if column.name and index not in kept]
        if not kept or (lost and len(self.rows) <= STACKED):
            yield from self.stacked()
            return
        spare = room - sum(least[index] for index in kept) - self.gap * (len(kept) - 1)
        for index in kept:
            more = min(spare, widths[index] - least[index])
            least[index], spare = least[index] + more, spare - more
        yield self.drawn(terminal, options.ascii_only, {index: least[index] for index in kept})
        if lost:
            yield left_out(terminal, lost)

    def widths(self, terminal: Terminal) -> list[int]:
        """The width of each column that shows all of it."""
        wide = [max(column.width, terminal.text(column.name).cell_len) for column in self.columns]
        for row in self.rows:
            wide = [max(width, terminal.text(cell).cell_len) for width, cell in zip(wide, row, strict=True)]
        return wide

    def fits(self, terminal: Terminal) -> bool:
        """Is the terminal wide enough for all columns, unfolded?"""
        return sum(self.widths(terminal)) + self.gap * (len(self.columns) - 1) <= terminal.width

    def drawn(self, terminal: Terminal, ascii_only: bool, widths: dict[int, int]) -> RichTable:
        """The columns that `widths` names, by Rich."""
        table = RichTable(
            box=ASCII_HEAD if ascii_only else box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, self.gap - 1, 0, 0),
            header_style="bold",
        )
        for index, width in widths.items():
            column = self.columns[index]
            justify = "right" if column.number else "left"
            table.add_column(column.name, justify=justify, width=width, no_wrap=column.number, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*(terminal.text(row[index]) for index in widths))
        return table

    def stacked(self) -> Iterator[RenderableType]:
        """Each row as lines of its own; cells without a heading or without text are left out."""
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            named = [(column.name, cell) for column, cell in zip(self.columns, row, strict=True) if column.name]
            yield Facts([(name, cell) for name, cell in named if cell and cell[0]])


class Facts:
    """Lines of a name and a text, which goes on below itself; one with a word that is too long for that stands below its name.

    Args:
        rows: names with their texts.
        indent: spaces before each line.
        width: the least width of the names.
        style: of the names.
    """

    def __init__(self, rows: Sequence[tuple[str, Cell]], indent: int = 0, width: int = 0, style: str = "dim"):
        self.rows, self.indent, self.width, self.style = rows, indent, width, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        terminal, before = cast(Terminal, console), " " * self.indent
        names = [terminal.text((name, self.style)) for name, _ in self.rows]
        wide = max([self.width, *(name.cell_len for name in names)])
        room = options.max_width - self.indent - wide - GAP
        for name, (_, cell) in zip(names, self.rows, strict=True):
            text = terminal.text(cell)
            word = max((cell_len(word) for word in text.plain.split()), default=0)
            if room < min(LEAST, text.cell_len) or room < word <= options.max_width - self.indent - GAP:
                yield Text(before) + name
                for line in text.wrap(console, max(1, options.max_width - self.indent - GAP), overflow="fold"):
                    yield Text(before + " " * GAP) + line
                continue
            name.pad_right(wide + GAP - name.cell_len)
            for number, line in enumerate(text.wrap(console, max(1, room), overflow="fold")):
                yield Text(before) + (Text(" " * (wide + GAP)) if number else name) + line


class Lines:
    """A table whose rows come one by one, as training goes on: the columns are chosen when their headings are printed."""

    def __init__(self, console: Terminal, columns: Sequence[Column]) -> None:
        self.console, self.columns = console, columns
        self.widths = [max(column.width, len(column.name)) for column in columns]
        self.room = 0
        self.kept: list[int] = []

    def head(self) -> None:
        """Prints the headings of the columns that fit, and what was left out."""
        self.room = self.console.width
        self.kept = that_fit(self.columns, self.widths, self.room) or [0]
        if lost := [column.name for index, column in enumerate(self.columns) if index not in self.kept]:
            self.console.print(left_out(self.console, lost))
        self.console.say((self._joined([column.name for column in self.columns]), "bold"))

    def line(self, cells: Sequence[str]) -> None:
        """Prints a row; where the terminal has got another width since the headings, these once more."""
        if self.console.width != self.room:
            self.head()
        self.console.say(self._joined(cells))

    def _joined(self, cells: Sequence[str]) -> str:
        return (" " * GAP).join(cells[index].rjust(self.widths[index]) for index in self.kept)


def that_fit(columns: Sequence[Column], widths: Sequence[int], room: int, gap: int = GAP) -> list[int]:
    """The columns, by index, that fit into `room` once the least important are left out; [] where even the others do not."""
    kept = list(range(len(columns)))
    while sum(widths[index] for index in kept) + gap * (len(kept) - 1) > room:
        last = max(kept, key=lambda index: columns[index].drop)
        if columns[last].drop == 0:
            return []
        kept.remove(last)
    return kept


def left_out(terminal: Terminal, names: Sequence[str]) -> Text:
    """The line that says which columns are not shown."""
    return terminal.text((f"a wider terminal also shows: {', '.join(names)}", "dim"))
