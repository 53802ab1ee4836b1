"""What the README shows is true."""

import re
from pathlib import Path

import cifarnet
from cifarnet.cli import app
from cifarnet.engine.recipes import RECIPES
from cifarnet.losses import LOSSES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_examples_run(tmp_path, monkeypatch, capsys):
    """One after the other, in an empty folder with the picture that they name."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(code, names)
    assert names["loss"].item() > 0 and names["head"].weight.grad.any()
    assert names["probabilities"].shape == (8, 10) and names["embedding"].shape == (1, 256)
    assert float(capsys.readouterr().out.split()[-1]) == cifarnet.evaluate(names["run"])["accuracy"]


def test_every_loss_recipe_and_command_is_named():
    names = [*LOSSES, *RECIPES, *(f"cifarnet {command.name}" for command in app.registered_commands)]
    assert [name for name in names if f"`{name}" not in README] == []


def test_every_loss_is_described_and_drawn():
    words, figure = (ROOT / "docs/losses.md").read_text(), (ROOT / "docs/losses.svg").read_text()
    titles = " ".join(re.findall(r"<text[^>]*>([^<]+)</text>", figure)).replace(",", " ").replace(":", " ").split()
    assert [name for name in LOSSES if f"**`{name}`**" not in words or name not in titles] == []


def test_its_pictures_and_files_are_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_its_tables_are_tables():
    """GitHub shows rows as a table only under a header and a delimiter; an empty line ends it."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 5
    assert [table for table in tables if not re.fullmatch(r"\|[ :|-]+\|", table.splitlines()[1])] == []


def test_no_placeholder_is_left():
    assert not re.search(r"@[A-Z]+@", README)
