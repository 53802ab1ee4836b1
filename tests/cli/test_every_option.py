"""The option table tests itself: each option of each command at its extremes, and each two options of `train` together.

Each ends in a documented exit code and never in "internal"; what is refused is refused in one line, before data is read.
"""

import functools
import itertools
import math
import os
import shutil

import pytest
import torch
import typer
from PIL import Image

from cifarnet.cli import app, run
from cifarnet.core.config import TrainConfig
from cifarnet.engine import conflicts, fit, rehearsal

TRAIN = "train --dry-run --dataset digits --arch baseline --epochs 1 --batch-size 64 --device cpu --precision fp32"
BASES = {
    "train": TRAIN,
    "tune": TRAIN.replace("train", "tune") + " --loss arcface --margin 0.1,0.2",
    "eval": "eval run --device cpu",
    "quality": "quality run --device cpu --scores norm --degrade none",
    "predict": "predict a.png --run run --device cpu",
    "calibrate": "calibrate run --device cpu",
    "identify": "identify --gallery run/known --probes run/known --run run --device cpu",
    "verify": "verify run --device cpu --bootstrap 100",
    "complexity": "complexity --arch baseline",
    "featuremaps": "featuremaps a.png --run run --channels 1 --layer conv1",
    "report": "report run --no-test",
    "runs": "runs .",
    "data": "data digits",
    "explore": "explore run --device cpu --samples 40 --maps pca",
    "export": "export run --format torch",
    "card": "card run",
    "push": "push run owner/name",
    "doctor": "doctor",
    "visualize curves": "visualize curves run",
    "visualize network": "visualize network --arch baseline",
    "visualize margins": "visualize margins --loss arcface",
    "visualize samples": "visualize samples --dataset digits --each 1",
}
FIGURE = "visualize {} run --device cpu --samples 40"
HUGE = str(10**30)
TEXTS = ["", "x", "\x1b[31mred", "a" * 5000, "[/]", "=1+1", "\udcff"]
PATHS = [
    "",
    ".",
    "/dev/null",
    "/dev/full",
    "/dev/zero",
    "x" * 300,
    "nowhere/x",
    "run",
    "a.png",
    "a.png/x",
    "circle",
    "-",
]
# Largest values that are allowed and would take gigabytes or minutes here.
COSTLY = {"image_size", "epochs", "embed_dim", "workers", "classes", "dim"}
OF_THE_DATA = ("--hold-out-classes", "--subset")  # only the data tell whether they can be met


def commands(group=None, before=""):
    """The commands by their name: "train", "visualize umap"."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


COMMANDS = commands()
FIGURES = [name for name in COMMANDS if name.startswith("visualize ")]
AS_TRAIN = {one.name for one in COMMANDS["train"].params} - {"loss", "scale", "margin", "out", "resume", "val_fraction"}
OPTIONS = [
    pytest.param(name, one, id=f"{name} {one.opts[0]}")
    for name, command in COMMANDS.items()
    for one in command.params
    if one.opts[0].startswith("-") and one.name not in ("help", "help_all")
    if name != "tune" or one.name not in AS_TRAIN  # what it passes on to train is tried there
]


def values_of(option):
    """Values of an option: none for a flag, else its extremes, what lies beyond, and what is no value at all."""
    if option.is_flag:
        return [None]
    kind = str(getattr(option.type_descriptor, "annotation", ""))
    if "int" in kind or "float" in kind:  # what lies beyond is in test_extremes.py
        bounds = TrainConfig.__dataclass_fields__[option.name].metadata["bounds"] if known(option) else None
        edges = (bounds.low, None if option.name in COSTLY else bounds.high) if bounds else (option.min, None)
        return [str(edge) for edge in edges if edge is not None and math.isfinite(edge)]
    return [*(PATHS if "Path" in kind or option.name == "data_dir" else TEXTS), HUGE]


def known(option):
    return (
        option.name in TrainConfig.__dataclass_fields__
        and "bounds" in TrainConfig.__dataclass_fields__[option.name].metadata
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, a picture and a link to itself."""
    home = tmp_path_factory.mktemp("options")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        line = TRAIN.replace("--dry-run", "--loss arcface --embed-dim 3 -q --out run")
        assert run(line.split()) == 0
    Image.new("RGB", (8, 8)).save(home / "a.png")
    (home / "run" / "known" / "x").mkdir(parents=True)
    shutil.copy(home / "a.png", home / "run" / "known" / "x")
    (home / "circle").symlink_to("circle")
    return home


def once(monkeypatch, export, made):
    """A network is traced, written and read back once for all options of `export`."""

    def remembering(name, kind, real):
        def work(*given):
            key = name, kind(*given)
            if key not in made:
                made[key] = real(*given)
            return made[key]

        monkeypatch.setattr(export, name, work)

    remembering("traced", lambda net, _: net.working, export.traced)
    remembering("to_pt2", lambda graph, _: id(graph), export.to_pt2)
    remembering("run_pt2", len, export.run_pt2)


@pytest.fixture(scope="module")
def graphs():
    """What `once` remembers."""
    return {}


