"""The real commands on real images, and what they print when something is wrong."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import forked
import forked_python
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score

import cifarnet
from cifarnet.cli import run, watcher
from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.models.calibration import Calibration
from cifarnet.models.checkpoint import load_model, save_model
from cifarnet.storage.runs import next_folder

QUICK = [
    "--arch",
    "baseline",
    "--dataset",
    "digits",
    "--epochs",
    "2",
    "--batch-size",
    "64",
    "--augment",
    "none",
    "--schedule",
    "onecycle",
    "--lr",
    "3e-3",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small digits run, shared; and an image of the five that it is surest of."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--loss", "arcface", "--scale", "16", "--epochs", "8", "--out", str(folder / "run"), "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where runs/latest is marked
        assert run(["train", *QUICK, *options]) == 0
    model, info = load_model(folder / "run" / "last.safetensors")
    digits = load_digits()
    fives = torch.tensor(digits.images[digits.target == 5] * 255 / 16).to(torch.uint8)
    with torch.inference_mode():  # after 8 epochs a fifth of the test images is still taken for another digit
        shown = F.interpolate(fives[:, None].float() / 255, info.config.image_size, mode="bilinear").expand(
            -1, 3, -1, -1
        )
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))
        surest = model((shown - mean) / std).softmax(1)[:, 5].argmax()
    Image.fromarray(fives[surest].numpy()).resize((100, 100)).save(folder / "five.png")
    return folder


def refused(result, *words):
    code, out, err = result
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("loss", "named"),
    [("ce", "loss ce,"), ("sphereface", "loss sphereface (m = 4),"), ("magface", "loss magface (s = 64),")],
)
def test_train_names_the_constants_that_its_loss_has(cli, loss, named):
    assert named in cli("train", *QUICK, "--loss", loss, "--epochs", "1")[2]


def test_train_prints_its_progress_and_a_summary(cli, tmp_path):
    code, out, err = cli("train", *QUICK, "--loss", "adaface", "--log-grad")
    assert code == 0
    assert re.search(r"accuracy\s+\d+\.\d+% of 355 images", out) and "AUROC" in out
    lines = err.splitlines()
    assert any("adaface (s = 64, m = 0.4)" in line for line in lines) and any("cpu" in line for line in lines)
    assert sum(bool(re.match(r"\s+[12]\s+\d\.\d\de-\d\d", line)) for line in lines) == 2
    folder = tmp_path / "runs" / "baseline-adaface-digits-1"
    assert (tmp_path / "runs" / "latest").resolve() == folder
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "metrics.jsonl", "last.safetensors", "state.safetensors", "summary.json", "curves.png", "confusion.png",
    }  # fmt: skip
    assert cli("train", *QUICK, "--loss", "adaface", "-q")[0] == 0
    assert (tmp_path / "runs" / "baseline-adaface-digits-2").exists()


def test_json_is_one_document_and_nothing_else(cli, trained):
    code, out, _ = cli("train", *QUICK, "--json")
    assert code == 0 and json.loads(out)["test"]["accuracy"] > 0.5
    code, out, _ = cli("eval", trained / "run", "--json")
    assert code == 0 and len(json.loads(out)["confusion"]) == 10
    code, out, _ = cli("predict", trained / "five.png", "--checkpoint", trained / "run", "--json")
    found = json.loads(out)["predictions"][0]
    assert code == 0 and found["classes"][0] == "five" and sum(found["probabilities"]) < 1


def test_resume_and_overwrite(cli, tmp_path):
    train = ["train", *QUICK, "--out", "run", "-q"]
    assert cli(*train)[0] == 0
    refused(cli(*train), "already holds a run", "--resume", "--overwrite")
    code, _, err = cli("train", "--resume", "--out", "run")
    assert code == 0 and "nothing to do" in err
    refused(
        cli("train", "--resume", "--out", "run", "--lr", "0.5", "--seed", "4"), "--lr 0.003 -> 0.5", "--seed 17 -> 4"
    )
    refused(cli("train", "--resume", "--out", "run", "--recipe", "baseline"), "--resume")
    assert cli("train", "--resume", "--out", "run", "--epochs", "3", "-q")[0] == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    (tmp_path / "run" / "state.safetensors").unlink()
    refused(cli("train", "--resume", "--out", "run"), "--init-from")
    refused(cli("train", "--resume", "--out", "nowhere"), "no run to resume")
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert cli(*train, "--overwrite")[0] == 0
    assert (tmp_path / "run" / "mine.txt").exists() and len(
        (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ) == 2


def test_one_run_a_folder(cli, tmp_path):
    other = forked.start("train", *QUICK, "--epochs", "500", "--out", "run")
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        refused(cli("train", "--resume", "--out", "run"), "another process is training there")
    finally:
        other.kill()
        other.join()


def test_config_file_recipe_and_flags_in_that_order(cli, tmp_path):
    (tmp_path / "my.json").write_text('{"epochs": 1, "lr": 0.5, "dataset": "digits"}')
    assert cli("train", "--recipe", "baseline", "--config", "my.json", "--lr", "0.001", "--out", "run", "-q")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["epochs"], config["lr"], config["batch_size"], config["init"]) == (1, 0.001, 32, "keras")


def test_the_header_says_what_a_file_changes(cli, tmp_path):
    """Neither as the recipe's, nor what a flag has put in its place, nor what was so anyway."""
    values = {"arch": "baseline", "dataset": "digits", "epochs": 2, "batch_size": 32, "momentum": 0.9, "lr": 0.2}
    (tmp_path / "my.json").write_text(json.dumps(values | {"loss": "arcface", "margin": 0.2, "scale": 64.0}))
    line = ["train", "--config", "my.json", "--epochs", "1", "--device", "cpu", "--dry-run"]
    code, _, err = cli(*line, "--recipe", "baseline")
    assert code == 0, err
    said = {name: " ".join(text.split()) for name, text in re.findall(r"^(\w+) +((?:.+\n(?: {3,}.+\n)*))", err, re.M)}
    assert said["config"] == "my.json: --dataset digits --lr 0.2 --loss arcface --margin 0.2"
    assert "--lr" not in said["sets"] and "--batch-size 32" in said["sets"] and said["changed"].startswith("--epochs 1")
    (tmp_path / "none.json").write_text(json.dumps({"momentum": 0.9}))
    err = cli("train", "--config", "none.json", "--dataset", "digits", "--arch", "baseline", "--dry-run")[2]
    assert "config   none.json: changes nothing\n" in err


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        (["--momentum", "0.5"], ["--momentum: adamw does not use it"]),
        (["--config", "my.json"], ["--rest-lr: adamw does not use it", "--momentum: adamw does not use it"]),
        (["--momentum", "0.9", "--rest-lr", "1"], []),
        (["--momentum", "0.5", "--optimizer", "sgd"], []),
        (["--rest-lr", "2", "--optimizer", "sgd"], ["--rest-lr: sgd does not use it"]),
        (["--stem", "cifar"], ["--stem: baseline has one first layer only"]),
        (["--warmup", "0.1", "--schedule", "constant"], ["--warmup: a constant rate has no warm-up"]),
        (["--backend", "torch"], ["--backend: ce has no margin head"]),
        (["--workers", "2"], ["--workers: the images are in memory, where none is decoded"]),
        (["--recipe", "quick", "--optimizer", "adam"], []),  # the recipe's own values
    ],
)
def test_options_without_effect_are_noted_and_do_no_harm(cli, tmp_path, options, notes):
    (tmp_path / "my.json").write_text('{"momentum": 0.5, "rest_lr": 2.0}')
    code, _, err = cli("train", "--dataset", "digits", "--arch", "baseline", "--epochs", "1", "--dry-run", *options)
    assert code == 0 and re.findall(r"^note +(.*)$", err, re.MULTILINE) == notes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "-1"], ["--lr", "above 0"]),
        (["--margin", "nan", "--loss", "arcface"], ["--margin", "finite"]),
        (["--batch-size", "0"], ["--batch-size", "at least 1"]),
        (["--epochs", "-3"], ["--epochs"]),
        (["--epochs", "many"], ["--epochs", "integer"]),
        (["--arch", "resnet19"], ["resnet18"]),
        (["--loss", "adafase"], ["adaface"]),
        (["--recipe", "best"], ["baseline"]),
        (["--device", "cuda:7"], ["this machine has", "cpu"]),
        (["--nonsense"], ["--nonsense"]),
        (["--margin", "0.3"], ["ce has no such constant"]),
        (["--config", "none.json"], ["no such file"]),
        (["--init-from", "none"], ["no such run"]),
        (["--image-size", "16", "--arch", "resnet18"], ["32 pixels"]),
        (["--optimizer", "muon"], ["BatchNorm"]),
        (["--backend", "cuda", "--loss", "arcface"], ["--backend"]),
        (["--out", "/proc/run"], ["/proc/run"]),
    ],
)
def test_wrong_options_are_refused_before_any_work(cli, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(watcher, "load_with_progress", lambda *_: pytest.fail("data is read"))
    refused(cli("train", *QUICK, *options), *words)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.safetensors"))


def test_an_unknown_data_set_names_the_known(cli):
    refused(cli("train", *QUICK, "--dataset", "cifar11"), "cifar10")


def test_missing_data_says_where_it_looked(cli, tmp_path):
    code, out, err = cli("train", "--dataset", "cifar10", "--data-dir", tmp_path / "none", "--out", "run")
    assert code in (1, 2) and out == "" and "error: " in err and "Traceback" not in err


def test_a_file_in_the_way(cli, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(cli("train", *QUICK, "--out", "file"), "is a file")
    refused(cli("train", *QUICK, "--out", "file/run"), "file/run")


def test_eval_agrees_with_scikit_learn(cli, trained, tmp_path):
    code, out, _ = cli("eval", trained / "run", "--csv", "classes.csv", "--predictions", "all.csv", "--figure", "c.png")
    assert code == 0 and "expected calibration error" in out and "true class" in out
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    macro = f1_score([row["label"] for row in rows], [row["prediction"] for row in rows], average="macro")
    assert f"/ {100 * macro:.2f}%" in out
    assert len(list(csv.DictReader((tmp_path / "classes.csv").open()))) == 10
    assert Image.open(tmp_path / "c.png").size[0] > 300
    before = json.loads((trained / "run" / "summary.json").read_text())["test"]["accuracy"]
    assert f"{100 * before:.2f}% of 355" in out


def test_predictions_of_a_calibrated_model_are_calibrated(cli, trained, tmp_path):
    model, info = load_model(trained / "run" / "last.safetensors")
    save_model(tmp_path / "m.safetensors", model, replace(info, calibration=Calibration(2.5, 0.0, 100, "made")))
    assert cli("eval", "m.safetensors", "--predictions", "all.csv", "--precision", "fp32")[0] == 0
    with (tmp_path / "all.csv").open() as file:
        rows = [[float(row[name]) for name in info.classes] for row in csv.DictReader(file)]
    logits = cifarnet.load(trained / "run", device="cpu").logits(load("digits").test.images).double().numpy()
    np.testing.assert_allclose(rows, softmax(logits / 2.5, axis=1), atol=1e-5)


def test_eval_of_the_training_split(cli, trained):
    code, out, _ = cli("eval", trained / "run", "--split", "train", "--json")
    document, data = json.loads(out), load("digits").train
    predicted = cifarnet.load(trained / "run", device="cpu").logits(data.images).argmax(dim=1)
    assert code == 0 and document["images"] == len(data.labels)
    assert document["accuracy"] == pytest.approx(accuracy_score(data.labels, predicted), abs=1e-3)


def test_tta_is_said_and_changes_the_scores(cli, trained):
    plain, averaged = (json.loads(cli("eval", trained / "run", "--json", *more)[1]) for more in ([], ["--tta"]))
    drawn = [(trained / "run" / name).read_bytes() for name in ("confusion.png", "confusion-tta.png")]
    assert drawn[0] != drawn[1]
    cli("eval", trained / "run", "--json", "--tta")
    assert (trained / "run" / "confusion.png").read_bytes() == drawn[0]  # the plain one stays
    assert (plain["tta"], averaged["tta"]) == (False, True)
    assert plain["loss"] != averaged["loss"]


def test_eval_refuses_what_does_not_fit(cli, trained, tmp_path):
    refused(cli("eval"), "no run yet")
    refused(cli("eval", trained / "run", "--split", "valid"), "--split")
    refused(cli("eval", trained / "run", "--split", "val"), "held no validation")
    refused(cli("eval", tmp_path), "is no run folder")
    refused(cli("eval", trained / "run" / "state.safetensors"), "state file")


def test_predict_reports_bad_files_and_does_the_good(cli, trained, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    os.mkfifo(tmp_path / "pipe.png")
    good, run_folder = trained / "five.png", trained / "run"
    code, out, err = cli(
        "predict", good, "text.png", "pipe.png", "gone\x1b[31m.png", good, "--checkpoint", run_folder, "--csv", "p.csv"
    )
    assert code == 1 and len(re.findall(r"five\.png", out)) == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4 and "3 of 5 files" in errors[-1] and "\x1b" not in err
    assert [row["class_1"] for row in csv.DictReader((tmp_path / "p.csv").open())] == ["five", "five"]


def test_predict_is_a_forward_pass(cli, trained):
    """The probabilities of the table, by hand: resize, normalise, forward, softmax."""

    model, info = load_model(trained / "run" / "last.safetensors")
    pixels = Image.open(trained / "five.png").convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    image = torch.tensor(list(pixels.tobytes())).view(32, 32, 3).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (info.mean, info.std))
    expected = model(((image - mean) / std)[None]).softmax(1)[0]
    _, out, _ = cli("predict", trained / "five.png", "--checkpoint", trained / "run", "--json", "--top", "10")
    found = json.loads(out)["predictions"][0]
    by_name = dict(zip(found["classes"], found["probabilities"], strict=True))
    assert [by_name[name] for name in info.classes] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-7)


def test_predict_can_cut_out_the_middle(cli, trained):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 60, 3)).astype(np.uint8))
    wide.save("wide.png")
    model, found = cifarnet.load(trained / "run", device="cpu"), []
    for crop in (["--crop"], []):
        out = cli("predict", "wide.png", "--run", trained / "run", "--top", 10, "--json", *crop)[1]
        [one] = json.loads(out)["predictions"]
        found.append(dict(zip(one["classes"], one["probabilities"], strict=True)))
    middle = model.predict(ImageOps.fit(wide, (32, 32), Image.Resampling.BILINEAR))
    assert found[0] == pytest.approx(dict(zip(middle.classes, middle.probabilities, strict=True)), abs=1e-5)
    assert max(abs(found[0][name] - found[1][name]) for name in found[0]) > 1e-3


