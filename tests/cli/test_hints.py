"""The answer to what is mistyped, or called otherwise in other tools; and to addresses and over-long paths."""

import pytest
import typer

import cifarnet
from cifarnet.cli import app
from cifarnet.cli.hints import COMMAND_HINTS, OTHER_OPTIONS, commands_below, flags_of
from cifarnet.cli.values import OTHER_VALUES, VALUES
from cifarnet.core.errors import Refused

COMMANDS = dict(commands_below(typer.main.get_command(app)))


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
        ("train --normalize False", "did you mean --no-normalize?"),
        ("train --normalize=False", "--normalize: takes no value; did you mean --no-normalize?"),
        ("train --resume true", "did you mean --resume?"),
        ("train --resume=no", "leave out '--resume=no'"),
        ("train -help", "did you mean --help?"),
        ("help train", "did you mean cifarnet train --help?"),
        ("TRAIN", "did you mean cifarnet train?"),
        ("predict x.png -r=3", "-r: takes no value"),
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
        (
            "eval --arch resnet50",
            "an option of cifarnet train, cifarnet tune, cifarnet complexity and cifarnet visualize network, not of",
        ),
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
        ("train --lr fast", "--lr: must be a valid number, not 'fast'; see"),
        ("train --epochs one", "--epochs: must be a valid integer, not 'one'; see cifarnet train --help"),
        ("identify a b --threshold 2", "--threshold: must be less than or equal to 1, not '2'; see cifarnet identify"),
        ("predict a.png --top=0", "--top: must be greater than or equal to 1, not '0'; see"),
        ("predict -b.png", "-b.png: there is no such option; see"),
        ("predict", "for example: cifarnet predict photo.jpg"),
        ("report", "for example: cifarnet report runs/latest"),
    ],
)
def test_what_is_mistyped_gets_a_hint(cli, line, answer):
    assert answer in refusal(cli, *line.split())


@pytest.mark.parametrize("name", ["-b.png", "--help-me.png"])
def test_a_file_whose_name_begins_as_an_option(cli, tmp_path, name):
    (tmp_path / name).touch()
    said = refusal(cli, "predict", "a.png", name)
    assert said == f"{name}: there is no such option, but a file or folder of that name; write ./{name}"
    assert "--lr-schedule" in refusal(cli, "train", "--lr-schedule", "cosine")  # one that is none stays a hint


def test_a_folder_on_its_own_is_named_the_option_that_takes_it(cli, tmp_path):
    (tmp_path / "my faces").mkdir()
    for command, option in (("train", "--data-dir"), ("identify", "--gallery"), ("tune", "--data-dir")):
        assert refusal(cli, command, "my faces").endswith(f"did you mean {option} 'my faces'?")
    assert refusal(cli, "complexity", "my faces").endswith("see cifarnet complexity --help")
    (tmp_path / "my faces" / "config.json").write_text("{}")  # a run, which holds no images
    assert refusal(cli, "train", "my faces").endswith("did you mean --resume --out 'my faces'?")
    assert refusal(cli, "identify", "runs/a", "my faces").endswith("see cifarnet identify --help")
    assert "--data-dir" not in refusal(cli, "train", str(tmp_path))  # a folder of runs


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
    after = ["owner/name"] if path == "push" else []
    for long in (LONG, f"absent/{LONG}", "n/" * 3000):
        assert "is too long" in refusal(cli, *path.split(), *images, *([option] if option else []), long, *after)
    assert list(tmp_path.iterdir()) == []


def test_every_path_was_tried():
    assert len(PATHS) > 30 and ("eval", "") in PATHS and ("train", "--out") in PATHS
