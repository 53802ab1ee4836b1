"""The floors of the house: a module imports only from floors below its own, and the drawing libraries stay upstairs."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cifarnet"
FLOORS = [
    {"errors", "__init__"},
    {"config", "options", "kernels", "devices", "distributed", "storage", "header", "tensor_set", "signals"},
    {"models", "losses", "data"},
    {
        "recipes",
        "averaging",
        "model",
        "checkpoint",
        "state",
        "runs",
        "optim",
        "muon",
        "features",
        "geometry",
        "complexity",
        "significance",
    },
    {
        "step",
        "session",
        "build",
        "guard",
        "scoring",
        "prepare",
        "train",
        "evaluate",
        "predict",
        "plots",
        "report",
        "doctor",
    },
    {"cli"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
UPSTAIRS = {"matplotlib": 4, "typer": 5, "rich": 5}  # the lowest floor that may import it
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "cifarnet" else {node.module}
            )
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = FLOOR[room_of(path)]
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top in UPSTAIRS:
            assert here >= UPSTAIRS[top], f"{path} imports {top}"
        if top == "cifarnet" and rest and rest[0] != "__version__":
            other = rest[0]
            same_room = other == room_of(path)
            assert (
                same_room or FLOOR[other] < here or (FLOOR[other] == here and other in PEERS.get(room_of(path), ()))
            ), f"{path} (floor {here}) imports cifarnet.{other} (floor {FLOOR[other]})"


# Within a floor, the few that stand on a neighbour; each goes one way only.
PEERS = {
    "config": {"options"},
    "devices": {"distributed"},
    "tensor_set": {"distributed", "header", "storage"},
    "averaging": {"model", "optim"},
    "kernels": {"config"},
    "checkpoint": {"model"},
    "optim": {"muon"},
    "state": {"checkpoint", "model"},
    "features": {"model", "checkpoint"},
    "geometry": {"features", "model"},
    "complexity": {"model", "checkpoint"},
    "session": {"step"},
    "guard": {"session"},
    "build": {"session", "step"},
    "scoring": {"session", "evaluate"},
    "prepare": {"session", "build"},
    "train": {"session", "evaluate", "guard", "scoring", "step"},
    "report": {"evaluate", "plots"},
}


def test_neighbours_do_not_form_a_loop():
    order: list[str] = []
    for _ in PEERS:
        order += [
            room
            for room, uses in PEERS.items()
            if room not in order and all(u in order or u not in PEERS for u in uses)
        ]
    assert set(order) == set(PEERS)


def test_there_is_no_junk_drawer():
    assert not [path for path in FILES if path.name in ("utils.py", "helpers.py", "misc.py")]
