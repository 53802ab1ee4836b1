"""Progressive resizing: its schedule, its images against torchvision's, and training on them."""

import dataclasses
import signal

import pytest
import torch
import torchvision.transforms.functional as tvf

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.augment.progressive import shrink, side_at
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.setup import build_run
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_files import read_metrics


def test_the_sides_grow_over_two_thirds():
    assert [side_at(epoch, 12, 16, 32) for epoch in range(12)] == [16] * 4 + [24] * 4 + [32] * 4
    assert [side_at(epoch, 2, 16, 32) for epoch in range(2)] == [16, 32]
    assert side_at(0, 1, 16, 32) == side_at(0, 9, 0, 32) == side_at(0, 9, 32, 32) == 32
    for epochs in (2, 5, 60):
        sides = [side_at(epoch, epochs, 18, 45) for epoch in range(epochs)]
        assert sides == sorted(sides) and sides[0] == 18 and sides[-1] == 45


@pytest.mark.parametrize("side", [16, 20, 32])
def test_small_images_are_torchvisions(side):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shrink(images, side), tvf.resize(images, [side, side], antialias=True))


def test_training_sees_small_images_first_and_resumes_among_them(tmp_path):
    digits = load("digits")
    few = {"train": digits.train.subset(torch.arange(24)), "test": digits.test.subset(torch.arange(10))}
    digits = dataclasses.replace(digits, **few)
    config = TrainConfig(
        arch="speednet", dataset="digits", epochs=3, batch_size=8, augment="basic", precision="fp32", progressive=16
    )
    seen: list[int] = []

    class StopAt(Watcher):
        def __init__(self, steps):
            self.left = steps

        def step(self, *_):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)

    def start(name, watcher, resume=False):
        session = build_run(config, digits)
        session.model.backbone.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].shape[-1]) if module.training else None
        )
        with open_run(tmp_path / name, resume=resume, overwrite=False) as run, StopRequest() as stop:
            if resume:
                session.load(run.state)
            train(session, run, watcher, stop)
            records, _ = read_metrics(run.metrics)
        return session.model.state_dict(), [record["train_loss"] for record in records]

    whole, losses = start("whole", Watcher())
    assert seen == [16] * 3 + [24] * 3 + [32] * 3
    with pytest.raises(Interrupted):
        start("broken", StopAt(5))
    resumed, again = start("broken", Watcher(), resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole) and losses[-1] == again[-1]


@pytest.mark.parametrize(("arch", "side"), [("resnet18", 8), ("resnet18", 33), ("baseline", 16)])
def test_what_cannot_be_is_refused(arch, side):
    with pytest.raises(Refused, match=r"^progressive: "):
        build_run(TrainConfig(arch=arch, dataset="digits", progressive=side), load("digits"))
