"""The label of a sample in a tar shard, and what is noted of a shard's labels in the user's cache."""

import json
import re
from typing import Any

from cifarnet.core.errors import is_printable

MAX_CLASSES = 10**9
MAX_WORD = 200  # characters of a class's name
KEYS = ("label", "class", "class_name")  # of a .json, in this order


def parse_label(data: bytes, suffix: str) -> int | str | None:
    """The class number in digits or the class name, of a `.cls` or a `.json` (`{"label": 3}`); None where there is none."""
    found: Any = None
    try:
        if suffix == "cls":
            found = data.decode().strip()
        else:
            values = json.loads(data)
            found = next((values[key] for key in KEYS if key in values), None)
    except (ValueError, TypeError, RecursionError):
        return None
    if isinstance(found, str):
        if re.fullmatch(r"[0-9]{1,19}", found):
            found = int(found)
        elif re.fullmatch(r"[-+0-9.,eE\s]*", found) or not 0 < len(found) <= MAX_WORD or not is_printable(found):
            return None
        else:
            return found
    return found if type(found) is int and 0 <= found < MAX_CLASSES else None


def count_words(notes: bytes) -> int | None:
    """How many names of classes are noted; None where these are no notes of a shard."""
    try:
        words, left = json.loads(notes)
        counted = all(type(n) is int and n > 0 and isinstance(a, str) and isinstance(b, str) for a, b, n in left)
        return len(words) if counted and all(isinstance(word, str) for word in words) else None
    except (ValueError, TypeError, RecursionError):
        return None
