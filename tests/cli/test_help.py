"""What a newcomer meets first: the help with its examples, and what is completed on Tab."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from cifarnet.cli import app, run
from cifarnet.cli.hints import commands_below
from cifarnet.cli.train import BASIC, MORE
from cifarnet.cli.values import VALUES
from cifarnet.core.config import GROUPS

ROOT = typer.main.get_command(app)
COMMANDS = dict(commands_below(ROOT))
EXAMPLES = [example for command in (ROOT, *COMMANDS.values()) for example in command.examples]
PICTURE = Path(__file__).parents[2] / "docs" / "gallery" / "grid.png"


def words(example):
    """The words after `cifarnet`, as a shell passes them on in the current folder."""
    first, *others = shlex.split(example, comments=True)
    assert first == "cifarnet"
    return [str(found) for word in others for found in (sorted(Path().glob(word)) if "*" in word else [word])]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that holds what the examples name: a photo, folders of photos, the run of the very first example, one that held images out."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("photos", "known/ada", "labelled/ada", "labelled/bob"):
        (folder / name).mkdir(parents=True)
    for name in ("photo.jpg", "photos/one.jpg", "known/ada/1.jpg", "labelled/ada/2.jpg", "labelled/bob/1.jpg"):
        Image.open(PICTURE).convert("RGB").crop((0, 0, 200, 200)).save(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert (
            run([*words(EXAMPLES[0]), *["--epochs", "2", "--val-fraction", "0.1", "--out", "runs/held-out", "-q"]]) == 0
        )
        assert run(words(EXAMPLES[0])) == 0
    return folder


@pytest.mark.parametrize("example", EXAMPLES[1:])
def test_every_example_works(cli, place, monkeypatch, example):
    """Trainings end where they would begin: their options are good. Nothing is pushed."""
    begun = []

    def fit(config, out, **others):
        begun.append(config)
        raise typer.Exit

    monkeypatch.setattr("cifarnet.engine.fit.fit", fit)
    for name in ("WARM_UP", "STEPS", "SECONDS"):  # how long a step takes is not the matter here
        monkeypatch.setattr(f"cifarnet.engine.rehearsal.{name}", 0)
    monkeypatch.setattr("cifarnet.storage.hub.push", lambda *_: "pushed")
    monkeypatch.chdir(place)
    code, out, err = cli(*words(example))
    assert code == 0 and "error" not in err, err
    assert len(begun) == 1 if example.startswith(("cifarnet train", "cifarnet tune")) else out


def test_every_command_has_an_example_of_its_own():
    for path, command in COMMANDS.items():
        assert command.examples and all(one.startswith(f"cifarnet {path}") for one in command.examples), path
    assert ROOT.examples


@pytest.fixture(scope="module")
def pages():
    """What a terminal of 80 columns shows of each help, by the words that ask for it: of one process, whose terminal is no other."""
    asked = [f"{path} --help".strip() for path in ["", *COMMANDS]] + ["train --help-all"]
    code = "import sys; from cifarnet.cli import run\nfor line in sys.argv[1:]: print(end='\f', file=sys.stdout if run(line.split()) == 0 else sys.stderr)"
    environment = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80", "TERM": "dumb"}
    environment["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # hosted runners look like terminals to Typer
    done = subprocess.run([sys.executable, "-c", code, *asked], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(zip(asked, done.stdout.split("\f")[:-1], strict=True))


@pytest.mark.parametrize("path", ["", *COMMANDS])
def test_help_fits_into_80_columns_and_ends_with_the_examples(pages, path):
    lines = pages[f"{path} --help".strip()].splitlines()
    assert max(map(len, lines)) <= 80
    command = COMMANDS.get(path, ROOT)
    assert [line.strip() for line in lines[-len(command.examples) :]] == command.examples
    assert lines[-len(command.examples) - 1] == " Examples:"


def options_of(text):
    return re.findall(r"^│ (--[\w-]+)", text, re.MULTILINE)


def test_train_shows_a_dozen_options_and_all_on_request(pages):
    few, every = pages["train --help"], pages["train --help-all"]
    assert options_of(few) == [*("--" + name.replace("_", "-") for name in BASIC), "--help"]
    assert len(few.splitlines()) < 60
    everything = {one.opts[0] for one in COMMANDS["train"].params} | {"--help"}
    assert set(options_of(every)) == everything and len(options_of(every)) == len(everything)
    assert re.findall(r"^╭─ ([\w ]+) ─", every, re.MULTILINE) == ["Options", MORE, *GROUPS]


@pytest.mark.parametrize("group", [[], ["visualize"]])
def test_nothing_asked_for_is_the_help(cli, group):
    code, out, err = cli(*group)
    assert (code, err) == (0, "") and out == cli(*group, "--help")[1]
    assert "Usage" in out and "Commands" in out


def completed(cli, monkeypatch, line, shell="bash"):
    """What Tab offers at the end of a line."""
    typed = shlex.split(line)
    if line.endswith(" "):
        typed.append("")
    monkeypatch.setenv("_CIFARNET_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    code, out, err = cli()
    assert (code, err) == (0, "")
    return out.split() if shell == "bash" else re.findall(r'"(\S+?)"', out)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cifarnet train --arch res", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]),
        ("cifarnet train --arch resnet18 --loss ", list(VALUES["loss"])),
        ("cifarnet train --dataset ci", ["cifar10", "cifar100"]),
        ("cifarnet train --recipe b", ["baseline", "baseline-plus"]),
        ("cifarnet train --optimizer a", ["adamw", "adam"]),
        ("cifarnet complexity --stem s", ["small"]),
        ("cifarnet eval --split t", ["test", "train"]),
        ("cifarnet eval --device c", ["cpu", "cuda"]),
        ("cifarnet eval --precision ", ["auto", "fp32", "bf16"]),
        ("cifarnet visualize umap --method t", ["tsne"]),
        ("cifarnet visualize um", ["umap"]),
        ("cifarnet eval runs/l", ["runs/latest"]),
        ("cifarnet eval --run runs/l", ["runs/latest"]),
        ("cifarnet predict x.jpg --run mine/", ["mine/first"]),
        ("cifarnet train --init-from ", ["runs/latest"]),
        ("cifarnet report runs/latest runs/", ["runs/latest"]),
        ("cifarnet visualize curves ", ["runs/latest"]),
        ("cifarnet train --mo", ["--momentum"]),
        ("cifarnet train --help-", ["--help-all"]),
    ],
)
def test_tab_completes(cli, monkeypatch, tmp_path, shell, line, offered):
    for name in ("runs/latest", "mine/first"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    assert [one for one in completed(cli, monkeypatch, line, shell) if not one.startswith("_")] == offered


def test_every_option_of_a_known_name_completes_in_every_command(tmp_path, monkeypatch):
    """The values are one table: no command has lists of its own."""
    monkeypatch.chdir(tmp_path)  # where there are no runs
    for path, command in COMMANDS.items():
        for one in command.params:
            if one.name in (*VALUES, "run", "runs", "run_option", "init_from"):
                with command.make_context(path, [], resilient_parsing=True) as context:
                    offered = [item.value for item in one.shell_complete(context, "")]
                assert offered == list(VALUES.get(one.name, [])), (path, one.name)


def test_completion_loads_neither_torch_nor_numpy(tmp_path):
    line = {"_CIFARNET_COMPLETE": "complete_bash", "COMP_WORDS": "cifarnet train --arch res", "COMP_CWORD": "3"}
    code = "import sys; from cifarnet.cli import run; run([]); print({'torch', 'numpy', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **line}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "set()"]
