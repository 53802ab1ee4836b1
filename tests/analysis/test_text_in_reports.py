"""Names and titles that look like markup, through every format of a report, read by parsers of others."""

import re
from collections import defaultdict
from html.parser import HTMLParser

import pytest
from hostile import HOSTILE
from markdown_it import MarkdownIt

from cifarnet.analysis.report.document import Heading, Paragraph, Picture, Table, render
from cifarnet.analysis.report.escapes import escape_latex
from cifarnet.core.errors import printable


class Reader(HTMLParser):
    """Collects the texts of an HTML document by their tag, and all tags and attributes."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.texts, self.tags, self.open = defaultdict(list), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "html", "img"):
            self.open.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data


def document(name, folder):
    """A document that consists of one name."""
    (folder / "p.png").write_bytes(b"")
    blocks = [Heading(name), Paragraph(name), Table([name, "x"], [[name, name]]), Picture(folder / "p.png", name)]
    return name, blocks


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_html_reads_as_it_was_written(name, tmp_path):
    reader = Reader()
    reader.feed(render(*document(name, tmp_path), tmp_path / "r.html"))
    reader.close()
    shown, line = printable(name), printable(" ".join(name.split()))
    found = {tag: reader.texts[tag] for tag in ("title", "h1", "h2", "p", "th", "td", "figcaption")}
    assert found == {
        "title": [shown], "h1": [shown], "h2": [shown], "p": [line], "th": [shown, "x"], "td": [shown] * 2,
        "figcaption": [shown],
    }  # fmt: skip
    assert {tag for tag, _ in reader.tags} <= {
        "html", "meta", "title", "style", "h1", "h2", "p", "table", "tr", "th", "td", "figure", "img", "figcaption",
    }  # fmt: skip
    assert [attributes["alt"] for tag, attributes in reader.tags if tag == "img"] == [shown]


def inline_text(token):
    """The text of a run of Markdown; nothing in it may be a mark."""
    assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.children
    return "".join(child.content for child in token.children or ())


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_markdown_reads_as_it_was_written(name, tmp_path):
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = reader.parse(render(*document(name, tmp_path), tmp_path / "r.md"))
    inline = [token for token in tokens if token.type == "inline"]
    picture = [token for token in inline if [child.type for child in token.children] == ["image"]]
    texts = [inline_text(token) for token in inline if token not in picture]
    shown, line = printable(name).strip(), printable(" ".join(name.split()))
    expected = [shown, shown, *([line] if line else []), shown, "x", shown, shown]
    assert texts == expected
    (image,) = picture[0].children
    assert image.attrs["src"] == "p.png" and inline_text(image) == shown


def read_latex(text):
    """What LaTeX prints for text of which each command is known; an unknown one, or a mark that is none, is an error."""
    words = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textasciigrave": "`", "ldots": "…",
        "textquotesingle": "'", "textquotedbl": '"',
    }  # fmt: skip
    rules = [
        (r"\\character\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16))),
        (r"\\([a-z]+)\{\}", lambda found: words[found[1]]),
        (r"\\([&%$#_{}])", lambda found: found[1]),
        (r"\$\\(pm|times|cdot)\$", lambda found: {"pm": "±", "times": "×", "cdot": "·"}[found[1]]),
        (r"\{\}", lambda _: ""),
        (r"[^\\{}$&#%_^~`'\"]", lambda found: found[0]),
    ]
    assert not re.search("--|<<|>>|,,", text), "these become one character"
    result = ""
    while text:
        found, give = next((match, give) for rule, give in rules if (match := re.match(rule, text)))
        result, text = result + give(found), text[found.end() :]
    return result


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_latex_reads_as_it_was_written(name, tmp_path):
    text = render(*document(name, tmp_path), tmp_path / "r.tex")
    shown, line = printable(name), printable(" ".join(name.split()))
    patterns = {
        r"^\\title\{(.*)\}\\date\{\}$": shown, r"^\\section\*\{(.*)\}$": shown, r"^\{\}(.*) & x \\\\$": shown,
        r"^\\caption\{(.*)\}\\end\{figure\}$": shown,
    }  # fmt: skip
    for pattern, expected in patterns.items():
        (found,) = re.findall(pattern, text, re.MULTILINE)
        assert read_latex(found) == expected
    assert not line or any(part == escape_latex(line) for part in text.split("\n\n"))
    assert text.replace("\\{", "").replace("\\}", "").count("{") == text.replace("\\{", "").replace("\\}", "").count(
        "}"
    )