@pytest.fixture
def call(made, cli, tmp_path, monkeypatch, graphs):
    """Runs a command line in a fresh copy of that folder; returns what `cli` does and how often data was read."""
    import cifarnet.analysis.export.write as export
    import cifarnet.analysis.plots.style as style
    import cifarnet.data.registry as registry

    reads, resolve = [], registry.resolve_name
    monkeypatch.setattr(style.Figure, "savefig", lambda *_, **__: None)  # how a figure looks is not the matter here
    for name in ("WARM_UP", "STEPS", "SECONDS"):  # nor how long a step takes
        monkeypatch.setattr(rehearsal, name, 0)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # nor a compiler's code
    monkeypatch.setattr(registry, "resolve_name", lambda name: reads.append(name) or resolve(name))
    once(monkeypatch, export, graphs)
    number = itertools.count()

    def work(line):
        reads.clear()
        home = tmp_path / str(next(number))
        home.mkdir()
        (home / "circle").symlink_to("circle")
        shutil.copytree(made / "run", home / "run")
        shutil.copy(made / "a.png", home)
        monkeypatch.chdir(home)
        code, out, err = cli(*line)
        left = sorted(os.listdir(home))
        shutil.rmtree(home)
        return code, out, err, len(reads), left

    return work


def check(line, code, out, err, reads, left):
    told = (line, code, err[-300:])
    assert code in (0, 1, 2), told
    assert "internal" not in err and "Traceback" not in err and "\x1b" not in err + out, told
    assert err.count("error: ") <= 1 or line[0] in ("predict", "featuremaps"), told
    if code == 2:
        assert out == "" and (reads == 0 or any(flag in line for flag in OF_THE_DATA)), told
        assert left == ["a.png", "circle", "run"], told
        assert sum(text.startswith("error: ") for text in err.splitlines()) == 1, told


@pytest.mark.parametrize("name, option", OPTIONS)
def test_each_option_at_its_extremes(call, name, option):
    base = BASES.get(name) or FIGURE.format(name.split()[1])
    if name.startswith("visualize ") and "samples" not in {one.name for one in COMMANDS[name].params}:
        base = base.replace(" --samples 40", "")
    values = values_of(option)
    if name in FIGURES[1:]:  # their options are mostly the same ones
        values = values[FIGURES.index(name) % 3 :: 3]
    for value in values:
        line = [*base.split(), option.opts[0], *([value] if value is not None else [])]
        check(line, *call(line))


def other_values():
    """(flag, value) of each option of `train` with a value that is not its default."""
    found = {}
    for one in COMMANDS["train"].params:
        if not known(one) or one.name in ("device", "data_dir", "epochs", "seed", "workers"):
            continue
        bounds = TrainConfig.__dataclass_fields__[one.name].metadata["bounds"]
        default = getattr(TrainConfig, one.name)
        if one.is_flag:
            found[one.name] = [one.secondary_opts[0] if default and one.secondary_opts else one.opts[0]]
        elif bounds.choices:
            found[one.name] = [one.opts[0], next(value for value in reversed(bounds.choices) if value != default)]
        elif isinstance(default, (int, float)):
            low, high = bounds.low or 0, bounds.high if bounds.high and math.isfinite(bounds.high) else 64
            value = type(default)((low + min(high, low + 64)) / 2)
            found[one.name] = [one.opts[0], str(value if value != default else value + 1)]
    rows = {
        "arch": "resnet18",
        "loss": "arcface",
        "dataset": "synthetic-identities",
        "augment": "basic",
        "data-dir": ".",
        "hold-out-classes": "2",
        "image-column": "path",
        "label-column": "class",
    }
    return found | {name: [f"--{name}", value] for name, value in rows.items()}


def test_each_two_options_of_train_together(cli, monkeypatch):
    """None of them is read as data: what they come to is checked, and no more. All conflicts but those of one value are met."""
    met, holds = set(), {row: row.holds for row in conflicts.CONFLICTS}

    def watched(row):
        def asked(config):
            found = holds[row](config)
            if found:
                met.add(row)
            return found

        return asked

    rows = tuple(conflicts.Conflict(row.options, watched(row), row.why, row.fix) for row in conflicts.CONFLICTS)
    monkeypatch.setattr(conflicts, "CONFLICTS", rows)
    monkeypatch.setattr(fit, "fit", lambda config, *_, **__: conflicts.check_options(config))

    def only_check(config, *_, **__):
        conflicts.check_options(config)
        raise fit.Refused("checked", "it could be", "")

    monkeypatch.setattr(rehearsal, "rehearse", only_check)
    refused = 0
    for one, other in itertools.combinations(other_values().values(), 2):
        code, _, err = cli("train", "--dry-run", *one, *other)
        told = (one, other, err)
        assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and "internal" not in err, told
        refused += "checked" not in err
    assert refused > 50
    unmet = [row.options for row in conflicts.CONFLICTS if row.options not in {row.options for row in met}]
    assert not unmet


def test_no_command_is_forgotten():
    assert {name for name in COMMANDS if not name.startswith("visualize")} <= BASES.keys()
    assert len(OPTIONS) > 150
