"""The house: a room imports from the floors below it alone, the drawing libraries stay upstairs, and no files go in circles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cifarnet"
FLOORS = [{"core"}, {"losses", "storage"}, {"models", "data"}, {"engine"}, {"analysis"}, {"cli"}]
FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms}
UPSTAIRS = {"matplotlib": "analysis/plots", "umap": "analysis", "typer": "cli", "rich": "cli"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, those within functions and for types too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inside}
    return names


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = path.relative_to(PACKAGE).parts[0]
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top in UPSTAIRS:
            assert str(path.relative_to(PACKAGE)).startswith(UPSTAIRS[top]), f"{path} imports {top}"
        if top == "cifarnet" and rest and rest[0] != room:
            assert FLOOR[rest[0]] < FLOOR[room], f"{path} imports {name}"


DRAW = {"sklearn", "umap"}  # rich, which scikit-learn imports, draws from Python's generator


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_that_draw_when_they_are_imported_take_nothing_from_the_caller(path):
    tree = ast.parse(path.read_text())
    guarded = [
        node for node in ast.walk(tree) if isinstance(node, ast.With) and "callers_random" in ast.dump(node.items[0])
    ]
    inside = {id(node) for guard in guarded for node in guard.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not DRAW & {name.split(".")[0] for name in names} or id(node) in inside, f"line {node.lineno}"


def test_no_files_go_in_a_circle():
    graph = {name_of(path): imports_of(path) & MODULES - {name_of(path)} for path in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(FILES)


def test_every_room_is_on_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES}
    assert rooms == set(FLOOR)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert not [path for path in FILES if path.name in ("utils.py", "helpers.py", "misc.py")]