def test_predict_uses_the_latest_run_and_else_the_packaged_weights(cli, trained, tmp_path):
    code, _, err = cli("predict", trained / "five.png")
    assert code == 0 and "ships with cifarnet" in err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").symlink_to(trained / "run")
    code, out, err = cli("predict", trained / "five.png")
    assert code == 0 and err.startswith(f"{trained / 'run'}: ") and "five" in out
    for name in ("packaged", "packaged:baseline"):
        code, _, err = cli("predict", trained / "five.png", "--run", name)
        assert code == 0 and "ships with cifarnet: " in err
    shutil.copytree(trained / "run", "packaged")  # the user's own folder of that name is the one that is meant
    code, _, err = cli("predict", trained / "five.png", "--run", "packaged")
    assert code == 0 and err.startswith("packaged: ")


def test_a_folder_needs_recursive(cli, trained, tmp_path):
    (tmp_path / "images").mkdir()
    Image.open(trained / "five.png").save(tmp_path / "images" / "a.png")
    code, _, err = cli("predict", "images", "--checkpoint", trained / "run")
    assert code == 1 and "--recursive" in err
    code, out, _ = cli("predict", "images", "-r", "--checkpoint", trained / "run")
    assert code == 0 and "a.png" in out


def test_head_of_a_pipe_is_quiet(trained):
    line = f"{forked_python.executable()} -m cifarnet predict {' '.join([str(trained / 'five.png')] * 3)} --checkpoint {trained / 'run'} --top 10 | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    which, how = done.stderr.splitlines()  # which model this is, and what its probabilities are worth
    assert which.startswith(f"{trained / 'run'}: baseline") and how == "probabilities: not calibrated"


