"""The confusion matrix on a terminal: no digit is cut, whatever the width."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from cifarnet.cli.tables import confusion_tables


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("count", [2, 10, 20])
@pytest.mark.parametrize("name", ["automobile", "a class of many words", "中文中文中文"])
def test_every_cell_is_whole(width, count, name):
    names = [f"{name} {index}" for index in range(count)]
    counts = np.random.default_rng(0).integers(1, 50, (count, count)).tolist()
    counts[0] = [1000] + [0] * (count - 1)
    counts[1] = [1] + [9999] + [0] * (count - 2)  # 99.99%
    console = Console(file=io.StringIO(), width=width)
    for table in confusion_tables({"classes": [{"name": name} for name in names], "confusion": counts}, width):
        console.print(table)
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    cells = re.findall(r"(?<=\s)(?:\d{1,3}\.\d|100|·)(?=\s)", text)
    expected = ["·" if n == 0 else f"{100 * n / sum(row):.1f}".replace("100.0", "100") for row in counts for n in row]
    assert sorted(cells) == sorted(expected)
