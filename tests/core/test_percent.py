"""Shares as they are printed, and that every place prints them so."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import cifarnet
from cifarnet.analysis.plots import confusion, style
from cifarnet.analysis.quality.verdict import of_errors
from cifarnet.analysis.report.beside_tables import spread
from cifarnet.cli.export_tables import parity_rows
from cifarnet.cli.quality_tables import way_to_best
from cifarnet.cli.tables import confusion_table
from cifarnet.cli.terminal import Terminal
from cifarnet.cli.verify_tables import span
from cifarnet.core.percent import percent, share

NEARLY, HARDLY = 49_999 / 50_000, 1 / 50_000  # of 50,000 images all but one, and one
PACKAGE = Path(cifarnet.__file__).parent
# A share with fixed digits: {100 * x:.2f}, {x:.1%}; in a page's own script (100 * x).toFixed(1).
BARE = re.compile(r"\{100 \* [^{}]*:[^{}]*\d[fg]\}|\{[^{}]*:\.\d%\}|\(100 \* (?!value\))[^)]*\)\.toFixed")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.8765, "87.65%"), (0.0, "0.00%"), (1.0, "100.00%"), (1 - 1e-16, "100.00%"), (1e-17, "0.00%"),
        (NEARLY, ">99.99%"), (0.99994, "99.99%"), (1 / 30_000, "<0.01%"), (0.00005, "0.01%"), (-0.5, "-50.00%"),
    ],
)  # fmt: skip
def test_not_all_is_not_printed_as_all(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "places", "texts"), [(NEARLY, 0, ">99"), (NEARLY, 1, ">99.9"), (HARDLY, 0, "<1"), (0.5, 0, "50")]
)
def test_as_many_digits_as_are_asked_for(value, places, texts):
    assert percent(value, places) == f"{texts}%" and percent(value, places, "") == texts


def test_ends_of_an_interval_and_small_shares():
    assert span((0.5, 1.0)) == "50.00 – 100.00" and span((1e-6, 0.999999)) == "<0.01 – >99.99" and span(None) == "–"
    assert share(1 / 30_000) == "0.00333%" and share(None) == "–" and share(0.01) == "1%"
    assert share(NEARLY) == ">99.9%" and share(1.0) == "100%" and share(0.0) == "0%"


def test_tables_of_report_quality_and_export():
    assert spread((NEARLY, HARDLY)) == ">99.99 ± <0.01" and spread((1.0, 0.0)) == "100.00 ± 0.00"
    assert way_to_best(0.99999) == ">99.9%" and way_to_best(-0.5) == "−50.0%" and way_to_best(None) == "–"
    document = {"fnmr": NEARLY, "scores": {"norm": {"fnmr_after_discard": HARDLY}}}
    assert "from >99.99% to <0.01%" in of_errors(document, "norm", "better")
    found = {"accuracy": [1.0, NEARLY], "changes": 1, "near_ties": 0, "images": 50_000, "cosine": 1.0}
    found |= {"logit_difference": 0.1, "logit_allowed": 0.1, "probability_difference": 0.1}
    assert parity_rows(found, "fp16")[-1] == ("accuracy (the model's: 100.00%)", ">99.99%", "≥ 99.00%")


def test_confusion_matrices_on_the_screen_and_in_the_figure():
    matrix = [[99_999, 1], [0, 7]]
    table = confusion_table({"classes": [{"name": "a"}, {"name": "b"}], "confusion": matrix}, Terminal(width=80))
    assert [cell[0] for cell in table.rows[0][1:]] == [">99.9", "<0.1"]
    for wide, texts in ((20, [">99", "<0.1", "100"]), (10, [">99", "100"])):
        with style.our_style():
            axes = Figure().subplots()
            confusion.write_cells(axes, confusion.numbers(np.array(matrix)), wide)
        assert [text.get_text() for text in axes.texts] == texts


def test_no_place_formats_a_share_by_itself():
    """A configured value may stand as it is (:g); what was measured goes through one function."""
    files = [file for kind in ("*.py", "*.js") for file in PACKAGE.rglob(kind) if "plotly" not in file.parts]
    own = {PACKAGE / "core/percent.py"}
    found = [f"{file.name}: {bare[0]}" for file in files if file not in own for bare in BARE.finditer(file.read_text())]
    assert len(files) > 300 and found == []
