"""The command line's spelling: of arguments, values, runs and paths; and what it answers where that is wrong."""

import ast
import shlex
from pathlib import Path

import pytest
import typer

from cifarnet.analysis.embedding import METHODS, METRICS
from cifarnet.cli import app
from cifarnet.cli.options import ARGUMENTS, QUOTED, SPOKEN, spoken, spoken_error, typed
from cifarnet.cli.values import VALUES
from cifarnet.engine.open_split import SPLITS
from cifarnet.engine.recipes import RECIPES
from cifarnet.losses import LOSSES

PACKAGE = Path(__file__).parents[2] / "cifarnet"
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]
# Arguments of calls in Python that no command has as an option.
PYTHON_ONLY = {"images", "layers", "num_classes", "frozen", "embeddings", "labels"}
# Things that are no argument at all.
THINGS = {
    "MASTER_PORT",
    "download",
    "diverged",
    "training",
    "tune",
    "webdataset",
    "visualize",
    "embeddings",
    "pairs",
    "quality",
    "calibrate",
    "calibration",
    "eval",
    "verify",
    "config",
    "curves",
    "images",
    "report",
    "runs",
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
        ("use `normalize=False`, `easy_margin=True`", "use --no-normalize, --easy-margin"),
        ("use `init_from=my runs/a`", "use --init-from 'my runs/a'"),
        ("(`lr`), `lr`; `lr`: `lr`.", "(--lr), --lr; --lr: --lr."),
        ("`lr`.png: is no image", "`lr`.png: is no image"),
        (
            "runs/`lr`: is empty; see a`lr`, `lr`-2, x.`lr` and `lr`/last",
            "runs/`lr`: is empty; see a`lr`, `lr`-2, x.`lr` and `lr`/last",
        ),
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
        assert what is None or not what.isidentifier() or what.isupper() or what in SPOKEN | PYTHON_ONLY | THINGS, (
            file,
            what,
        )
        for text in texts:
            flags = text.startswith("--") or " --" in text
            # A command may be spelled out.
            assert not flags or "torchrun" in text or "cifarnet train" in text, (file, text)
            assert all(name in SPOKEN | PYTHON_ONLY for name, _ in QUOTED.findall(text)), (file, text)


def test_a_loss_option_that_no_loss_has(cli):
    code, _, err = cli("train", "--loss", "magface", "--loss-option", "foo=1")
    assert code == 2 and err.startswith(
        "error: --loss-option foo: no loss has such a constant; the losses have balance,"
    )
    code, _, err = cli("train", "--loss", "magface", "--loss-option", "h=1")
    assert code == 2 and err == "error: --h: magface has no such constant; magface takes --scale; adaface takes --h\n"


@pytest.fixture
def begun(monkeypatch):
    """The trainings that would begin: (configuration, folder, what is said before)."""
    found = []

    def fit(config, out, *, watcher, **others):
        found.append((config, out, dict(watcher.headline)))
        raise typer.Exit

    monkeypatch.setattr("cifarnet.engine.fit.fit", fit)
    return found


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_printed_can_be_typed_back(cli, begun, recipe, loss):
    more = ["--no-normalize", "--data-dir", "my data"] if loss == "ce" else ["--compile", "--epochs", "3"]
    assert cli("train", "--recipe", recipe, "--loss", loss, *more)[0] == 0
    said = begun[0][2]
    assert cli("train", *shlex.split(said.get("sets", "")), *shlex.split(said["changed"]))[0] == 0
    assert begun[1][0] == begun[0][0]


def test_a_constant_without_a_flag_is_typed_too():
    assert typed("data_dir", "a b") == "--data-dir 'a b'" and typed("lr", 1e-5) == "--lr 1e-05"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arch", "ResNet50"], {"arch": "resnet50"}),
        (["--arch", "resnet-50"], {"arch": "resnet50"}),
        (["--arch", "ResNet_50"], {"arch": "resnet50"}),
        (["--loss", "AdaFace"], {"loss": "adaface"}),
        (["--dataset", "CIFAR-100"], {"dataset": "cifar100"}),
        (["--recipe", "Baseline_Plus"], {"arch": "baseline", "lr": 0.05}),
        (["--optimizer", "SGD", "--schedule", "OneCycle"], {"optimizer": "sgd", "schedule": "onecycle"}),
        (["--precision", "FP32", "--device", "CUDA:1"], {"precision": "fp32", "device": "cuda:1"}),
        (["--loss", "ArcFace", "--margin", "AUTO"], {"loss": "arcface", "loss_options": {"margin": "auto"}}),
        (["--dataset", "Synthetic-Identities", "--loss", "cosface"], {"arch": "identity"}),
        (["--arch", "identity"], {"arch": "identity"}),
    ],
)
def test_values_in_any_case(cli, begun, options, expected):
    assert cli("train", *options)[0] == 0
    assert {name: getattr(begun[0][0], name) for name in expected} == expected


def test_the_values_of_the_command_line_are_those_of_the_library():
    """The table spells out what would load torch."""
    assert VALUES["split"] == SPLITS and VALUES["method"] == tuple(METHODS) and VALUES["metric"] == ("auto", *METRICS)
