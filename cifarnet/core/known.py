"""Names that are known, and the nearest of them to one that is not."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from cifarnet.core.errors import Refused


def folded(text: str) -> str:
    """A name without case, dashes, underscores and spaces: resnet50 of ResNet_50."""
    return re.sub(r"[\W_]+", "", text.casefold())


def same_name(text: str, known: Iterable[str]) -> str | None:
    """The known name that differs from `text` in case and dashes alone, if there is one."""
    return {folded(name): name for name in known}.get(folded(text))


def nearest(text: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `text`, if one does."""
    names = {folded(name): name for name in known}
    found = difflib.get_close_matches(folded(text), names, n=1)
    return names[found[0]] if found else None


def unknown(what: str, value: Any, known: Iterable[str], meant: str | None = None) -> Refused:
    """The refusal of a value that is not known, to raise: it names the nearest (or the one `meant`), and all others."""
    names = list(known)
    meant = meant or nearest(str(value), names)
    hint = f"did you mean {meant}? " if meant else ""
    return Refused(what, f"'{value}' is not known", f"{hint}choose from {', '.join(names)}")
