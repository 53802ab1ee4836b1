"""Synthetic identities: the generator against its statement, and training on them as a user would."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from cifarnet.core.errors import Refused
from cifarnet.data import load
from cifarnet.data.sources.synthetic import FeatureSplit, Identities, make_identities, normals
from cifarnet.data.sources.synthetic import _mixed as mixed

SOURCE = Identities(classes=500, dim=33, spread=40.0, seed=3)


def test_the_hash_is_splitmix64():
    """Its published outputs for the seed 1234567 (the reference implementation's first two)."""
    golden = 0x9E3779B97F4A7C15 - 2**64
    states = torch.tensor(1234567) + torch.tensor([1, 2]) * golden
    assert [int(value) % 2**64 for value in mixed(states)] == [6457827717110365317, 3203168211198807973]


def test_numbers_are_standard_normal_and_uncorrelated():
    drawn = normals(1, 2, torch.arange(4000), 9).double().numpy()
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(drawn.T) - np.eye(9)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(4000)
    assert np.abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 4.5 / math.sqrt(4000)


def test_samples_are_as_the_statement_says():
    """Length sqrt(D), angles normal with the stated deviation, prototypes uniform: their cosines have variance 1/D."""
    samples = torch.arange(6000)
    x = SOURCE.features(samples).double()
    prototypes = SOURCE.prototypes(torch.arange(500)).double()
    torch.testing.assert_close(
        x.norm(dim=1), torch.full((6000,), math.sqrt(33), dtype=torch.float64), rtol=1e-5, atol=0
    )
    cosine = (x * prototypes[samples % 500]).sum(dim=1) / math.sqrt(33)
    angle = np.degrees(np.arccos(cosine.clamp(-1, 1).numpy()))
    assert stats.kstest(angle, stats.foldnorm(0, scale=40.0).cdf).pvalue > 1e-3
    pairs = (prototypes @ prototypes.T)[np.triu_indices(500, 1)]
    assert abs(pairs.mean().item()) < 4.5 / math.sqrt(33 * len(pairs))
    assert pairs.square().mean().item() == pytest.approx(1 / 33, rel=0.02)


def test_another_seed_makes_other_prototypes_and_other_angles():
    index, angles, prototypes = torch.arange(500), [], []
    for seed in (3, 4):
        source = Identities(500, 33, 40.0, seed)
        own = source.prototypes(index).double()
        cosine = (source.features(index).double() * own).sum(1) / 33**0.5
        angles.append(cosine.clamp(-1, 1).acos().numpy())
        prototypes.append(own)
    assert abs(np.corrcoef(*angles)[0, 1]) < 4.5 / 500**0.5
    cosines = (prototypes[0] * prototypes[1]).sum(1)  # of two independent ones: mean 0, variance 1 / D
    assert abs(float(cosines.mean())) < 4.5 / (33 * 500) ** 0.5 and float(cosines.abs().max()) < 0.9


def test_a_sample_is_the_same_in_any_batch():
    data = make_identities(SOURCE)
    assert isinstance(data.train, FeatureSplit) and len(data.train) == 5000 and len(data.test) == 1000
    together, apart = SOURCE.features(torch.arange(40)), [SOURCE.features(torch.tensor([i])) for i in range(40)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-5, atol=1e-5)
    index = torch.tensor([7, 499, 4000])
    (batch,) = data.train.batches([index])
    torch.testing.assert_close(batch, SOURCE.features(index))
    assert data.train.labels[index].tolist() == [7, 499, 0]
    assert data.test.labels.bincount().tolist() == [2] * 500
    other = Identities(500, 33, 40.0, seed=4).features(torch.arange(40))
    assert not torch.allclose(other, together)


def test_commands_on_images_refuse_them():
    with pytest.raises(Refused, match="has no images"):
        load("synthetic-identities")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet18"], "--arch: resnet18 does not fit"),
        (["--augment", "basic"], "--augment: synthetic-identities has no images"),
        (["--loss", "ce", "--mixup", "0.5"], "--mixup: synthetic-identities has no images"),
        (["--val-fraction", "0.1"], "--val-fraction: synthetic-identities has no images"),
        (["--classes", "1"], "--classes: 1 is out of range"),
        (["--loss", "ce", "--head-parallel"], "--head-parallel: cannot be with --loss ce"),
        (["--loss", "arcface", "--head-parallel", "--compile"], "--head-parallel: cannot be with --compile"),
        (["--loss", "arcface", "--head-sample", "0.5"], "--head-sample: needs the head whose classes lie apart"),
        (["--loss", "arcface", "--head-parallel", "--head-sample", "0"], "--head-sample: 0.0 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(cli, arguments, message):
    code, _, err = cli("train", "--dataset", "synthetic-identities", *arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1
    if "--head" not in message:
        return
    code, _, err = cli("train", *arguments)
    assert code == 2 and message in err


def test_images_do_not_take_their_options(cli):
    assert "--classes: digits has no such option" in cli("train", "--dataset", "digits", "--classes", "5")[2]
    assert "--arch: identity does not fit" in cli("train", "--dataset", "digits", "--arch", "identity")[2]


def test_a_user_trains_and_measures_a_head_of_many_classes(cli):
    """1,500 classes in 2 epochs: held-out accuracy near that of the true prototypes, the same from eval and from any resume."""
    common = (
        "--dataset",
        "synthetic-identities",
        "--classes",
        1500,
        "--dim",
        48,
        "--loss",
        "arcface",
        "--quiet",
        "--json",
    )
    common += ("--device", "cpu", "--precision", "fp32", "--spread", 35)
    code, out, err = cli("train", *common, "--epochs", 2, "--head-parallel", "--out", "a")
    assert code == 0, err
    summary = json.loads(out)
    source = Identities(1500, 48, 35.0, seed=17)
    samples = torch.arange(15_000, 18_000)
    best = (
        ((source.features(samples) @ source.prototypes(torch.arange(1500)).T).argmax(1) == samples % 1500)
        .float()
        .mean()
    )
    assert 0.85 * float(best) < summary["test"]["accuracy"] <= float(best) + 0.02
    assert summary["checkpoint"].endswith("last.safetensors.index.json") and summary["parameters"] == 1500 * 48
    code, out, err = cli("eval", "a", "--json", "--device", "cpu")
    assert code == 0 and json.loads(out)["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-6)
    code, _, err = cli("visualize", "confusion", "a")
    assert code == 2 and "takes features, not images" in err
    # The head of one process, whose gradients are autograd's or the kernels', learns the same.
    code, out, err = cli("train", *common, "--epochs", 2, "--out", "b")
    assert code == 0, err
    assert json.loads(out)["test"]["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-3)


def test_a_sampled_run_resumes_to_the_bit(cli, monkeypatch):
    """Stopped after any epoch and resumed, the same classes are drawn and the same weights come out."""
    common = ("--dataset", "synthetic-identities", "--classes", 1100, "--dim", 8, "--loss", "adaface", "--quiet")
    common += (
        "--device",
        "cpu",
        "--head-parallel",
        "--head-sample",
        0.5,
        "--batch-size",
        200,
        "--schedule",
        "constant",
    )
    assert cli("train", *common, "--epochs", 2, "--out", "whole")[0] == 0
    assert cli("train", *common, "--epochs", 1, "--out", "parts")[0] == 0
    code, _, err = cli("train", "--resume", "--epochs", 2, "--out", "parts", "--quiet")
    assert code == 0, err
    losses = []
    for name in ("whole", "parts"):
        with open(f"{name}/metrics.jsonl") as lines:
            losses.append([json.loads(line)["train_loss"] for line in lines])
    assert len(losses[0]) == 2 and losses[0] == losses[1]