def test_no_color_and_no_terminal_are_plain(cli, trained):
    _, out, err = cli("eval", trained / "run")
    assert "\x1b" not in out + err


def test_help_imports_no_torch():
    code = "import sys; from cifarnet.cli import run; run(['--help']); run(['train', '--help']); print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("False False\n") and "--loss" in done.stdout


def test_debug_shows_the_traceback(cli):
    code, _, err = cli("train", *QUICK, "--lr", "-1", "--debug")
    assert code == 2 and "Traceback" in err and "error: --lr" in err


def test_the_epoch_of_the_checkpoint_is_told(cli, trained):
    with open(trained / "run" / "metrics.jsonl") as file:
        assert len(file.readlines()) == 8
    assert load_file(trained / "run" / "last.safetensors")["head.weight"].shape == (10, 64)


def test_runs_started_at_the_same_moment_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(arch="baseline", dataset="digits")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: next_folder(config), range(40)))
    assert sorted(int(folder.name.rsplit("-", 1)[1]) for folder in folders) == list(range(1, 41))


def test_a_refused_run_leaves_no_folder(cli, tmp_path):
    refused(cli("train", *QUICK, "--device", "cuda:7"), "--device")
    assert not (tmp_path / "runs").exists() or os.listdir(tmp_path / "runs") == []


