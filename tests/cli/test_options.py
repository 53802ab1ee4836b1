"""The library names arguments, the command line spells them as options: every one of them, and nothing else."""

import ast
from pathlib import Path

import pytest
import typer

from cifarnet.cli import app
from cifarnet.cli.options import ARGUMENTS, QUOTED, SPOKEN, spoken, spoken_error

PACKAGE = Path(__file__).parents[2] / "cifarnet"
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]
# Arguments of calls in Python that no command has as an option.
PYTHON_ONLY = {"images", "layers", "num_classes", "frozen"}
# Things that are no argument at all.
THINGS = {
    "MASTER_PORT",
    "diverged",
    "training",
    "webdataset",
    "visualize",
    "eval",
    "config",
    "curves",
    "images",
    "report",
}


def parameters(command) -> set[str]:
    """The names of all parameters of a command and of those below it."""
    below = getattr(command, "commands", {}).values()
    return {one.name for one in command.params} | {name for each in below for name in parameters(each)}


def errors():
    """(file, what, texts) of each Refused, Failed and warning below cli/ whose texts are written there."""
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Refused", "Failed"):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                first = node.args[0]
                yield (
                    path.name,
                    first.value if isinstance(first, ast.Constant) else None,
                    [text for text in texts if isinstance(text, str)],
                )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add `head_parallel`", "add --head-parallel"),
        ("use `loss=ce`, or `precision=fp32`", "use --loss ce, or --precision fp32"),
        ("fetch it with `curl -LO x` and `data_dir`", "fetch it with `curl -LO x` and --data-dir"),
        ("a file named `notes`", "a file named `notes`"),
    ],
)
def test_arguments_become_options(text, expected):
    assert spoken(text) == expected


def test_the_subject_is_an_option_too():
    assert spoken_error("scale", "0 is out of range", "see `margin`") == "--scale: 0 is out of range; see --margin"
    assert spoken_error("runs/x", "has no `scale`", "") == "runs/x: has no --scale"


def test_the_list_of_arguments_is_that_of_the_commands():
    assert ARGUMENTS - parameters(typer.main.get_command(app)) == set()


def test_every_argument_that_an_error_names_is_spoken():
    found = list(errors())
    assert len(found) > 100
    for file, what, texts in found:
        assert what is None or not what.isidentifier() or what in SPOKEN | PYTHON_ONLY | THINGS, (file, what)
        for text in texts:
            flags = text.startswith("--") or " --" in text
            assert not flags or "torchrun" in text or "cifarnet train" in text, (
                file,
                text,
            )  # a command may be spelled out
            assert all(name in SPOKEN | PYTHON_ONLY for name, _ in QUOTED.findall(text)), (file, text)


def test_a_loss_option_that_no_loss_has(cli):
    code, _, err = cli("train", "--loss", "magface", "--loss-option", "foo=1")
    assert code == 2 and err.startswith(
        "error: --loss-option foo: no loss has such a constant; the losses have easy_margin,"
    )
    code, _, err = cli("train", "--loss", "magface", "--loss-option", "h=1")
    assert code == 2 and err == "error: --h: magface has no such constant; magface takes --scale\n"
