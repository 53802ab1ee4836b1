"""The numbers that README.md and docs/accuracy.md show are those of the JSON files under docs/results."""

import json
import shutil
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
from margins_page import results_of, write_page
from margins_plan import CIFAR10, REGIMES
from margins_run import check_results
from margins_statistics import differences, holm, paired_p

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "page"), [("reproduce_cpu", "docs/accuracy.md"), ("reproduce_exact", "README.md")])
def test_the_tables_are_made_of_the_results(name, page, tmp_path):
    kept = ROOT / "docs" / "results" / name
    shutil.copytree(kept / "results", tmp_path / "results")
    table = reproduce.write_table(tmp_path).read_text()
    assert table == (kept / "tables.md").read_text()
    facts, rows = table.split("\n\n")
    shown = (ROOT / page).read_text()
    assert facts in shown and rows in shown and rows.count("\n| ") >= 2


def accuracies(folder, cell):
    found = [json.loads(path.read_text()) for path in folder.glob(f"{cell}-[0-9].json")]
    return {result["seed"]: 100 * result["accuracy"] for result in found}


def test_the_page_says_of_margins_what_the_seeds_in_common_say():
    folder, names = ROOT / "docs" / "results" / "reproduce_cpu" / "results", ("ArcFace", "AdaFace", "CurricularFace")
    plain, apart = accuracies(folder, "resnet18-ce"), []
    for name in names:
        mine = accuracies(folder, f"resnet18-{name.lower()}")
        apart.append([plain[seed] - mine[seed] for seed in mine.keys() & plain.keys()])
    p = [paired_p(values) for values in apart]
    lines = (ROOT / "docs/accuracy.md").read_text().splitlines()
    for name, values, own, corrected in zip(names, apart, p, holm(p), strict=True):
        [row] = [line for line in lines if line.startswith(f"| {name} | 0.")]
        assert row.startswith(f"| {name} | {statistics.mean(values):.2f} ")
        assert row.endswith(f" | {len(values)} | {own:.3f} | {corrected:.3f} |") and corrected > 0.05


def test_how_far_seeds_lie_apart_is_that_of_the_results():
    page = (ROOT / "docs" / "recipes.md").read_text()
    count = {2: "two", 3: "three"}
    for name in ("cross-entropy", "ArcFace", "AdaFace", "CurricularFace"):
        cell = "ce" if name == "cross-entropy" else name.lower()
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} | 0.") and "%" not in line)
        for folder, part in zip(("quick_lr_024", "reproduce_cpu/results"), row.split("|")[2:4], strict=True):
            values = accuracies(ROOT / "docs" / "results" / folder, f"resnet18-{cell}").values()
            assert part.split()[0] == f"{max(values) - min(values):.2f}" and f"({count[len(values)]}" in part


@pytest.mark.parametrize("name", ["reproduce_cpu", "reproduce_exact"])
def test_the_plans_that_are_kept_are_those_of_the_results(name):
    kept = ROOT / "docs" / "results" / name
    results = [json.loads(path.read_text()) for path in (kept / "results").glob("*.json")]
    epochs = {result["cell"]: result["epochs"] for result in results}
    assert json.loads((kept / "plan.json").read_text()) == epochs
    assert all(result["epochs"] == epochs[result["cell"]] for result in results)  # no mean of runs of different length


def test_the_page_of_margins_is_made_of_the_results(tmp_path):
    kept = ROOT / "docs" / "results" / "margins" / "results"
    if kept.exists():
        shutil.copytree(kept, tmp_path / "results" / "margins" / "results")
    assert write_page(tmp_path, REGIMES).read_text() == (ROOT / "docs" / "margins.md").read_text()


def in_words(one):
    """A difference as README's table says it."""
    if not (one.better or one.worse):
        return "no difference found"
    return f"{abs(one.interval.mean):.1f} {'better' if one.better else 'worse'}{'' if one.sure else ', perhaps'}"


def test_the_readmes_margins_are_those_of_the_results():
    out, known = ROOT / "docs" / "results" / "margins", {regime.name: regime for regime in REGIMES}
    check_results(REGIMES, out, {}, CIFAR10)
    rows = []
    for name in ("balanced-small", "tail-small", "noise-small", "unseen-small"):
        for measure in known[name].measures:
            found = {one.method: one for one in differences(known[name], measure, results_of(known[name], out))}
            cells = [measure.words, *(in_words(found[method]) for method in ("adaface", "cosface", "arcface"))]
            rows.append(f"{' | '.join(cells)} |")
    readme = (ROOT / "README.md").read_text()
    rare = [row for row in rows if row.startswith("recall")]
    assert len(rows) == 7 and [row for row in rows if row not in readme] == rare  # the page alone has these
