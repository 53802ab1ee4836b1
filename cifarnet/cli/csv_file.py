"""Rows -> a CSV file that a spreadsheet opens as what it is: names and numbers, no formulas."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifarnet.storage.output import write_output

# A cell that begins so is computed by spreadsheets (OWASP, "CSV Injection"; the wide forms are taken for the narrow ones).
FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV file (UTF-8), replaced as a whole. A name in undecodable bytes is written in these bytes.

    Raises:
        Failed: it cannot be written.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([cell_of(value) for value in row] for row in [header, *rows])
    write_output(path, encoded(text.getvalue()))


def cell_of(value: Any) -> Any:
    """A number as it is, negative ones too; text that a spreadsheet would compute with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def encoded(text: str) -> bytes:
    """UTF-8; half a character, which no encoding has, is escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
