"""The declared dependencies are those that the package imports, and the other way round."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Modules whose distribution has another name.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn"}
# An extra that no module imports: what runs docs/tour.ipynb, what builds and what tests.
TOOLS = {"notebook", "build", "test", "all"}


def imported_distributions() -> set[str]:
    """The distributions that files of the package import, those within functions and for types too."""
    modules: set[str] = set()
    for path in (ROOT / "cifarnet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in modules - sys.stdlib_module_names - {"cifarnet"}}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}


def test_what_is_imported_is_declared_and_the_other_way_round():
    optional = names([line for extra in EXTRAS.keys() - TOOLS for line in EXTRAS[extra]])
    assert imported_distributions() == names(PROJECT["dependencies"]) | optional


def test_a_missing_extra_is_named_by_its_message():
    text = "".join(path.read_text() for path in (ROOT / "cifarnet").rglob("*.py"))
    missing = [extra for extra in EXTRAS.keys() - TOOLS if f'pip install "cifarnet[{extra}]"' not in text]
    assert missing == []


def test_all_is_every_extra_for_users():
    users = sorted(EXTRAS.keys() - {"build", "test", "all"})
    assert sorted(re.fullmatch(r"cifarnet\[(.*)\]", EXTRAS["all"][0])[1].split(",")) == users
