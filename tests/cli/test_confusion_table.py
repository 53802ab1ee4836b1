"""The confusion matrix on a terminal: no digit is cut, whatever the width; one that does not fit is not printed."""

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len

from cifarnet.cli.tables import confusion_table
from cifarnet.cli.terminal import UNLIMITED, Terminal


def written(count, total):
    """Per cent to one place; what is not all is not 100.0, what is not none not 0.0."""
    text = f"{100 * count / total:.1f}" if count else "·"
    return ">99.9" if text == "100.0" and count < total else "<0.1" if text == "0.0" else text


@pytest.mark.parametrize("width", [40, 60, 80, 120, UNLIMITED])
@pytest.mark.parametrize("count", [2, 10, 20])
@pytest.mark.parametrize("name", ["automobile", "a class of many words", "中文中文中文"])
def test_every_cell_is_whole(width, count, name):
    names = [f"{name} {index}" for index in range(count)]
    counts = np.random.default_rng(0).integers(1, 50, (count, count)).tolist()
    counts[0] = [1000] + [0] * (count - 1)
    counts[1] = [1] + [9999] + [0] * (count - 2)  # 99.99%
    console = Terminal(file=io.StringIO(), width=width)
    table = confusion_table({"classes": [{"name": name} for name in names], "confusion": counts}, console)
    if table is None:  # even headed by numbers: a label, and each column as wide as its widest cell or its number
        cells = sum(1 + max(len(written(row[j], sum(row))) for row in counts) for j in range(count))
        assert len(str(count - 1)) + 1 + cell_len(names[-1]) + cells > width
        return
    console.print(table)
    text = console.file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    cells = re.findall(r"(?<=\s)(?:[<>]?\d{1,3}\.\d|·)(?=\s)", text)
    assert sorted(cells) == sorted(written(n, sum(row)) for row in counts for n in row)
    assert {">99.9", "<0.1"} <= {*cells}
