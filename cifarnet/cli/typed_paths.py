"""Paths on the command line that no file can have: addresses, empty text, names that no file system takes."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Refused

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
PATTERN = re.compile(r"[{*?\[]")  # of tar shards: it is no path itself
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, on all file systems that are in use


def check_paths(context: Any, typed: Sequence[str]) -> None:
    """Refuses addresses, and paths that no file system takes (but images: each of them is told for itself)."""
    words = {
        str(Path(word)): word for piece in typed for word in (piece, piece.partition("=")[2]) if ADDRESS.match(word)
    }
    for one in context.command.params:
        value = context.params.get(one.name)
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if path == Path() and is_empty(one, typed):
                raise Refused(name_of(one), "is empty", "name a file or folder")
            if isinstance(path, Path) or (one.name == "data_dir" and path):
                refuse_path(one, str(path), words)


def is_empty(parameter: Any, typed: Sequence[str]) -> bool:
    """Is this the empty text on the command line, which pathlib takes for the current folder?"""
    if not parameter.opts[0].startswith("-"):
        return "" in typed and "." not in typed
    after = pairwise(typed)
    return any(f"{name}=" in typed or (name, "") in after for name in parameter.opts)


def name_of(parameter: Any) -> str:
    """How the user knows a parameter: --out, or RUN."""
    return str(parameter.opts[0]) if parameter.opts[0].startswith("-") else str(parameter.name).upper()


def refuse_path(parameter: Any, path: str, addresses: dict[str, str]) -> None:
    """Refuses a path that is an address (pathlib loses one of its slashes) or is over-long."""
    if address := addresses.get(str(Path(path))):
        file = address.partition("file://")[2]
        fix = f"name the file itself: {file}" if file else "download it first, then name the file"
        raise Refused(address, "addresses are not fetched", fix)
    if parameter.name == "images" or (parameter.name == "data_dir" and PATTERN.search(path)):
        return
    raw = os.fsencode(path)
    if len(raw) > LONGEST_PATH or max(map(len, raw.split(b"/"))) > LONGEST_NAME:
        name = name_of(parameter)
        raise Refused(name, f"'{path[:40]}…' is too long", f"a name has at most {LONGEST_NAME} bytes")
