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
from sklearn.metrics import average_precision_score, roc_auc_score

from cifarnet.analysis.report.beside_tables import beside_the_report, signed
from cifarnet.analysis.report.document import Heading, Paragraph, Picture, Table, render
from cifarnet.analysis.report.hard_labels import hard_label_scores
from cifarnet.analysis.report.published import cell_of, cells, class_names, inconsistencies
from cifarnet.analysis.report.results import read_result
from cifarnet.analysis.report.seeds import group
from cifarnet.analysis.report.tables import build, scores_table
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


def test_the_cell_of_a_run():
    for arch, options, accuracy in (
        ("resnet18", {}, 0.9079),
        ("resnet50", {}, 0.9217),
        ("resnet18", {"loss": "arcface"}, 0.9013),
        ("resnet50", {"loss": "curricularface", "canonical_order": True}, 0.9199),
        ("resnet18", {"stem": "imagenet"}, 0.8581),
        ("plainnet50", {}, 0.897),
        ("baseline", {"augment": "none"}, 0.6977),
        ("baseline", {}, 0.8336),
    ):
        assert cell_of(TrainConfig(arch=arch, **options)).accuracy == accuracy
    others = [{"loss": "cosface"}, {"dataset": "digits"}, {"stem": "cifar"}, {"arch": "resnet34"}, {"embed_dim": 3}]
    others += [
        {"subset": 100},
        {"label_noise": 0.1},
        {"arch": "resnet50", "stem": "imagenet"},
        {"arch": "baseline", "loss": "arcface"},
    ]
    assert [other for other in others if cell_of(replace(TrainConfig(), **other))] == []


def labels_of(confusion):
    """The true and predicted labels, image by image, of a matrix of counts."""
    counts = np.array(confusion)
    true, taken = (axis.ravel() for axis in np.indices(counts.shape))
    return np.repeat(true, counts.ravel()), np.repeat(taken, counts.ravel())


def test_hard_label_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    never = rng.integers(0, 9, (4, 4))
    never[:, 2] = 0  # a class that no image is taken for
    absent = rng.integers(0, 9, (3, 3))
    absent[1] = 0  # one that the split does not hold
    for counts in (rng.integers(0, 50, (10, 10)), np.eye(3, dtype=int), never, absent, np.array([[3, 0], [2, 0]])):
        true, taken = labels_of(counts)
        expected = [
            (roc_auc_score(true == c, taken == c), average_precision_score(true == c, taken == c))
            for c in range(len(counts))
            if counts[c].sum()
        ]
        assert hard_label_scores(counts.tolist()) == pytest.approx(tuple(np.mean(expected, axis=0)), abs=1e-12)
    assert hard_label_scores([[5, 1], [0, 0]]) == (None, None)


def test_the_reports_numbers_agree_with_themselves():
    """What can be derived from a published confusion matrix is what is published, but for what the notes name."""
    known = cells()
    assert [key for key, cell in known.items() if cell.hard_labels] == ["baseline"]
    wrong = {}
    for key, cell in known.items():
        wrong[key] = inconsistencies(cell)
        if cell.confusion is None:
            continue
        true, taken = labels_of(np.rint(1000 * np.array(cell.confusion)).astype(int))
        one = np.eye(10)[taken]
        scores = roc_auc_score(true, one, multi_class="ovr") if not wrong[key] else None
        precision = average_precision_score(np.eye(10)[true], one)
        same = [round(value, 4) for value in (scores or 0, precision)] == [cell.auroc, cell.auprc]
        assert same == cell.hard_labels, key
        if not wrong[key]:
            assert round(np.mean(true == taken), 4) == cell.accuracy
    assert {key: sentences for key, sentences in wrong.items() if sentences} == {
        "resnet18-adaface": ["The diagonal of Table 3.5 gives an accuracy of 90.45%; Table 3.2 has 90.48%."],
        "resnet50-ce": ["In Table 3.6 the row of dog sums to 0.991, not to 1."],
        "resnet50-adaface": ["In Table 3.7 the row of automobile sums to 0.999, not to 1."],
    }


def test_each_number_of_the_report_beside_ours():
    """Two seeds of the baseline whose confusion matrix is the report's, ten images moved."""
    runs = []
    for seed in (1, 2):
        one = result(f"mine-{seed}", 0.8 + seed / 100, augment="none", seed=seed)
        counts = np.rint(1000 * np.array(cells()["baseline"].confusion)).astype(int)
        counts[3, 3], counts[3, 4] = counts[3, 3] + 10, counts[3, 4] - 10
        classes = [{"name": name} for name in class_names()]
        one.summary["test"] |= {"confusion": counts.tolist(), "classes": classes}
        runs.append(one)
    blocks = beside_the_report(group(runs))
    scores, costs, matrix = (block for block in blocks if isinstance(block, Table))
    true, taken = labels_of(counts)
    ours = 100 * average_precision_score(np.eye(10)[true], np.eye(10)[taken])
    assert [row[1:6] for row in scores.rows][::3] == [
        ["Baseline (Table 3.2)", "accuracy", "69.77", "81.50 ± 0.71", "+11.73"],
        ["Baseline (Table 3.2)", "AUPRC of hard labels", "52.52", f"{ours:.2f} ± 0.00", f"{ours - 52.52:+.2f}"],
    ]
    assert [row[2:4] for row in scores.rows[1:]] == [
        ["AUROC of hard labels", "83.21"], ["AUROC of probabilities", "–"],
        ["AUPRC of hard labels", "52.52"], ["AUPRC of probabilities", "–"],
    ]  # fmt: skip
    assert [row[-2:] for row in scores.rows] == [["10", "12"]] * 5
    assert [row[1:4] for row in costs.rows] == [
        ["parameters", "122,570", "122,570"], ["GFLOPs", "0.0184", "0.0182"], ["GMACs", "0.0091", "0.0091"],
    ]  # fmt: skip
    assert len(matrix.rows) == 30
    assert [row[4:6] for row in matrix.rows[9:12]] == [["43.1", "8.4"], ["44.1", "7.4"], ["+1.0", "−1.0"]]
    (note,) = (block.text for block in blocks if isinstance(block, Paragraph) and "hard labels" in block.text)
    assert "Table 3.3: AUROC 83.21, AUPRC 52.52" in note
    assert beside_the_report(group([result("other", 0.5, dataset="digits", loss="arcface")])) == []
    assert [signed(1.5), signed(-1.5), signed(-1e-9)] == ["+1.50", "−1.50", "0"]


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
    with pytest.raises(Refused, match="is no run folder"):
        read_result(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TrainConfig().to_dict()))
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
