"""The command line's spelling: of arguments, values, runs and paths; and what it answers where that is wrong."""

import ast
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import cifarnet
from cifarnet.analysis.embedding import METHODS, METRICS
from cifarnet.cli import app
from cifarnet.cli.hints import COMMAND_HINTS, OTHER_OPTIONS, commands_below, flags_of
from cifarnet.cli.options import ARGUMENTS, QUOTED, SPOKEN, spoken, spoken_error, typed
from cifarnet.cli.values import OTHER_VALUES, VALUES
from cifarnet.core.errors import Refused
from cifarnet.engine.open_split import SPLITS
from cifarnet.engine.recipes import RECIPES
from cifarnet.losses import LOSSES

PACKAGE = Path(__file__).parents[2] / "cifarnet"
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]
# Arguments of calls in Python that no command has as an option.
PYTHON_ONLY = {"images", "layers", "num_classes", "frozen"}
# Things that are no argument at all.
THINGS = {"training", "webdataset", "visualize", "eval", "config", "curves", "images", "report"}


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


COMMANDS = dict(commands_below(typer.main.get_command(app)))


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


def refusal(cli, *arguments):
    """The one line of a request that is refused."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: "), err
    return err.strip().removeprefix("error: ")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("train resnet50", "did you mean --arch resnet50?"),
        ("train ResNet_50", "did you mean --arch resnet50?"),
        ("train resnet51", "did you mean --arch resnet50?"),
        ("train ArcFace", "did you mean --loss arcface?"),
        ("train adafase", "did you mean --loss adaface?"),
        ("train CIFAR-10", "did you mean --dataset cifar10?"),
        ("train quick", "did you mean --recipe quick?"),
        ("train lr=0.1", "did you mean --lr 0.1?"),
        ("train gpu", "did you mean --device cuda?"),
        ("train xyzzy", "see cifarnet train --help"),
        ("complexity resnet50", "did you mean --arch resnet50?"),
        ("train --arch resnet19", "did you mean resnet18?"),
        ("train --loss AdaFase", "did you mean adaface?"),
        ("train --loss cross-entropy", "did you mean ce?"),
        ("train --dataset imagenet", "did you mean folder?"),
        ("train --recipe modrn", "did you mean modern?"),
        ("train --device gpu", "did you mean cuda?"),
        ("train --precision fp16", "did you mean bf16?"),
        ("eval --split validation", "did you mean val?"),
        ("visualize umap --method t-snee", "did you mean tsne?"),
        ("train --gpu", "did you mean --device cuda?"),
        ("train --cuda", "did you mean --device cuda?"),
        ("train --cpu", "did you mean --device cpu?"),
        ("train --learning-rate 0.1", "did you mean --lr?"),
        ("train -lr 0.1", "did you mean --lr?"),
        ("train --batch 8", "did you mean --batch-size?"),
        ("train --bs=8", "did you mean --batch-size?"),
        ("train --batch_size 8", "did you mean --batch-size?"),
        ("train --model resnet50", "did you mean --arch?"),
        ("train --lr-scheduler cosine", "did you mean --schedule?"),
        ("train --num-epochs 3", "did you mean --epochs?"),
        ("train --wd 0.1", "did you mean --weight-decay?"),
        ("train --num-workers 2", "did you mean --workers?"),
        ("train --fp16", "did you mean --precision bf16?"),
        ("train --amp", "did you mean --precision bf16?"),
        ("train --output x", "did you mean --out?"),
        ("train --output-dir x", "did you mean --out?"),
        ("train --data x", "did you mean --data-dir?"),
        ("train --momentun 0.5", "did you mean --momentum?"),
        ("predict x.png --model runs/a", "did you mean --run?"),
        ("eval --arch resnet50", "an option of cifarnet train and cifarnet complexity, not of cifarnet eval"),
        ("--arch resnet50", "name the command first: cifarnet train --arch"),
        ("trian", "did you mean cifarnet train?"),
        ("test", "did you mean cifarnet eval?"),
        ("umap", "did you mean cifarnet visualize umap?"),
        ("tsne", "did you mean cifarnet visualize umap --method tsne?"),
        ("visualize tsne", "did you mean cifarnet visualize umap --method tsne?"),
        ("visualize confuson", "did you mean cifarnet visualize confusion?"),
        ("xyzzy", "see cifarnet --help"),
        ("train --arch", "choose from baseline, resnet18"),
        ("train --lr", "--lr: needs a value"),
        ("train --lr fast", "--lr: must be a valid number"),
        ("predict", "for example: cifarnet predict photo.jpg"),
        ("report", "for example: cifarnet report runs/latest"),
    ],
)
def test_what_is_mistyped_gets_a_hint(cli, line, answer):
    assert answer in refusal(cli, *line.split())


def test_every_hint_leads_to_something_that_is_there():
    flags = {flag for command in COMMANDS.values() for flag in flags_of(command)} | {"--help", "--install-completion"}
    assert {ours.split()[0] for hints in OTHER_OPTIONS.values() for ours in hints} - {"--batch"} <= flags
    assert {other for others in OTHER_OPTIONS for other in others.split()} & set(flags_of(COMMANDS["train"])) == set()
    for ours in COMMAND_HINTS.values():
        path = ours.partition(" --")[0]
        assert path in COMMANDS or ours in flags, ours
    for name, others in OTHER_VALUES.items():
        assert set(others.values()) <= set(VALUES[name]) and not set(others) & set(VALUES[name]) - {"none"}


@pytest.mark.parametrize(
    ("values", "named"),
    [({"arch": "ResNet50"}, "resnet50"), ({"loss": "AdaFace"}, "adaface"), ({"dataset": "CIFAR-10"}, "cifar10")],
)
def test_python_names_the_nearest_too(tmp_path, values, named):
    given = {"arch": "baseline", "dataset": "digits", "epochs": 1} | values
    with pytest.raises(Refused, match=f"did you mean {named}"):
        cifarnet.fit(cifarnet.TrainConfig(**given), out=tmp_path / "run")


@pytest.mark.parametrize(
    "line", ["predict", "featuremaps", "predict x.png --run", "eval", "train --data-dir", "train --config"]
)
def test_addresses_are_not_fetched(cli, line):
    said = refusal(cli, *line.split(), "https://example.com//a/b.png")
    assert said == "https://example.com//a/b.png: addresses are not fetched; download it first, then name the file"
    assert refusal(cli, *line.split(), "file:///a/b.png").endswith("name the file itself: /a/b.png")


LONG = "n" * 300
PATHS = [
    (path, one.opts[0] if one.param_type_name == "option" else "")
    for path, command in COMMANDS.items()
    for one in command.params
    if ("path" in one.display_type(None).lower() or one.name in ("data_dir", "run_option")) and one.name != "images"
]


@pytest.mark.parametrize(("path", "option"), PATHS)
def test_over_long_paths_are_refused_before_any_work(cli, tmp_path, path, option):
    images = ["x.png"] if path in ("predict", "featuremaps") else []
    for long in (LONG, f"absent/{LONG}", "n/" * 3000):
        assert "is too long" in refusal(cli, *path.split(), *images, *([option] if option else []), long)
    assert list(tmp_path.iterdir()) == []


def test_every_path_was_tried():
    assert len(PATHS) > 30 and ("eval", "") in PATHS and ("train", "--out") in PATHS


TRAIN = ["train", "--dataset", "digits", "--arch", "baseline", "--epochs", "1", "-q"]


def test_a_file_named_runs_is_in_the_way_of_no_run_elsewhere(cli, tmp_path):
    (tmp_path / "runs").write_text("mine")
    assert cli(*TRAIN, "--out", "here")[0] == 0
    assert (tmp_path / "runs").read_text() == "mine" and (tmp_path / "here" / "summary.json").exists()
    assert "runs" in refusal(cli, *TRAIN)


def test_a_run_has_one_name_in_every_command(cli, tmp_path):
    assert cli(*TRAIN, "--out", "mine")[0] == 0
    (tmp_path / "runs" / "latest").unlink()
    (tmp_path / "x.png").write_bytes((Path(__file__).parents[2] / "docs" / "gallery" / "grid.png").read_bytes())
    for line in ("eval", "predict x.png", "featuremaps x.png", "complexity", "visualize confusion", "visualize curves"):
        scores = [cli(*line.split(), spelling, "mine") for spelling in ("--run", "--checkpoint")]
        assert [code for code, _, _ in scores] == [0, 0] and scores[0][1] == scores[1][1], line
        said = refusal(cli, *line.split(), "--run", "mine", "--checkpoint", "mine")
        assert said.endswith("name a run twice; name it once")
    for line in ("eval", "visualize confusion"):
        assert cli(*line.split(), "mine")[0] == 0
        assert "twice" in refusal(cli, *line.split(), "mine", "--run", "mine")
        assert "names 2 runs" in refusal(cli, *line.split(), "--run", "mine", "--run", "mine")
    assert cli("report", "--run", "mine", "--out", "a.md", "--no-test")[0] == 0
    assert cli("visualize", "curves", "--run", "mine", "--run", "mine", "--out", "c.png")[0] == 0


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_stopped_training_says_what_goes_on(cli, tmp_path, number, said):
    """The command is run as it is printed, by a shell: the folder has a space in its name."""
    command = [sys.executable, "-m", "cifarnet", *TRAIN, "--epochs", "500", "--out", "my run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 90
    while not (tmp_path / "my run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    first = err.strip()
    assert "\n" not in first and "error" not in first and first.startswith(f"stopped by {said} in epoch ")
    shown = first.partition("go on with: ")[2]
    assert shown == "cifarnet train --resume --out 'my run'"
    done = len((tmp_path / "my run" / "metrics.jsonl").read_text().splitlines())
    config = tmp_path / "my run" / "config.json"
    assert json.loads(config.read_text())["epochs"] == 500
    again = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(shown)], stderr=subprocess.PIPE, text=True, env=environment
    )
    while len((tmp_path / "my run" / "metrics.jsonl").read_text().splitlines()) <= done and time.monotonic() < deadline:
        time.sleep(0.05)
    again.send_signal(number)
    assert "stopped by" in again.communicate(timeout=60)[1] and again.returncode == 128 + number
