"""What --dry-run foretells: the time of epochs whose images grow, and the size of the files."""

from types import SimpleNamespace

import pytest

from cifarnet import TrainConfig, fit
from cifarnet.core import freed_memory
from cifarnet.data import load
from cifarnet.data.registry import load_options
from cifarnet.engine import rehearsal
from cifarnet.engine.loop import Watcher
from cifarnet.engine.rehearsal import mean_step, rehearse
from cifarnet.engine.train_state import TrainState

DIGITS = {"arch": "baseline", "dataset": "digits", "batch_size": 256}


def test_images_that_grow_cost_what_their_area_does(monkeypatch):
    """Steps of a + b side^2 seconds: the mean over the epochs is that of all of them, one after the other."""
    sides = [16, 24, 40, 56, 64, 64]  # of 64 pixels in six epochs
    costs = [0.2 + side**2 / 1000 for side in sides]
    monkeypatch.setattr(rehearsal, "timed_step", lambda run, epoch: costs[epoch])
    config = TrainConfig(epochs=6, progressive=16, image_size=64)
    assert mean_step(SimpleNamespace(config=config)) == pytest.approx(sum(costs) / 6)
    whole = TrainConfig(epochs=6, image_size=64)
    assert mean_step(SimpleNamespace(config=whole)) == costs[0]


def test_a_step_is_timed_with_the_images_of_its_epoch(monkeypatch):
    seen, step = [], rehearsal.train_step

    def noted(run, images, labels):
        step(run, images, labels)
        seen.append(run.progress.epoch)

    monkeypatch.setattr(rehearsal, "train_step", noted)
    monkeypatch.setattr(rehearsal, "STEPS", 1)
    config = TrainConfig(**{**DIGITS, "arch": "resnet18"}, epochs=3, progressive=16)
    found = rehearse(config, lambda: load("digits"))
    assert set(seen) == {0, 2} and found.run.progress.epoch == 0


def test_work_is_weighed_by_the_area_of_the_images():
    """Six epochs of ten steps at 16, 24, 40, 56, 64 and 64 pixels of 64; three steps into the third."""
    run = SimpleNamespace(config=TrainConfig(epochs=6, progressive=16, image_size=64), steps=10)
    run.progress = SimpleNamespace(epoch=2, step=3)
    areas = [(side / 64) ** 2 for side in (16, 24, 40, 56, 64, 64)]
    assert TrainState.work.fget(run) == pytest.approx((10 * sum(areas[:2]) + 3 * areas[2], 10 * sum(areas)))
    run.progress.epoch, run.progress.step = 6, 0
    assert TrainState.work.fget(run) == pytest.approx([10 * sum(areas)] * 2)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"arch": "baseline", "dataset": "digits"}, True),
        # A head alone: its few large tensors would leave holes of their size.
        (
            {
                "arch": "identity",
                "dataset": "synthetic-identities",
                "classes": 20,
                "loss": "arcface",
                "augment": "none",
            },
            False,
        ),
    ],
)
def test_freed_memory_is_kept_while_steps_are_made_and_no_longer(tmp_path, monkeypatch, more, kept):
    calls = []
    for name in ("keep_freed_memory", "give_freed_memory_back"):
        monkeypatch.setattr(freed_memory, name, lambda name=name: calls.append(name))

    class Noted(Watcher):
        def epoch(self, run, record):
            calls.append("epoch")

    expected = ["keep_freed_memory", "epoch", "give_freed_memory_back"]
    config = TrainConfig(**more, epochs=1)
    fit(config, tmp_path / "run", watcher=Noted())
    assert calls == [name for name in expected if kept or name == "epoch"]
    calls.clear()
    monkeypatch.setattr(rehearsal, "STEPS", 1)
    rehearse(config, lambda: load(config.dataset, None, **load_options(config)))
    assert calls == [name for name in expected if kept and name != "epoch"]


@pytest.mark.parametrize("more", [{}, {"val_fraction": 0.2}, {"ema": 0.9}, {"val_fraction": 0.2, "ema": 0.9}])
def test_the_size_is_that_of_the_files(tmp_path, monkeypatch, more):
    monkeypatch.setattr(rehearsal, "STEPS", 1)
    config = TrainConfig(**DIGITS, epochs=1, **more)
    told = rehearse(config, lambda: load("digits"), tmp_path / "run").size
    written = sum(path.stat().st_size for path in fit(config, tmp_path / "run").glob("*.safetensors"))
    assert told == pytest.approx(written, rel=0.02)
