"""--deterministic: equal bits on one machine, and an operator that cannot promise them is refused."""

import dataclasses
import os

import pytest
import torch
from safetensors.torch import load_file

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed
from cifarnet.core.signals import StopRequest
from cifarnet.core.torch_settings import determinism
from cifarnet.data import load
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.setup import build_run
from cifarnet.storage.open_run import open_run

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


class Witness(Watcher):
    """Notes at each step whether torch is bound to deterministic algorithms."""

    def __init__(self):
        self.seen = set()

    def step(self, *_):
        self.seen.add(torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_equal_bit_for_bit(tmp_path, device):
    digits = load("digits")
    few = {"train": digits.train.subset(torch.arange(64)), "test": digits.test.subset(torch.arange(10))}
    digits = dataclasses.replace(digits, **few)
    config = TrainConfig(
        arch="resnet18", loss="curricularface", dataset="digits", epochs=1, batch_size=32, augment="autoaugment",
        precision="bf16", device=device, deterministic=True, ema=0.9,
    )  # fmt: skip
    weights = []
    for name in "ab":
        torch.rand(3)
        session = build_run(config, digits)
        witness = Witness()
        with open_run(tmp_path / name, resume=False, overwrite=False) as run, StopRequest() as stop:
            train(session, run, witness, stop)
        assert witness.seen == {True} and not torch.are_deterministic_algorithms_enabled()
        weights.append(load_file(tmp_path / name / "state.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_operator_without_a_deterministic_form_is_refused():
    pooled, indices = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    torch.nn.functional.max_unpool2d(pooled, indices, 2)
    with (
        pytest.raises(Failed, match=r"deterministic: max_unpooling2d_forward_out has no .*; leave it out"),
        determinism(True),
    ):
        torch.nn.functional.max_unpool2d(pooled, indices, 2)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="something else"), determinism(True):
        raise RuntimeError("something else")


def test_it_is_off_unless_asked_for_and_part_of_the_run(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism(False):
        assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with determinism(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.backends.cudnn.deterministic
    item = {field.name: field for field in dataclasses.fields(TrainConfig)}["deterministic"]
    assert item.default is False and not item.metadata["resume"]
