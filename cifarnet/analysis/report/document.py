"""A document of headings, paragraphs, tables and pictures, rendered as Markdown, HTML or LaTeX."""

import base64
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifarnet.analysis.report.escapes import escape_html, escape_latex, escape_markdown, link_to
from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import read_bytes


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column is text, the others are numbers, set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """An image file and what it shows."""

    path: Path
    caption: str


Block = Heading | Paragraph | Table | Picture


def render(title: str, blocks: Sequence[Block], out: Path) -> str:
    """The document's text, in the format that the suffix of `out` names; picture paths are relative to its folder.

    Raises:
        Refused: another suffix than .md, .html, .tex.
    """
    return renderer(out)(title, blocks, out.parent)


def renderer(out: Path) -> Callable[[str, Sequence[Block], Path], str]:
    """The function that renders for `out`; raises Refused for a suffix that names no format."""
    known = {".md": markdown, ".html": to_html, ".tex": latex}
    if out.suffix not in known:
        raise Refused(str(out), f"'{out.suffix}' is no format for a report", f"end the name in {', '.join(known)}")
    return known[out.suffix]


def one_line(text: str) -> str:
    """A paragraph's text, its line ends taken for spaces."""
    return " ".join(text.split())


def markdown(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """GitHub's Markdown."""
    parts = [f"# {escape_markdown(title)}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {escape_markdown(block.text)}")
        elif isinstance(block, Paragraph):
            parts.append(escape_markdown(one_line(block.text)))
        elif isinstance(block, Table):
            rows = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.rows]
            cells = [rows[0], *rows[2:]]
            lines = ["| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in cells]
            parts.append("\n".join([lines[0], "| " + " | ".join(rows[1]) + " |", *lines[1:]]))
        else:
            parts.append(f"![{escape_markdown(block.caption)}]({link_to(block.path, folder)})")
    return "\n\n".join(parts) + "\n"


CSS = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}"
    "th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #8884}"
    "th:first-child,td:first-child{text-align:left}figure{margin:1rem 0}img{max-width:100%;background:#fff}"
)


def to_html(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """One HTML file that needs no other: pictures are inside it."""
    name = escape_html(title)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{CSS}</style><h1>{name}</h1>"
    ]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h2>{escape_html(block.text)}</h2>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{escape_html(one_line(block.text))}</p>")
        elif isinstance(block, Table):
            head = "".join(f"<th>{escape_html(cell)}</th>" for cell in block.header)
            body = ["".join(f"<td>{escape_html(cell)}</td>" for cell in row) for row in block.rows]
            lines = "\n".join(f"<tr>{row}</tr>" for row in [head, *body])
            parts.append(f"<table>\n{lines}\n</table>")
        else:
            data = base64.b64encode(read_bytes(block.path)).decode()
            caption = escape_html(block.caption)
            image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return "\n".join(parts) + "\n"


# A character by its code, where the engine and its font have it.
CHARACTER = '\\DeclareRobustCommand{\\character}[1]{\\iftutex\\iffontchar\\font"#1 \\symbol{"#1}\\else[U+#1]\\fi\\else[U+#1]\\fi}'


def latex(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """A LaTeX article that compiles as it is (booktabs, graphicx)."""
    parts = [
        "\\documentclass{article}\n\\usepackage{iftex}\n"
        "\\iftutex\\usepackage{fontspec}\\else\\usepackage[T1]{fontenc}\\usepackage{textcomp}\\fi\n"
        "\\usepackage{booktabs,graphicx}\n"
        f"{CHARACTER}\n"
        "\\usepackage[a4paper,margin=2cm]{geometry}\n"
        f"\\title{{{escape_latex(title)}}}\\date{{}}\n\\begin{{document}}\\maketitle"
    ]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"\\section*{{{escape_latex(block.text)}}}")
        elif isinstance(block, Paragraph):
            parts.append(escape_latex(one_line(block.text)))
        elif isinstance(block, Table):
            lines = [
                "{}" + " & ".join(escape_latex(cell) for cell in row) + " \\\\" for row in [block.header, *block.rows]
            ]
            rows = [lines[0], "\\midrule", *lines[1:]]
            columns = "l" + "r" * (len(block.header) - 1)
            table = "\n".join([f"\\begin{{tabular}}{{{columns}}}\\toprule", *rows, "\\bottomrule\\end{tabular}"])
            # Only a table wider than the page is made smaller.
            parts.append(
                f"\\begin{{center}}\n\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{{table}}}\n\\end{{center}}"
            )
        else:
            path = Path(os.path.relpath(block.path, folder)).as_posix()
            parts.append(
                f"\\begin{{figure}}[ht]\\centering\n\\includegraphics[width=.8\\linewidth]{{\\detokenize{{{path}}}}}\n"
                f"\\caption{{{escape_latex(block.caption)}}}\\end{{figure}}"
            )
    return "\n\n".join([*parts, "\\end{document}"]) + "\n"
