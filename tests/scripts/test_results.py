"""The numbers that README.md shows are those of the JSON files under docs/results."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
from margins_page import write_page
from margins_plan import REGIMES

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
