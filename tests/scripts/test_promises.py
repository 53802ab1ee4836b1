"""Each promise of docs/reliability.md names tests that are there, and the page names them all."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "proof"))

from promises import BEYOND, PROMISES  # noqa: E402


def test_every_promise_has_its_tests():
    assert len(PROMISES) == 62
    page = (ROOT / "docs" / "reliability.md").read_text()
    for promise, names in [*PROMISES, *BEYOND]:
        assert names.split() and promise in page, promise
        for name in names.split():
            file, test = name.split("::")
            tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
            assert f"[{test}](../tests/{file}.py)" in page, name
