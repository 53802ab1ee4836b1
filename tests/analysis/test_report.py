"""Paired tests against whole numbers, means over seeds against NumPy, and documents read back."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from report_runs import result, summary
from scipy.stats import binomtest

from cifarnet.analysis.report.document import Heading, Paragraph, Picture, Table, render
from cifarnet.analysis.report.published import published_accuracy
from cifarnet.analysis.report.results import read_result
from cifarnet.analysis.report.seeds import group
from cifarnet.analysis.report.tables import build, published_rows, scores_table, signed
from cifarnet.analysis.significance import mcnemar
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused

ODD = "a|b_c*d <e> & 5% #1 {x} \\ ~ ^ $"


@pytest.mark.parametrize(
    ("one", "other"), [(0, 0), (0, 1), (5, 5), (3, 12), (40, 17), (0, 200), (900, 1000), (2500, 2499)]
)
def test_exact_p_in_whole_numbers(one, other):
    """Twice the smaller tail of Binomial(n, 1/2), at most 1."""
    tail = sum(math.comb(one + other, k) for k in range(min(one, other) + 1))
    expected = float(min(Fraction(1), Fraction(2 * tail, 2 ** (one + other))))
    right = torch.tensor([True] * one + [False] * other, dtype=torch.bool)
    assert mcnemar(right, ~right).p == pytest.approx(expected, rel=1e-9)
    assert mcnemar(~right, right).p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_counts():
    first = torch.tensor([1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)
    second = torch.tensor([1, 0, 0, 0, 1, 0, 0], dtype=torch.bool)
    found = mcnemar(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 3, 1, 2)
    assert found.p == pytest.approx(binomtest(1, 4).pvalue)


def test_seeds_of_one_configuration_are_one_row():
    values = [0.90, 0.92, 0.925]
    results = [result(f"r{seed}", value, seed=seed, data_dir=str(seed)) for seed, value in enumerate(values)]
    groups = group([*results, result("other", 0.5, loss="arcface")])
    assert [len(one.runs) for one in groups] == [3, 1]
    mean, deviation = groups[0].score("accuracy")
    assert mean == pytest.approx(np.mean(values)) and deviation == pytest.approx(np.std(values, ddof=1))
    rows = scores_table(groups).rows
    assert rows[0][1] == f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}" and rows[1][1] == "50.00"


def test_longer_training_is_another_configuration():
    assert len(group([result("a", 0.5, epochs=10), result("b", 0.5, epochs=20)])) == 2


def test_published_numbers():
    assert published_accuracy(TrainConfig(arch="resnet18")).value == 0.908
    assert published_accuracy(TrainConfig(arch="resnet50")).value == 0.922
    assert published_accuracy(TrainConfig(arch="baseline", augment="none")).value == 0.6977
    assert published_accuracy(TrainConfig(arch="baseline")).value == 0.8336
    for other in ({"loss": "arcface"}, {"dataset": "digits"}, {"stem": "cifar"}, {"arch": "resnet34"}):
        assert published_accuracy(replace(TrainConfig(), **other)) is None
    (row,) = published_rows(group([result("mine", 0.80)]))
    assert row == ["mine", "Baseline+", "83.36", "80.00", "−3.36", "250", "12"]
    assert signed(1.5) == "+1.50"


def test_markdown_table_is_one_table():
    text = render("t", [Table(["run", "x"], [[ODD, "1"], ["b", "2"]])], Path("r.md"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    cells = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines]
    assert cells == [3, 3, 3, 3]


class Reader(HTMLParser):
    """Collects the texts of cells and of everything else, and the tags."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_one_file(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG...")
    blocks = [Heading(ODD), Paragraph(ODD), Table(["run"], [[ODD]]), Picture(tmp_path / "p.png", 'a "quoted" caption')]
    reader = Reader()
    reader.feed(render("<t>", blocks, tmp_path / "r.html"))
    assert reader.texts.count(ODD) == 3 and "<t>" in reader.texts
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert images[0]["src"] == "data:image/png;base64,iVBORy4uLg==" and images[0]["alt"] == 'a "quoted" caption'


def test_latex_escapes():
    text = render("t", [Paragraph(ODD), Table(["run", "x ± y"], [["a_b", "5%"]])], Path("r.tex"))
    assert "a|b\\_c*d <e> \\& 5\\% \\#1 \\{x\\} \\textbackslash{} \\textasciitilde{} \\textasciicircum{} \\$" in text
    assert "a\\_b & 5\\% \\\\" in text and "x $\\pm$ y" in text
    assert text.count("\\begin{") == text.count("\\end{")


def test_other_formats_are_refused():
    with pytest.raises(Refused, match=r"\.md, \.html, \.tex"):
        render("t", [], Path("r.docx"))


def test_build_names_what_was_not_tested(tmp_path):
    results = [result("a", 0.5), result("b", 0.6, loss="arcface")]
    blocks = build(results, [("a", "b", "no data")], tmp_path / "files", "a copy")
    tables = [block for block in blocks if isinstance(block, Table)]
    assert blocks[0] == Paragraph("a copy")
    assert any("not tested: no data" in row for table in tables for row in table.rows)
    assert {block.path.name for block in blocks if isinstance(block, Picture)} == {"confusion-1.png", "confusion-2.png"}


def test_a_run_that_has_not_ended_is_refused(tmp_path):
    with pytest.raises(Refused, match="no such run"):
        read_result(tmp_path / "nope")
    with pytest.raises(Refused, match="has not ended"):
        read_result(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"test": {}}))
    with pytest.raises(Refused, match="not a summary"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(seconds="3"),
        lambda v: v.update(epochs=10**400),
        lambda v: v["test"].update(accuracy=float("nan")),
        lambda v: v["test"].update(auroc=[1]),
        lambda v: v["test"]["confusion"].pop(),
        lambda v: v["test"]["confusion"][3].append(0),
        lambda v: v["test"]["classes"].__setitem__(0, {"name": "\x1b[2J"}),
        lambda v: v["test"].update(classes=7),
    ],
)
def test_every_value_of_a_summary_is_checked(tmp_path, change):
    values = summary(0.5)
    (tmp_path / "config.json").write_text(json.dumps(TrainConfig().to_dict()))
    (tmp_path / "summary.json").write_text(json.dumps(values))
    assert read_result(tmp_path).summary == values
    change(values)
    (tmp_path / "summary.json").write_text(json.dumps(values))
    with pytest.raises(Refused, match="not a summary"):
        read_result(tmp_path)