def test_predict_starts_without_the_compiler(trained):
    """torch._dynamo takes a second to import, and predict has no use for it."""
    code = f"import sys; from cifarnet.cli import run; run(['predict', {str(trained / 'five.png')!r}, '--checkpoint', {str(trained / 'run')!r}]); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("False\n")


def test_the_main_job_on_real_cifar(cli, cifar_data, tmp_path):
    """One epoch on a fifth of the 50,000 images, eval of the 10,000, predict of one of them."""
    options = ["--arch", "baseline", "--loss", "adaface", "--scale", "16", "--epochs", "1", "--lr", "3e-3"]
    options += ["--subset", "10000"]
    assert cli("train", "--data-dir", cifar_data, "--augment", "basic", *options, "-q", "--out", "run")[0] == 0
    code, out, _ = cli("eval", "run", "--data-dir", cifar_data, "--json")
    scores = json.loads(out)
    assert code == 0 and scores["images"] == 10_000 and scores["accuracy"] > 0.3
    test = load("cifar10", cifar_data).test
    Image.fromarray(test.images[0].permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    code, out, _ = cli("predict", "image.png", "--checkpoint", "run", "--top", "10", "--json")
    assert code == 0 and set(json.loads(out)["predictions"][0]["classes"]) == {row["name"] for row in scores["classes"]}
