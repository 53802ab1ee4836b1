"""Prints docs/cli.md: the --help of every command, as a terminal of 100 columns without colours shows it.

python scripts/study/cli_page.py > docs/cli.md
"""

import contextlib
import io
import os
from collections.abc import Iterator

os.environ |= {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
os.environ |= {"_TYPER_FORCE_DISABLE_TERMINAL": "1"}  # hosted runners look like terminals to Typer

import typer

from cifarnet.cli import app, run

HEAD = """# Command line

The help of every command, written by `python scripts/study/cli_page.py > docs/cli.md`. Results go to stdout, progress and
messages to stderr. Every command has `--help`; `cifarnet --debug COMMAND …` shows the traceback of an error.
"""


def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, groups before their members; () is `cifarnet` itself."""
    yield path
    for name, member in getattr(command, "commands", {}).items():
        yield from commands(member, (*path, name))


def help_of(path: tuple[str, ...], option: str = "--help") -> str:
    """What `cifarnet <path> --help` prints, without spaces at the ends of lines."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run([*path, option])
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def main() -> None:
    """Prints the page."""
    print(HEAD)
    pages = []
    for path in commands(typer.main.get_command(app)):
        level = "##" if len(path) < 2 else "###"
        pages.append(f"{level} {' '.join(('cifarnet', *path))}\n\n```text\n{help_of(path)}\n```\n")
        if path == ("train",):
            pages.append(f"### cifarnet train --help-all\n\n```text\n{help_of(path, '--help-all')}\n```\n")
    print("\n".join(pages), end="")


if __name__ == "__main__":
    main()
