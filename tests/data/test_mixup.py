"""Mixup and CutMix against torchvision's, given the same draw."""

import dataclasses
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import load
from cifarnet.data.augment.mixup import Mix, cut_box, draw_mix, mix_images
from cifarnet.engine.setup import build_run
from cifarnet.engine.step import mix

IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_is_torchvisions(share):
    theirs = v2.MixUp(num_classes=5).transform(IMAGES, {"lam": share, "labels": LABELS, "batch_size": 5})
    torch.testing.assert_close(mix_images(IMAGES, Mix(share)), theirs)


@pytest.mark.parametrize(("share", "x", "y"), [(0.5, 16, 16), (0.2, 0, 31), (1.0, 5, 5), (0.0, 16, 3)])
def test_cutmix_is_torchvisions(share, x, y, monkeypatch):
    cutmix = v2.CutMix(num_classes=5)
    draws = iter([torch.tensor([x]), torch.tensor([y])])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(draws))
    monkeypatch.setattr(cutmix._dist, "sample", lambda *_: torch.tensor(share, dtype=torch.float64))
    params = cutmix.make_params([IMAGES])
    theirs = cutmix.transform(IMAGES, {**params, "labels": LABELS, "batch_size": 5})
    ours = cut_box(share, x, y, 32)
    assert ours.share == pytest.approx(params["lam_adjusted"])
    assert torch.equal(mix_images(IMAGES, ours), theirs)


def test_the_share_follows_its_beta_distribution():
    shares = [draw_mix(0.4, 0.0, 32, 1, step).share for step in range(2000)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    kinds = [draw_mix(1.0, 1.0, 32, 1, step).box is None for step in range(2000)]
    assert np.mean(kinds) == pytest.approx(0.5, abs=0.05)
    assert draw_mix(1.0, 1.0, 32, 1, 7) == draw_mix(1.0, 1.0, 32, 1, 7)


def test_cutmix_draws_its_share_from_its_own_beta_and_its_centre_anywhere(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "cifarnet.data.augment.mixup.cut_box", lambda *given: drawn.append(given) or Mix(1.0, (0, 0, 0, 0))
    )
    for step in range(4000):
        draw_mix(5.0, 0.4, 32, 1, step)
    share, x, y, size = map(np.array, zip(*drawn, strict=True))
    assert len(drawn) == pytest.approx(2000, abs=150) and set(size) == {32}
    assert stats.kstest(share, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    for place in (x, y):
        assert stats.chisquare(np.bincount(place, minlength=32)).pvalue > 1e-3
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0)])
def test_another_seed_mixes_in_another_way(mixup, cutmix):
    one, other = ([draw_mix(mixup, cutmix, 32, seed, step).share for step in range(20)] for seed in (1, 2))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 5


def test_the_loss_is_that_of_soft_labels():
    """With the share s, the loss is cross-entropy against s onehot(y) + (1-s) onehot(neighbour's y)."""
    config = TrainConfig(arch="baseline", dataset="digits", mixup=1.0, precision="fp32", augment="none", batch_size=64)
    session = build_run(config, load("digits"))
    images, labels = next(iter(session.train.epoch(0)))
    mixed, labels, mixture = mix(session, images, labels, 3)
    loss, _ = session.forward(mixed, labels, mixture)
    share = mixture[1]
    onehot = torch.nn.functional.one_hot(labels, 10).float()
    soft = share * onehot + (1 - share) * onehot.roll(1, 0)
    expected = torch.nn.functional.cross_entropy(session.model(mixed), soft)
    torch.testing.assert_close(loss, expected)


def test_a_margin_needs_one_label():
    config = dataclasses.replace(TrainConfig(arch="baseline", dataset="digits"), cutmix=1.0, loss="arcface")
    with pytest.raises(Refused, match="one label"):
        build_run(config, load("digits"))


def test_the_share_is_filled_in_on_the_device():
    """Not sent there from the CPU, by way of pinned memory of its own, in each step. The meta device stands in for a GPU."""
    config = TrainConfig(mixup=1.0, dataset="digits")
    session = SimpleNamespace(config=config, device=torch.device("meta"), train=SimpleNamespace(neighbour=False))
    with mock.patch.object(torch, "tensor", side_effect=AssertionError("made on the CPU")):
        _, _, (others, share) = mix(session, IMAGES.to("meta"), LABELS.to("meta"), 3)
    assert (share.device.type, share.dtype, share.shape) == ("meta", torch.float32, ()) and others.shape == (5,)
    here = SimpleNamespace(config=config, device=torch.device("cpu"), train=session.train)
    drawn = draw_mix(1.0, 0, config.image_size, config.seed, 3)
    assert mix(here, IMAGES, LABELS, 3)[2][1].equal(torch.tensor(drawn.share))
