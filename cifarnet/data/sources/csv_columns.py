"""Which columns of a CSV hold the images, the labels and the parts: by their headings, else by what is in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Refused, printable
from cifarnet.data.images.index import names
from cifarnet.data.sources.labels import LABELS, pick_column
from cifarnet.data.sources.layouts import role_of

IMAGES = (
    "path", "image_path", "img_path", "filepath", "file_path", "file", "filename", "file_name", "image", "img",
    "image_name", "img_name", "images", "image_id", "img_id", "id", "name",
)  # fmt: skip
PARTS = ("split", "subset", "set", "part", "partition", "phase", "fold")
LOOKED_AT = 50  # lines


@dataclass(frozen=True)
class Columns:
    """Numbers of the columns, from 0; `part` is None where no column says the part; headed: the first line is of headings."""

    headings: tuple[str, ...]
    image: int
    label: int
    part: int | None
    headed: bool

    def said(self, number: int) -> str:
        """The column for a message."""
        return f"the column {printable(self.headings[number])}" if self.headed else f"column {number + 1}"


def find_columns(
    path: Path, rows: list[list[str]], options: Mapping[str, Any], is_file: Callable[[str], bool]
) -> Columns:
    """The columns of a table.

    Args:
        rows: all of its lines, each of as many cells.
        options: `image_column` and `label_column` name them (or give their number, from 1, where there are no headings).
        is_file: tells whether a cell names a file that is there.

    Raises:
        Refused: one of them cannot be told, or has the name of none.
    """
    first = rows[0]
    headed = not any(is_file(cell) for cell in first)
    headings = tuple(first) if headed else tuple(str(number) for number in range(1, len(first) + 1))
    body = rows[headed:][:LOOKED_AT]
    image, label = (asked(path, options.get(name), headings, name) for name in ("image_column", "label_column"))
    part = next((n for n in places(headings, PARTS) if n not in (image, label) and tells_parts(rows[headed:], n)), None)
    if image is None:
        held = [n for n in range(len(first)) if n not in (label, part) and all(is_file(row[n]) for row in body)]
        named = [n for n in places(headings, IMAGES) if n not in (label, part)]
        image = next(iter([n for n in named if n in held] or held or named), None)
    if image is None:
        raise refuse(path, "image", headings, "holds the images' paths")
    if label is None:
        others = [n for n in range(len(first)) if n not in (image, part)]
        named = [n for n in places(headings, LABELS) if n in others]
        repeated = [n for n in others if 1 < len({row[n] for row in rows[headed:]}) < len(rows) - headed]
        label = named[0] if named else repeated[0] if len(repeated) == 1 else others[0] if len(others) == 1 else None
    if label is None or label == image:
        raise refuse(path, "label", headings, "holds the labels")
    return Columns(headings, image, label, part, headed)


def places(headings: Sequence[str], known: Sequence[str]) -> list[int]:
    """The columns that bear a known name, the likeliest first."""
    found = (pick_column(headings, [name]) for name in known)
    return [headings.index(name) for name in found if name is not None]


def tells_parts(rows: list[list[str]], number: int) -> bool:
    """Does a cell of a column name a part? (Lines where it names none are left out, and said to be.)"""
    return any(role_of(value) for value in {row[number] for row in rows})


def asked(path: Path, name: str | None, headings: Sequence[str], option: str) -> int | None:
    """The place of the column that the user named; None where none was named."""
    if not name:
        return None
    if name not in headings:
        raise Refused(
            printable(path), f"has no column {printable(name)}", f"`{option}` is one of {names(list(headings))}"
        )
    return list(headings).index(name)


def refuse(path: Path, kind: str, headings: Sequence[str], does: str) -> Refused:
    """The error where a column cannot be told."""
    why = f"which of its columns {does} cannot be told: {names(list(headings))}"
    return Refused(printable(path), why, f"name it with `{kind}_column`")
