"""Foreign text in a document: names of runs and classes, titles, notes. One table of escapes a format.

Control characters, ends of lines and undecodable bytes are first written as a terminal shows them (`printable`).
"""

import html
import os
import re
from pathlib import Path
from urllib.parse import quote

from cifarnet.core.errors import printable

# Marks of GitHub's Markdown: wherever they stand, at the start of a line, and in what would become a link or an emoji.
MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$#@]|^[-+](?=\s|$|-)|:(?=\S)|(?<=www)\.", re.IGNORECASE)
NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "`": "\\textasciigrave{}",
    "'": "\\textquotesingle{}",
    '"': "\\textquotedbl{}",
    "±": "$\\pm$",
    "−": "$-$",
    "×": "$\\times$",
    "–": "--",
    "—": "---",
    "…": "\\ldots{}",
    "·": "$\\cdot$",
}
LIGATURE = re.compile(r"([-,<>])(?=\1)")  # two of these become another character
# The letters of LaTeX's T1 encoding (Cork) beyond ASCII; what else there is depends on engine and font.
CORK = set("ĂĄĆČĎĚĘĞĹĽŁŃŇŊŐŔŘŚŠŞŤŢŰŮŸŹŽŻĲİĐđăąćčďěęğĺľłńňŋőŕřśšşťţűůźžżĳŒœ¡¿§£")
CORK |= {chr(code) for code in range(0xC0, 0x100)} - {"×", "÷"}


def escape_markdown(text: str) -> str:
    """Text that no Markdown reader takes for marks."""
    return NUMBERED.sub(r"\1\\\2", MARKDOWN.sub(r"\\\g<0>", printable(text).strip()))


def escape_html(text: str) -> str:
    """Text and attributes that no HTML reader takes for tags or entities."""
    return html.escape(printable(text), quote=True)


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; a character that its engine or font lacks as [U+4E2D]."""
    parts = LIGATURE.split(printable(text))  # even ones are text, odd ones the first of two alike
    return "".join(latex_of(part) + ("{}" if index % 2 else "") for index, part in enumerate(parts))


def latex_of(text: str) -> str:
    """Each character by itself."""
    return "".join(
        LATEX.get(char) or (char if char.isascii() or char in CORK else f"\\character{{{ord(char):04X}}}")
        for char in text
    )


def link_to(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, as a part of an address."""
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))
