"""Several seeds of one configuration: stopped and resumed it gives the same runs; one that fails costs no other."""

import gc
import json
import math
import os
import signal
import weakref
from dataclasses import replace

import pytest

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Diverged, Failed, Interrupted, Refused
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher
from cifarnet.engine.series import fit_seeds
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import newest_series, next_name, read_facts

CONFIG = TrainConfig(
    arch="baseline", dataset="digits", epochs=1, subset=200, batch_size=50, device="cpu", precision="fp32"
)
SEEDS = [3, 0, 5]


class At(Watcher):
    """Does something once, after the second step."""

    def __init__(self, what):
        self.what = what

    def step(self, run):
        if run.progress.step == 2:
            self.what(run)


def table(runs):
    """What the runs came to, without times and places."""
    return [(one.seed, one.summary["test"], one.summary["seed"]) for one in runs]


def test_a_series_that_is_stopped_and_resumed_gives_the_same_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = fit_seeds(CONFIG, SEEDS)
    names = [f"baseline-ce-digits-1-seed{seed}" for seed in SEEDS]
    assert [one.path.name for one in whole] == names and newest_series().name == "baseline-ce-digits-1"
    assert next_name(CONFIG).name == "baseline-ce-digits-2"  # a series takes one number
    assert table(whole)[1][1] != table(whole)[0][1]
    alone = fit(replace(CONFIG, seed=5), "alone")
    assert json.loads((alone / "summary.json").read_text())["test"] == whole[2].summary["test"]

    ended = []
    stop = At(lambda run: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        fit_seeds(CONFIG, SEEDS, "cut", watcher_of=lambda seed: stop if seed == 0 else Watcher(), heed=ended.append)
    assert [one.seed for one in ended] == [3] and not (tmp_path / "cut-seed5").exists()
    begun = (tmp_path / "cut-seed3" / "state.safetensors").stat().st_mtime_ns
    again = fit_seeds(CONFIG, SEEDS, "cut", resume=True)
    assert table(again) == table(whole) and [one.before for one in again] == [True, False, False]
    assert (tmp_path / "cut-seed3" / "state.safetensors").stat().st_mtime_ns == begun
    (tmp_path / "cut-seed3" / "state.safetensors").unlink()  # to save room: a model that is there is not trained over
    assert [one.before for one in fit_seeds(CONFIG, SEEDS, "cut", resume=True)] == [True, True, True]
    (tmp_path / "cut-seed3" / "summary.json").unlink()
    with pytest.raises(Refused, match="has weights but no training state to resume"):
        fit_seeds(CONFIG, SEEDS, "cut", resume=True)
    with pytest.raises(Refused, match=r"started otherwise: `lr` 0\.001 -> 0\.1"):
        fit_seeds(replace(CONFIG, lr=0.1), SEEDS, "cut", resume=True)
    with pytest.raises(Refused, match="already holds a run"):
        fit_seeds(CONFIG, [7, 0], "cut")
    assert not (tmp_path / "cut-seed7").exists()  # refused before the first is begun


def test_one_that_diverges_is_named_and_the_others_are_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def poison(run):
        next(run.model.parameters()).data.fill_(math.nan)

    heard = []
    quiet = Watcher()
    runs = fit_seeds(CONFIG, [0, 1], "x", watcher_of=lambda seed: quiet if seed else At(poison), heed=heard.append)
    assert isinstance(runs[0].error, Diverged) and runs[0].summary is None
    assert runs[1].error is None and runs[1].summary["seed"] == 1 and heard == runs
    assert fit_seeds(CONFIG, [0, 1], "x", resume=True)[0].error is None  # the state before it is whole


def test_a_run_that_failed_leaves_nothing_of_its_training_in_memory(tmp_path):
    """An exception holds the frames that it passed, and these the model, the optimizer and all images."""
    models = []

    class Failing(Watcher):
        def step(self, run):
            models.append(weakref.ref(run.model))
            try:
                raise OSError("no space left")
            except OSError:  # of two causes one has frames, and one has none
                raise Failed("disk", "is full", "make room") from ValueError("nowhere raised")

    ended = fit_seeds(CONFIG, [0, 1], tmp_path / "run", watcher_of=lambda seed: Failing())
    gc.collect()
    assert [str(one.error) for one in ended] == ["disk: is full; make room"] * 2
    assert len(models) == 2 and [model() for model in models] == [None, None]


def test_what_is_no_series_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seeds, out, why in (
        ([], "x", "names no seed"), ([1, 1], "x", "names 1 twice"), ([-1], "x", "-1 is out of range"),
        ([1], ".", "has no name"), ([1], "..", "has no name"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=why):
            fit_seeds(CONFIG, seeds, out)
    ranks = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match="one run after the other in one process"):
        fit_seeds(CONFIG, [0, 1], "x")
    assert list(tmp_path.iterdir()) == []


def test_a_longer_run_that_dies_before_its_summary_is_not_finished(tmp_path, monkeypatch):
    """The summary that is there is of the shorter run: neither the list nor the series takes its score for the longer one's."""
    monkeypatch.chdir(tmp_path)
    (short,) = fit_seeds(CONFIG, [0], "runs/x")
    longer = replace(CONFIG, epochs=2)

    class Killed(BaseException):
        pass

    class Dies(Watcher):
        def epoch(self, run, record):
            if record["epoch"] == 2:
                raise Killed

    with pytest.raises(Killed):
        fit_seeds(longer, [0], "runs/x", resume=True, watcher_of=lambda seed: Dies())
    facts = read_facts(short.path)
    assert (facts.state, facts.epochs_done) == ("stopped", 2)
    (ended,) = fit_seeds(longer, [0], "runs/x", resume=True)
    fit_seeds(CONFIG, [0], "runs/unbroken")
    (unbroken,) = fit_seeds(longer, [0], "runs/unbroken", resume=True)
    assert not ended.before and ended.summary["epochs"] == 2 and ended.summary["test"] == unbroken.summary["test"]
    assert read_facts(short.path).state == "finished"


def test_the_series_that_goes_on_is_the_one_whose_training_state_is_the_youngest(tmp_path):
    for name, when in (("a-1-seed1", 1000), ("b-1-seed1", 3000), ("b-1-seed2", 2500), ("c-1-seed1", 2000)):
        run = RunFolder(tmp_path / "runs" / name)
        run.path.mkdir(parents=True)
        (run.path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
        run.state.touch()
        os.utime(run.state, (when, when))
    assert newest_series().name == "b-1"
