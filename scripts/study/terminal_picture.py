#!/usr/bin/env python3
"""Runs `cifarnet train ARGS` and draws what the terminal showed as an SVG.

python scripts/study/terminal_picture.py docs/training.svg --dataset digits --arch baseline --epochs 5
"""

import io
import sys
from pathlib import Path

from cifarnet.cli import run
from cifarnet.cli import train as train_command
from cifarnet.cli.terminal import Terminal

WIDTH = 104


def main(picture: Path, arguments: list[str]) -> None:
    """The command's own output, stderr and stdout in one recording; the moving bar is left out."""
    console = Terminal(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor")
    console.say(("$", "bold green"), f" cifarnet train {' '.join(arguments)}")
    train_command.messages = lambda quiet=False: console
    train_command.results = lambda: console
    code = run(["train", *arguments])
    if code:
        sys.exit(code)
    picture.parent.mkdir(exist_ok=True)
    console.save_svg(str(picture), title="cifarnet train")
    print(picture)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].endswith(".svg"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
