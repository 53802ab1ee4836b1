"""scripts/study/time_to_accuracy.py on digits: its warm-up leaves no trace in the training that it times."""

import json
import sys
from pathlib import Path

import pytest

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.setup import build_run
from cifarnet.storage.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import time_to_accuracy

# One epoch with momentum, averaged weights and a head with a state: whatever the warm-up left would show.
TINY = TrainConfig(
    arch="baseline", loss="adaface", loss_options={"scale": "auto", "margin": "auto"}, dataset="digits", epochs=1, batch_size=64,
    augment="none", optimizer="sgd", lr=0.05, schedule="constant", ema=0.9, precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_the_warmed_up_run_is_the_run_without(digits, tmp_path):
    session = build_run(TINY, digits)
    plain = train(session, RunFolder(tmp_path), Watcher(), StopRequest())
    warmed = time_to_accuracy.train_once(TINY, digits, StopRequest())
    assert warmed["loss"] == plain["test"]["loss"] and warmed["accuracy"] == plain["test"]["accuracy"]
    assert warmed["warm_up"] > 0 and warmed["seconds"] > 0


def test_each_seed_has_its_row_and_the_means_are_theirs(digits, capsys):
    result = time_to_accuracy.measure("tiny", TINY, digits, 2, StopRequest())
    first, second = result["runs"]
    assert (first["seed"], second["seed"]) == (TINY.seed, TINY.seed + 1) and first["loss"] != second["loss"]
    assert result["accuracy"] == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)
    assert f"{100 * result['accuracy']:.2f}% in" in capsys.readouterr().out
    assert TrainConfig.from_dict(json.loads(json.dumps(result))["config"]) == TINY


def test_the_runs_are_recipes_that_can_be_trained():
    for name, values in time_to_accuracy.RUNS.items():
        config = TrainConfig.from_dict(values)
        check_options(config)
        assert config.loss == "ce" and config.val_fraction == 0, name
    assert time_to_accuracy.RUNS["speed"]["compile"]


def test_a_signal_ends_it(digits):
    stop = StopRequest()
    stop.number = 15
    with pytest.raises(Interrupted):
        time_to_accuracy.train_once(TINY, digits, stop)
