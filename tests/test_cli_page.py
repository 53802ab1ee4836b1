"""docs/cli.md is the real help, docs/screens.md are the real screens."""

import os
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from cifarnet.cli import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text()


def test_the_page_is_the_help_of_today():
    command = [sys.executable, "scripts/study/cli_page.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == PAGE, "docs/cli.md is stale; make it anew: python scripts/study/cli_page.py > docs/cli.md"


def test_the_screens_are_those_of_today():
    done = subprocess.run(
        [sys.executable, "scripts/study/screens_page.py"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    page = (ROOT / "docs" / "screens.md").read_text()
    assert done.stdout == page, (
        "docs/screens.md is stale; make it anew: python scripts/study/screens_page.py > docs/screens.md"
    )


def test_every_command_and_figure_is_on_it_in_plain_text():
    tree = get_command(app).commands
    names = [*tree, *(f"visualize {name}" for name in tree["visualize"].commands)]
    assert [name for name in names if f"# cifarnet {name}\n" not in PAGE] == []
    assert "\x1b" not in PAGE
