"""CSV files: what a spreadsheet would compute is text, numbers are numbers, and names come out as they went in."""

import csv
import io
import math
from types import SimpleNamespace

import pytest
import torch
from hostile import HOSTILE

from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.evaluate import write_predictions

# Of OWASP's page "CSV Injection": a cell with one of these in front is a formula to a spreadsheet.
OWASP = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def read(path):
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_names_come_out_as_they_went_in(tmp_path):
    names = [name for name in HOSTILE if "\ud800" not in name]
    write_rows(tmp_path / "x.csv", ["name"], [[name] for name in names])
    header, *rows = read(tmp_path / "x.csv")
    assert header == ["name"] and len(rows) == len(names)
    for (cell,), name in zip(rows, names, strict=True):
        assert not cell.startswith(OWASP)
        assert cell == ("'" + name if name.startswith(OWASP) else name)


def test_half_a_character_is_escaped(tmp_path):
    write_rows(tmp_path / "x.csv", ["name"], [["\ud800x"], ["é"]])
    assert read(tmp_path / "x.csv")[1:] == [["\\ud800x"], ["é"]]


def test_numbers_stay_numbers(tmp_path):
    values = [-1, -0.25, 1e-300, -1e300, 0, True, None, math.inf, -math.inf]
    write_rows(tmp_path / "x.csv", ["value"] * len(values), [values])
    (row,) = read(tmp_path / "x.csv")[1:]
    assert row == ["-1", "-0.25", "1e-300", "-1e+300", "0", "True", "", "inf", "-inf"]


@pytest.mark.parametrize("name", ["=1+1", "@SUM(1)", "+1", "-1+2"])
def test_predictions_hold_no_formula(tmp_path, name):
    logits = torch.tensor([[2.0, -1.0], [-3.0, 1.0]])
    info = SimpleNamespace(classes=[name, "other"], calibration=None)
    write_predictions(tmp_path / "p.csv", logits, torch.tensor([0, 0]), info)
    header, first, second = read(tmp_path / "p.csv")
    assert header == ["index", "label", "prediction", f"'{name}", "other"]
    assert first[:3] == ["0", f"'{name}", f"'{name}"] and second[:3] == ["1", f"'{name}", "other"]
    assert float(first[3]) == pytest.approx(1 / (1 + math.exp(-3)))
