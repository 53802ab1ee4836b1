"""Writes docs/screens.md, what the commands show on a terminal of 60 and of 80 columns, from the screens that the tests keep.

python scripts/study/screens_page.py > docs/screens.md
"""

from pathlib import Path

KEPT = Path(__file__).parents[2] / "tests" / "cli" / "screens"
SCREENS = {
    "train": "train",
    "eval": "eval",
    "complexity-one": "complexity --arch resnet50",
    "complexity-stages": "complexity --arch resnet18 … --arch resnet152 --stages: the networks",
    "report": "report",
    "runs": "runs",
    "data": "data",
    "data-folder": "data folder --data-dir /data/birds",
}
HEAD = """# Screens

What the commands show on a terminal of 60 and of 80 columns. A table that does not fit leaves out whole columns, the least important
first, and says which; a digit is never cut. These are the screens that `tests/cli/test_screens.py` holds the program to, made of fixed
numbers; this page is written by `python scripts/study/screens_page.py > docs/screens.md`.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for name, command in SCREENS.items():
        parts.append(f"\n## cifarnet {command}\n")
        for width in (60, 80):
            text = (KEPT / f"{name}-{width}.txt").read_text()
            parts.append(f"\n{width} columns:\n\n```text\n{text}```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
