"""One HTML file from its parts: it runs its own scripts alone, asks for nothing from anywhere, and no name becomes markup."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from cifarnet.core.plain_file import read_text


def assemble(folder: Path, title: str, numbers: Any, scripts: Mapping[str, str]) -> bytes:
    """The page of `page.html` and `page.css` in `folder`, UTF-8.

    Args:
        title: what the browser's tab says.
        numbers: what the page shows, without values that are not finite.
        scripts: text by its place in page.html; the page's policy names their hashes, and so allows no other.
    """
    # Browsers take the hash of a script as they read it: with line feeds only.
    allowed = " ".join(f"'sha256-{coded(hashlib.sha256(text.encode()).digest())}'" for text in scripts.values())
    page = Template(read_text(folder / "page.html")).substitute(
        title=html.escape(title),
        allowed=allowed,
        style=read_text(folder / "page.css"),
        numbers=as_json(numbers),
        **scripts,
    )
    return page.encode("utf-8", "backslashreplace")


def joined(folder: Path, *names: str) -> str:
    """Scripts of a page, one after the other."""
    return "\n".join(read_text(folder / name) for name in names)


def coded(data: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(data).decode("ascii")


def as_json(document: Any) -> str:
    """JSON in ASCII that ends no script element and begins no comment, whatever names it holds."""
    text = json.dumps(document, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
