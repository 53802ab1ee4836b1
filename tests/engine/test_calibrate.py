"""Temperature, threshold and scores of calibration, against scikit-learn, scipy and made data whose temperature is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn import metrics
from sklearn.calibration import calibration_curve

from cifarnet import load
from cifarnet.cli.tables import score_rows
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import Split
from cifarnet.data import load as load_data
from cifarnet.data.dataset import make_dataset
from cifarnet.data.shaping import shape
from cifarnet.engine.calibrate import calibration_scores, equal_mass_bins, fit_calibration
from cifarnet.engine.fit import fit
from cifarnet.engine.held_out import check_apart, open_held_out
from cifarnet.engine.metrics import score as scores_of
from cifarnet.engine.open_split import open_split
from cifarnet.engine.setup import build_run
from cifarnet.models.calibration import Calibration, energy_scores, probabilities
from cifarnet.models.checkpoint import load_model, read_info, save_model
from cifarnet.models.model_info import parse_info

TRAIN = "train --dataset digits --arch baseline --epochs 4 --lr 3e-3 --device cpu --precision fp32 -q"


def made(temperature, images=20_000, classes=7, seed=0):
    """Logits whose labels are drawn from their softmax at a temperature: that one is the true calibration."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(images, classes))
    p = softmax(logits / temperature, axis=1)
    labels = (p.cumsum(axis=1) > generator.random((images, 1))).argmax(axis=1)
    return torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_the_one_of_least_cross_entropy(temperature):
    logits, labels = made(temperature)
    found = fit_calibration(logits, labels, "made")

    def nll(log_t):
        return -log_softmax(logits.numpy() / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert calibration_scores(logits, labels, found).ece < 0.015
    energy = temperature * logsumexp(logits.numpy() / temperature, axis=1)
    torch.testing.assert_close(energy_scores(logits, temperature), torch.from_numpy(energy), rtol=1e-12, atol=0)
    accepted = (energy_scores(logits, found.temperature) >= found.unknown_at).double().mean()
    assert 0.99 <= accepted < 0.9901


def test_scores_are_those_of_scikit_learn():
    logits, labels = made(2.0, images=3000)
    p, y = softmax(logits.numpy() / 1.7, axis=1), labels.numpy()
    found = calibration_scores(logits, labels, Calibration(1.7, 0.0, 1, ""))
    assert found.nll == pytest.approx(metrics.log_loss(y, p), rel=1e-9)
    assert found.brier == pytest.approx(sum(metrics.brier_score_loss(y == c, p[:, c]) for c in range(7)), rel=1e-9)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    fraction, mean = calibration_curve(correct, confidence, n_bins=15, strategy="quantile")
    ours = equal_mass_bins(confidence, correct)
    np.testing.assert_allclose(ours[0], mean, rtol=1e-9)
    np.testing.assert_allclose(ours[1], fraction, rtol=1e-9)
    assert ours[2].sum() == 3000 and set(ours[2]) == {200}
    assert found.ece == pytest.approx(np.abs(fraction - mean).mean(), rel=1e-9)  # bins of equal mass


def test_auroc_depends_on_the_temperature_and_is_said_to_be_without_it():
    """Against scikit-learn. Only `eval` of a model with a temperature says so: without one there is nothing to mistake."""
    logits, labels = made(2.0, images=500)
    one, other = (
        metrics.roc_auc_score(labels, softmax(logits.numpy() / t, axis=1), multi_class="ovr", average="macro")
        for t in (1.0, 2.0)
    )
    assert scores_of(logits, labels, "abcdefg").auroc == pytest.approx(one, abs=1e-6) and abs(one - other) > 1e-5
    rows = dict(score_rows(scores_of(logits, labels, "abcdefg").to_dict(), calibrated=True))
    assert rows["AUROC (one-vs-rest, macro)"] == f"{100 * one:.2f}% (no temperature)"
    assert (
        "temperature"
        not in dict(score_rows(scores_of(logits, labels, "abcdefg").to_dict()))["AUPRC (one-vs-rest, macro)"]
    )


def test_equal_confidences_stay_in_one_bin_and_few_images_are_enough():
    mean, accuracy, count = equal_mass_bins(np.array([1.0] * 40 + [0.5] * 2), np.array([True] * 39 + [False] * 3))
    assert sorted(count) == [2, 40] and dict(zip(count, accuracy, strict=True)) == {2: 0.0, 40: 39 / 40}
    assert dict(zip(count, mean, strict=True)) == {2: 0.5, 40: 1.0}
    assert calibration_scores(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).ece == pytest.approx(
        1 - 1 / (1 + np.exp(-2))
    )


def test_where_no_temperature_is_best():
    right = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    with pytest.raises(Refused, match="has 2 held-out images all right, so that no temperature is best"):
        fit_calibration(right, torch.tensor([0, 1]), "")
    with pytest.raises(Refused, match="no better than chance"):
        fit_calibration(right, torch.tensor([1, 0]), "")


def test_a_run_that_held_images_out_is_calibrated_and_predicts_so(cli, tmp_path):
    assert cli(*TRAIN.split(), "--loss", "ce", "--val-fraction", "0.2", "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    model = load(tmp_path / "run")
    kept = model.info.calibration
    assert vars(kept) == summary["calibration"] and kept.images == 288 and summary["not_calibrated"] == ""
    assert read_info(tmp_path / "run" / "last.safetensors").calibration is None

    digits = load_data("digits")
    black = np.zeros((32, 32, 3), np.uint8)
    images = [digits.test.images[0].permute(1, 2, 0).numpy(), black]
    for name, image in zip(("digit.png", "black.png"), images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    logits = model.logits([tmp_path / "digit.png", tmp_path / "black.png"]).double().numpy()
    expected = softmax(logits / kept.temperature, axis=1)
    scores = kept.temperature * logsumexp(logits / kept.temperature, axis=1)
    between = replace(kept, unknown_at=scores.mean())  # so that one of them is none of the classes
    save_model(model.path, model.classifier, replace(model.info, calibration=between))
    line = ["predict", "digit.png", "black.png", "--run", "run", "--device", "cpu"]
    code, out, _ = cli(*line, "--top", "10", "--json")
    found = json.loads(out)
    assert code == 0 and found["calibrated"] is True
    for row, score, prediction in zip(expected, scores, found["predictions"], strict=True):
        assert prediction["probabilities"] == pytest.approx(sorted(row, reverse=True), rel=1e-5)
        assert prediction["unknown_score"] == pytest.approx(score, rel=1e-5)
        assert prediction["unknown"] is bool(score < scores.mean())
    _, out, err = cli(*line)
    assert "none of these   score " in out and "probabilities: calibrated (temperature" in err
    assert "none of these" not in cli(*line, "--accept-unknown")[1]
    code, out, _ = cli("featuremaps", "digit.png", "--run", "run", "--grad-cam", "--deletion", "--json")
    scored = json.loads(out)["images"][0]["deletion"][0]  # of the likeliest class, before a pixel is removed
    assert code == 0 and scored["probability"] == pytest.approx(expected[0].max(), rel=1e-5)
    assert scored["probabilities"][0] == pytest.approx(expected[0].max(), rel=1e-5)
    document = json.loads(cli("eval", "run", "--json", "--predictions", "p.csv")[1])["calibration"]
    assert document["fitted"] == vars(between) and document["after"]["nll"] < document["before"]["nll"]


def test_a_run_in_bf16_is_calibrated_on_fp32_logits(tmp_path):
    config = TrainConfig(
        arch="baseline", dataset="digits", epochs=3, batch_size=64, augment="none", lr=3e-3, val_fraction=0.2,
        precision="bf16", device="cpu",
    )  # fmt: skip
    digits = load_data("digits")
    few = replace(digits, train=digits.train.subset(torch.arange(400)), test=digits.test.subset(torch.arange(50)))
    run = fit(config, tmp_path / "run", dataset=few)
    model, info = load_model(run / "best.safetensors")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (info.mean, info.std))
    held_out = shape(few, config).validation
    with torch.no_grad():
        logits = model((held_out.images / 255 - mean) / std)
    kept = json.loads((run / "summary.json").read_text())["calibration"]
    assert kept["temperature"] == pytest.approx(fit_calibration(logits, held_out.labels, "").temperature, rel=1e-4)


def test_a_head_that_is_spread_is_calibrated_like_a_whole_one(cli, tmp_path):
    line = [*TRAIN.split(), "--loss", "arcface", "--val-fraction", "0.2"]
    found = []
    for more in ([], ["--head-parallel"]):
        assert cli(*line, *more, "--out", f"run{len(more)}")[0] == 0
        summary = json.loads((tmp_path / f"run{len(more)}" / "summary.json").read_text())
        assert summary["calibration"] and summary["not_calibrated"] == ""
        assert vars(load(tmp_path / f"run{len(more)}").info.calibration) == summary["calibration"]
        found.append(summary["calibration"]["temperature"])
    assert found[1] == pytest.approx(found[0], rel=0.05)


def write_digits(folder, part, noise, seed=0):
    """PNG files of 150 digits in folder/part/<class>/, with noise of their own; not of the model's size."""
    digits, generator = load_data("digits"), np.random.default_rng(seed)
    for index in range(150):
        pixels = digits.train.images[index].permute(1, 2, 0).numpy() + generator.normal(0, noise, (32, 32, 3))
        into = folder / part / digits.classes[int(digits.train.labels[index])]
        into.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((40, 36)).save(into / f"{index}.png")


def test_calibrating_later_takes_no_image_that_the_run_has_seen(cli, tmp_path):
    for folder, part, noise in (("own", "train", 0), ("own", "test", 9), ("new", "train", 20), ("new", "test", 40)):
        write_digits(tmp_path / folder, part, noise, seed=int(noise))
    line = TRAIN.replace("digits", "folder --data-dir own --workers 0").replace("--epochs 4", "--epochs 6")
    assert cli(*line.split(), "--loss", "ce", "--out", "run")[0] == 0
    code, _, err = cli("calibrate", "run")
    assert code == 2 and "the run held no images out; name a set of other images with --dataset" in err
    code, _, err = cli("calibrate", "run", "--data-dir", "new")
    assert (
        code == 2 and "held no images out; say of what kind --data-dir is with --dataset, for example 'folder'" in err
    )
    code, _, err = cli("calibrate", "run", "--dataset", "folder", "--data-dir", "own")
    assert code == 2 and "these are images of the run's own training or test" in err
    line = ["calibrate", "run", "--dataset", "folder", "--data-dir", "new", "--json"]
    before = read_info(tmp_path / "run" / "last.safetensors")
    code, out, err = cli(*line)
    assert code == 0, err
    after = read_info(tmp_path / "run" / "last.safetensors")
    assert after == replace(before, calibration=after.calibration) and after.calibration.images == 150
    assert json.loads(out)["fitted"] == vars(after.calibration)
    seen = next((tmp_path / "own" / "test").glob("*/*.png"))
    (tmp_path / "new" / "train" / seen.parent.name / "seen.png").write_bytes(seen.read_bytes())
    code, _, err = cli(*line)
    assert code == 2 and "1 of 151 images are in the run's own training or test" in err


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_of_either_part_of_the_training_are_refused(part):
    """By their pixels, image by image; as a whole set also where the run's data is gone."""
    digits = load_data("digits")
    own = getattr(digits, part)
    info = build_run(TrainConfig(arch="baseline", dataset="digits", device="cpu"), digits).info({})
    noise = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    check_apart(Split(noise, torch.arange(8)), info, load_data)
    with pytest.raises(Refused, match="1 of 9 images are in the run's own training or test"):
        check_apart(Split(torch.cat([noise, own.images[:1]]), torch.arange(9)), info, load_data)

    def gone(*_, **__):
        raise Refused("data_dir", "is not there", "look for it")

    with pytest.raises(Refused, match="these are images of the run's own training or test"):
        check_apart(own, info, gone)


def test_what_was_held_out_is_held_out_no_more_in_other_data(cli, tmp_path):
    """One image less, and the split that is drawn from the folder holds images that were trained on. Another set is taken whole.

    The run computes in bf16; the temperature is that of fp32, as `predict` has it.
    """
    for folder, part, noise in (("own", "train", 0), ("own", "test", 9), ("new", "train", 20), ("new", "test", 40)):
        write_digits(tmp_path / folder, part, noise, seed=int(noise))
    line = TRAIN.replace("digits", "folder --data-dir own --workers 0").replace("--epochs 4", "--epochs 3")
    line = line.replace("fp32", "bf16")
    assert cli(*line.split(), "--loss", "ce", "--val-fraction", "0.2", "--label-noise", "0.2", "--out", "run")[0] == 0
    assert cli("calibrate", "run")[0] == 0
    assert read_info(tmp_path / "run" / "best.safetensors").calibration.images == 29  # a fifth of each class
    assert cli("calibrate", "run", "--dataset", "folder", "--data-dir", "new")[0] == 0
    kept = read_info(tmp_path / "run" / "best.safetensors").calibration
    new = load_data("folder", "new", image_size=32)  # its labels as they are, though the run's were made noisy
    images = [pixels.permute(1, 2, 0).numpy() for pixels in new.train.images]
    assert load(tmp_path / "run").info.config.precision == "bf16"
    by_hand = fit_calibration(load(tmp_path / "run").logits(images), new.train.labels, "")
    assert kept.temperature == pytest.approx(by_hand.temperature, rel=1e-4)
    assert kept.images == 150
    next((tmp_path / "own" / "train").glob("*/*.png")).unlink()
    code, _, err = cli("calibrate", "run")
    assert code == 2 and "the data is not as in training (" in err and "so is what is held out of it" in err
    assert "; name the folder of the training with --data-dir, or another set with --dataset" in err


def test_what_was_held_out_of_data_that_nobody_noted(cli, tmp_path):
    """A checkpoint of version 0.1 has no identity of its data, but the means of its pixels: what else has changed can only be warned of."""
    assert cli(*TRAIN.split(), "--val-fraction", "0.2", "--out", "run")[0] == 0
    path = tmp_path / "run" / "best.safetensors"
    digits = load_data("digits")
    dark = make_dataset("digits", digits.classes, Split(digits.train.images // 2, digits.train.labels), digits.test)

    def same(data):
        return open_split(path, *load_model(path), "val", load=lambda *_, **__: data).as_in_training

    assert (same(digits), same(dark)) == (True, False)
    assert "does not say what data" not in cli("eval", "run", "--split", "val")[2]
    model, info = load_model(path)
    save_model(path, model, replace(info, data=""))
    assert (same(digits), same(dark)) == (None, False)
    with pytest.raises(Refused, match=r"the data is not as in training \(the mean of its pixels was 0.305"):
        open_held_out(path, load=lambda *_, **__: dark)
    for line in (("eval", "run", "--split", "val"), ("calibrate", "run")):
        code, _, err = cli(*line)
        assert code == 0 and err.count("note: the run does not say what data it began with") == 1, err
    assert "note:" not in cli("eval", "run")[2]


def test_a_broken_calibration_is_refused(tmp_path):
    info = load("packaged:baseline").info
    good = Calibration(1.5, -2.0, 10, "made")
    text = replace(info, calibration=good).to_json()
    assert parse_info(text, tmp_path) == replace(info, calibration=good)
    assert "calibration" not in json.loads(info.to_json())
    for wrong in (
        {"temperature": 0},
        {"temperature": True},
        {"unknown_at": "1"},
        {"images": 0},
        {"more": 1},
        {"source": "\n"},
    ):
        values = json.loads(text)
        values["calibration"] |= wrong
        with pytest.raises(Refused, match="its metadata is not usable: "):
            parse_info(json.dumps(values), tmp_path)
    torch.testing.assert_close(
        probabilities(torch.tensor([[1.0, 3.0]]), good), torch.tensor([[2.0, 6.0]]).double().div(3).softmax(1)
    )
