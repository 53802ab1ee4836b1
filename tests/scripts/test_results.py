"""The numbers that README.md shows are those of the JSON files under docs/results."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
from margins_page import results_of, write_page
from margins_plan import CIFAR10, REGIMES
from margins_run import check_results
from margins_statistics import differences

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["reproduce_cpu", "reproduce_exact"])
def test_the_readmes_tables_are_made_of_the_results(name, tmp_path):
    kept = ROOT / "docs" / "results" / name
    shutil.copytree(kept / "results", tmp_path / "results")
    table = reproduce.write_table(tmp_path).read_text()
    assert table == (kept / "tables.md").read_text()
    facts, rows = table.split("\n\n")
    readme = (ROOT / "README.md").read_text()
    assert facts in readme and rows in readme and rows.count("\n| ") >= 2


def test_the_page_of_margins_is_made_of_the_results(tmp_path):
    kept = ROOT / "docs" / "results" / "margins" / "results"
    if kept.exists():
        shutil.copytree(kept, tmp_path / "results" / "margins" / "results")
    assert write_page(tmp_path, REGIMES).read_text() == (ROOT / "docs" / "margins.md").read_text()


def in_words(one):
    """A difference as README's table says it."""
    if not (one.better or one.worse):
        return "perhaps none"
    return f"{abs(one.interval.mean):.1f} {'better' if one.better else 'worse'}{'' if one.sure else ', perhaps'}"


def test_the_readmes_margins_are_those_of_the_results():
    out, known = ROOT / "docs" / "results" / "margins", {regime.name: regime for regime in REGIMES}
    check_results(REGIMES, out, {}, CIFAR10)
    rows = []
    for name in ("tail-small", "unseen-small"):
        for measure in known[name].measures:
            found = {one.method: one for one in differences(known[name], measure, results_of(known[name], out))}
            cells = [measure.words, *(in_words(found[method]) for method in ("adaface", "cosface", "arcface"))]
            rows.append(f"{' | '.join(cells)} |")
    readme = (ROOT / "README.md").read_text()
    rare = [row for row in rows if row.startswith("recall")]
    assert len(rows) == 5 and [row for row in rows if row not in readme] == rare  # the page alone has these
