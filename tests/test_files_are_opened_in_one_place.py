"""Files are read through core/plain_file.py and written through storage/atomic.py: the source is walked for other ways."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cifarnet"
METHODS = {
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "rename", "symlink_to", "hardlink_to", "fdopen",
    "mkstemp", "NamedTemporaryFile", "copy2", "copyfile", "copytree", "move", "memmap", "fromfile", "tofile", "load_file",
    "save_file",
}  # fmt: skip
# The calls that remain, each of what is no path of a user's: the opener and the writer themselves, a descriptor, a buffer.
ALLOWED = {
    "core/plain_file.py": {"os.open", "open"},
    "storage/atomic.py": {"os.open", "open", "os.replace", "finished.rename", "temporary.symlink_to"},
    "storage/output.py": {"open"},  # into a device or a pipe
    "cli/streams.py": {"open", "os.open"},  # /dev/null, for a stream that the caller closed
    "core/signals.py": {"open"},  # the end of a pipe
    "data/sources/archive.py": {"tarfile.open"},  # of a file that is open
    "data/sources/server.py": {"opener.open"},  # an address, an encrypted one
    "data/sources/tar_index.py": {"tarfile.open", "os.fdopen"},
    "analysis/plots/animation.py": {"Image.open"},
    "analysis/quality/degrade.py": {"Image.open"},  # of a buffer that it has written
    "data/images/open.py": {"Image.open", "os.open"},  # of a file that is open; /dev/null
    "data/images/sixteen.py": {"Image.open"},
}


def calls(path: Path) -> set[str]:
    """The calls in a file that can open, make or move a file by its path."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
        elif isinstance(node.func, ast.Attribute):
            name = f"{ast.unparse(node.func.value)}.{node.func.attr}"
            moves = (node.func.attr == "replace" and len(node.args) == 1) or name == "os.replace"
            moves &= name != "dataclasses.replace"  # nor is str.replace, of two arguments
            if node.func.attr in METHODS or moves:
                found.add(name)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_way_to_open_or_write_a_file(path):
    assert calls(path) <= ALLOWED.get(str(path.relative_to(PACKAGE)), set())


def test_what_is_allowed_is_there():
    stale = {name: listed - calls(PACKAGE / name) for name, listed in ALLOWED.items() if listed - calls(PACKAGE / name)}
    assert not stale
