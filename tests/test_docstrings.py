"""A docstring names what is there: its Args are the parameters that the code has."""

import ast
import re
from pathlib import Path

import pytest

from cifarnet.losses import LOSSES

ROOT = Path(__file__).parents[1]
CONSTANTS = {name for row in LOSSES.values() for name in row.constants} | {"scale", "margin", "easy_margin"}
WITH_ARGS = [
    (path, node)
    for path in sorted((ROOT / "cifarnet").rglob("*.py")) + sorted((ROOT / "scripts").rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and "Args:\n" in (ast.get_docstring(node) or "")
]


def parameters(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Those of a function, of a class's __init__, or the fields of a class without one."""
    made = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    if isinstance(node, ast.ClassDef) and not made:
        return {child.target.id for child in node.body if isinstance(child, ast.AnnAssign)}
    taken = (made[0] if isinstance(node, ast.ClassDef) else node).args
    others = {one.arg for one in (taken.vararg, taken.kwarg) if one}
    constants = CONSTANTS if taken.kwarg else set()
    return {one.arg for one in taken.posonlyargs + taken.args + taken.kwonlyargs} | others | constants


def documented(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """The names before a colon: at the start of a line, or after a semicolon ("mean, std: …; epoch: …")."""
    section = re.search(r"Args:\n((?:    .*\n?|\n)*)", ast.get_docstring(node) or "")
    lines = [line.strip() for line in section[1].splitlines() if re.match(r"    \S", line)]
    heads = [found[1] for line in lines for part in line.split("; ") if (found := re.match(r"([\w*, ]+):", part))]
    names = {name.strip(" *") for head in heads for name in head.split(",")}
    return names - {"None", "0", "infinity", "empty"}  # values that are explained: "None: all of them"


@pytest.mark.parametrize(("path", "node"), WITH_ARGS, ids=[f"{path.stem}-{node.name}" for path, node in WITH_ARGS])
def test_args_are_parameters(path, node):
    assert documented(node) - parameters(node) == set()


def questions(code: str) -> list[str]:
    """The first lines of docstrings that ask a question in place of naming what is there."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    firsts = [ast.get_docstring(node) for node in ast.walk(ast.parse(code)) if isinstance(node, documented)]
    return [text.splitlines()[0] for text in firsts if text and re.match(r"(What|Whether|Why)\b", text)]


def test_a_docstring_names_what_is_there():
    """ "The name of a run", not "What a run is called"."""
    found = {str(path): questions(path.read_text()) for path in (ROOT / "cifarnet").rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert questions('"""What it is."""\n\n\ndef f():\n    """Whether it is."""\n') == ["What it is.", "Whether it is."]


def test_a_name_that_is_no_parameter_is_found():
    [node] = ast.parse('def f(a, *, b):\n    """Doc.\n\n    Args:\n        a: one; c: another\n    """').body
    assert documented(node) - parameters(node) == {"c"}
