"""Losses that keep more than a number: class counts, draws, a scale, sums over an epoch, a bias; through the trainer."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher
from cifarnet.engine.optim import build_optimizer
from cifarnet.engine.setup import build_run
from cifarnet.models.classifier import build_model

DIGITS = load("digits")
BASE = TrainConfig(
    arch="baseline", dataset="digits", epochs=2, batch_size=256, augment="none", lr=3e-3, precision="fp32", device="cpu"
)


class StopAt(Watcher):
    """Asks for an end after the given step, counted over the whole run."""

    def __init__(self, step):
        self.left, self.stop = step, StopRequest()

    def step(self, run):
        self.left -= 1
        if self.left == 0:
            self.stop.number = 15


FEW = dataclasses.replace(
    DIGITS, train=DIGITS.train.subset(torch.arange(160)), test=DIGITS.test.subset(torch.arange(20))
)


def test_resume_is_bitwise(tmp_path):
    """Stopped in the second epoch (3 steps each), whose margins follow from the sums of the first."""
    config = dataclasses.replace(BASE, loss="kappaface", ema=0.9, batch_size=64)
    whole, broken, watcher = tmp_path / "whole", tmp_path / "broken", StopAt(4)
    fit(config, whole, dataset=FEW)
    with pytest.raises(Interrupted):
        fit(config, broken, dataset=FEW, watcher=watcher, stop=watcher.stop)
    fit(config, broken, dataset=FEW, resume=True)
    for name in ("last.safetensors", "state.safetensors"):
        one, two = load_file(whole / name), load_file(broken / name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    assert one["model.head.psi"].std() > 0 and one["model.head.sums"][:, -1].sum() == len(FEW.train)


def test_the_head_knows_the_training_sets_classes():
    for loss in ("ldam", "vs", "la"):
        head = build_run(dataclasses.replace(BASE, loss=loss, val_fraction=0.3), DIGITS).model.head
        assert head.counts.sum() < 0.75 * len(DIGITS.train) and head.counts.min() > 50
        head = build_run(dataclasses.replace(BASE, loss=loss), DIGITS).model.head
        assert torch.equal(head.counts, torch.bincount(DIGITS.train.labels))


def test_a_bias_has_no_weight_decay():
    for optimizer in ("adamw", "sgd", "muon"):
        config = dataclasses.replace(BASE, loss="uniface", optimizer=optimizer, weight_decay=0.1)
        model = build_model(config, 10)
        built = build_optimizer(model, config)
        free = [group for group in built.param_groups if group["weight_decay"] == 0]
        assert [parameter is model.head.bias for group in free for parameter in group["params"]] == [True]
        held = sum(len(group["params"]) for group in built.param_groups)
        assert held == len(list(model.parameters()))


def test_simplex_prototypes_stay_and_their_embedding_learns(tmp_path):
    config = dataclasses.replace(BASE, loss="arcface", prototypes="simplex", epochs=1)
    before = build_run(config, FEW).model.state_dict()
    after = load_file(fit(config, tmp_path / "run", dataset=FEW) / "last.safetensors")
    assert torch.equal(before["head.weight"], after["head.weight"])
    assert after["head.weight"].shape == (10, 9) and not torch.equal(before["neck.1.weight"], after["neck.1.weight"])
