"""The confusion matrix on a terminal: no digit is cut, whatever the width; one that does not fit is not printed."""

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len

from cifarnet.cli.tables import confusion_table
from cifarnet.cli.terminal import UNLIMITED, Terminal


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
        columns = [[100 * row[j] / sum(row) for row in counts] for j in range(count)]
        cells = sum(1 + max(len(f"{value:.1f}") if value else 1 for value in column) for column in columns)
        assert len(str(count - 1)) + 1 + cell_len(names[-1]) + cells > width
        return
    console.print(table)
    text = console.file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    cells = re.findall(r"(?<=\s)(?:\d{1,3}\.\d|·)(?=\s)", text)
    assert sorted(cells) == sorted("·" if n == 0 else f"{100 * n / sum(row):.1f}" for row in counts for n in row)
