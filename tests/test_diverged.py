"""Finite weights whose outputs overflow: every command says that the model diverged, and none makes a number of it."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

from cifarnet.cli import run
from cifarnet.data.sources import digits
from cifarnet.engine import loop
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder

TRAIN = (
    "train --arch baseline --dataset digits --batch-size 500 --augment none --precision fp32 --device cpu -q --epochs"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch, and a picture; not to be changed."""
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*TRAIN.split(), "1", "--out", "run", "--schedule", "constant"]) == 0
    Image.effect_noise((32, 32), 90).convert("RGB").save(folder / "a.png")
    return folder


def blow_up(path, *names):
    """Scales these tensors to the end of float32's range: each is finite, and products with them are not."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    for name in names:
        tensors[name] = tensors[name] / tensors[name].abs().max() * 3e38
        assert tensors[name].isfinite().all()
    path.write_bytes(save(tensors, metadata))


@pytest.mark.parametrize("tensors", [("head.weight",), ("backbone.conv1.weight", "backbone.conv2.weight")])
def test_every_command_says_so(cli, trained, tmp_path, tensors):
    shutil.copytree(trained / "run", tmp_path / "run")
    blow_up(tmp_path / "run" / "last.safetensors", *tensors)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    for line in (
        "eval run --json",
        "eval run --csv scores.csv",
        f"predict {trained}/a.png --checkpoint run --csv c.csv",
        f"featuremaps {trained}/a.png --checkpoint run --grad-cam --out f.png",
        "visualize umap run",
        "visualize umap run --method pca",
        "visualize grid run",
        "visualize confusion run",
        "visualize angles run",
        "visualize sphere run --project",
    ):
        code, out, err = cli(*line.split())
        assert code == 1 and out == "", (line, out, err)
        *notes, error = err.splitlines()
        assert error.startswith("error: diverged: the ") and "not finite; " in error, (line, err)
        # The notes say what was being done.
        assert not any(word in note for note in notes for word in ("rror", "arning", "NaN", "nan"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert not list(tmp_path.glob("*.csv"))


def test_a_training_whose_evaluation_overflows(cli, trained, tmp_path, monkeypatch):
    """The losses of the epoch were finite, its weights too: nothing is measured, and the last good model stays."""
    shutil.copytree(trained / "run", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("last*")}

    def spoil(run):
        run.model.head.weight.data.mul_(3e38 / run.model.head.weight.data.abs().max())
        return original(run)

    original = loop.measure_training
    monkeypatch.setattr(loop, "measure_training", spoil)
    code, out, err = cli("train", "--resume", "--epochs", "2", "--out", "run", "-q")
    assert code == 1 and out == "" and err.startswith("error: diverged: the logits of ") and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("last*")} == before
    assert [record["epoch"] for record in read_metrics(RunFolder(tmp_path / "run").metrics)[0]] == [1]
    assert json.loads(cli("runs", ".", "--json")[1])[0]["state"] == "diverged"
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "diverged.json").read_text())["epoch"] == 2


def test_a_training_that_diverges_in_its_steps(cli):
    code, out, err = cli(*TRAIN.split(), "3", "--lr", "1e6", "--optimizer", "sgd", "--out", "run")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "not finite" in err and "smaller --lr" in err
    assert json.loads(cli("runs", ".", "--json")[1])[0]["state"] == "diverged"


def test_scores_that_are_not_defined_are_null_and_a_dash(cli, trained, monkeypatch):
    """Of a test split that holds one class of ten: null in JSON, a dash in the table, nothing in the CSV."""
    whole = digits.load_digits

    def only_zeros(request):
        data = whole(request)
        return replace(data, test=data.test.subset((data.test.labels == 0).nonzero()[:, 0]))

    monkeypatch.setattr(digits, "load_digits", only_zeros)
    code, out, err = cli("eval", trained / "run", "--json", "--csv", "c.csv", "--figure", "c.png")
    found = json.loads(out)
    assert code == 0 and "warning" not in err and 0 < found["images"] < 50
    assert (found["auroc"], found["auprc"]) == (None, None)
    seen = [row for row in found["classes"] if row["images"]]
    assert len(seen) == 1 and seen[0]["recall"] is not None
    assert [row["recall"] for row in found["classes"] if not row["images"]] == [None] * 9
    assert all((row["f1"] is None) == (row["precision"] is None and row["recall"] is None) for row in found["classes"])
    code, out, _ = cli("eval", trained / "run", "--figure", "again.png")
    assert code == 0 and "NaN" not in out and "nan" not in out
    assert any(line.split()[-1] == "–" for line in out.splitlines() if line.startswith("AUROC"))
    with open("c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recall"] for row in rows].count("") == 9
