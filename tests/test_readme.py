"""What the README shows is true, and every command that it and the pages name is one that runs."""

import html
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

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


def commands(page):
    """What stands behind `cifarnet` in the page's commands: lines of its blocks, and between backquotes."""
    blocks = re.findall(r"```(?:bash|console)\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]*)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    found = [re.match(r"(?:\$ |.*torchrun .*-m |torchrun .*-m )?cifarnet ([a-z].*)", line.strip()) for line in lines]
    return [re.sub(r"\s#.*", "", match[1]) for match in found if match]


# A command's name alone, choices, a script's words.
UNFINISHED = ("[", "|", "$", "predict", "push", "visualize", "visualize …")


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_its_commands_are_parsed(path):
    """Each option is one of its command, and each value one that the option takes; nothing is run."""
    tree, wrong = get_command(app), []
    for command in commands(path.read_text()) if path.stem not in ("cli", "screens") else []:
        if command in UNFINISHED or any(mark in command for mark in UNFINISHED[:3]):
            continue
        name, *words = [word for word in shlex.split(command) if word != "…"]
        found = tree.commands[name]
        if words and words[0] in getattr(found, "commands", ()):
            found = found.commands[words.pop(0)]
        try:
            found.make_context(name, words)
        except Exception as error:
            wrong.append(f"{command}: {error}")
    assert wrong == []


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


@pytest.fixture
def pictured(cli, tmp_path, monkeypatch):
    """The words in docs/training.svg, and what its command prints today: one epoch, on digits."""
    monkeypatch.chdir(tmp_path)
    texts = re.findall(r"<text[^>]*>(.*?)</text>", (ROOT / "docs/training.svg").read_text())
    shown = [html.unescape(text).replace("\xa0", " ").strip() for text in texts]
    command = shlex.split(" ".join(shown[shown.index("$") + 1 : shown.index("recipe")]))
    at = command.index("--data-dir")
    command[at : at + 2] = ["--dataset", "digits"]
    command[command.index("--epochs") + 1] = "1"
    code, out, err = cli(*command[1:])
    assert code == 0, err
    return shown, (err + out).splitlines()


def test_its_first_picture_is_what_the_command_prints(pictured):
    """Each row that is printed today by its name, and how the options that were changed are written."""
    shown, printed = pictured
    names = [match[1] for line in printed if (match := re.match(r"(\S.*?)(?:  +\S|$)", line))]
    names = [name for name in names if name != "epoch" and "·" not in name]  # the table's head, the run's own title
    assert len(names) > 15 and [name for name in names if name not in shown] == []
    (changed,) = (line.split()[1:] for line in printed if line.startswith("changed"))
    there = shown[shown.index("changed") + 1].split()
    assert [word for word in there if word.startswith("--")] == [
        "--data-dir" if word == "--dataset" else word for word in changed if word.startswith("--")
    ]
