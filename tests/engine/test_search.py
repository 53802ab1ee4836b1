"""Successive halving against tables by hand; searches that are stopped, gone on with, and never look at the test images."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest

from cifarnet.analysis.significance import wilson_interval
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Interrupted, Refused
from cifarnet.data import load
from cifarnet.engine import validate
from cifarnet.engine.fit import fit
from cifarnet.engine.halving import Outcome, Trial, all_epochs, halve, rungs_of, winner
from cifarnet.engine.loop import Watcher
from cifarnet.engine.search import check_place, goes_on, plan_search
from cifarnet.engine.trials import run_search

BASE = TrainConfig(
    arch="baseline", dataset="digits", epochs=2, subset=200, batch_size=50, val_fraction=0.2, device="cpu", precision="fp32"
)  # fmt: skip


def plan(grid, losses=("arcface",), eta=2, **options):
    config = replace(BASE, **options)
    return plan_search(losses, grid, lambda loss, setting: replace(config, loss=loss, loss_options=setting), eta)


def test_the_rungs_by_hand():
    for settings, epochs, eta, anew, onward in (
        (9, 9, 3, [(9, 1, 1), (3, 3, 3), (1, 9, 9)], [(9, 1, 1), (3, 3, 2), (1, 9, 6)]),
        (9, 28, 3, [(9, 3, 3), (3, 9, 9), (1, 28, 28)], [(9, 3, 3), (3, 9, 6), (1, 28, 19)]),
        (7, 8, 2, [(7, 2, 2), (3, 4, 4), (1, 8, 8)], [(7, 2, 2), (3, 4, 2), (1, 8, 4)]),
        (5, 5, 3, [(5, 1, 1), (1, 5, 5)], [(5, 1, 1), (1, 5, 4)]),
        (2, 4, 3, [(2, 4, 4)], [(2, 4, 4)]),
        (1, 4, 2, [(1, 4, 4)], [(1, 4, 4)]),
    ):
        for go_on, expected in ((False, anew), (True, onward)):
            rungs = rungs_of(settings, epochs, eta, go_on)
            assert [(rung.trials, rung.epochs, rung.trained) for rung in rungs] == expected
            assert all_epochs(rungs) == sum(trials * trained for trials, _, trained in expected)
    with pytest.raises(Refused, match="8 is too few for 3 rungs, each of 3 times"):
        rungs_of(9, 8, 3, False)


def test_the_best_go_on_equal_ones_in_order_and_a_diverged_one_never():
    """Seven settings, eta 2: three go on, then one."""
    table = [
        {0: 0.5, 1: 0.7, 2: None, 3: 0.7, 4: 0.6, 5: 0.7, 6: 0.1},
        {1: 0.80, 3: 0.81, 5: 0.81},
        {3: 0.79},
    ]
    asked, heard = [], []

    def run(setting, rung):
        asked.append((rung, setting))
        value = table[rung][setting]
        return Outcome(value, 100, "" if value else "diverged")

    trials = halve(rungs_of(7, 4, 2, False), run, heard.append)
    assert asked == [(0, number) for number in range(7)] + [(1, 1), (1, 3), (1, 5), (2, 3)]
    assert [trial.setting for trial in trials if trial.promoted] == [1, 3, 5, 3]
    assert len(heard) == len(trials) and winner(trials).outcome.accuracy == 0.79
    lost = halve(rungs_of(2, 2, 2, False), lambda setting, rung: Outcome(None, 0, "diverged"), heard.append)
    assert winner(lost) is None and len(lost) == 2  # none is promoted


def test_settings_that_agree_in_six_digits_have_a_folder_each(tmp_path):
    search = plan({"margin": [0.1, 0.1234567, 0.1234568], "scale": [16.0]})
    assert [search.name("arcface", number) for number in range(3)] == [
        "arcface-margin0.1-scale16",
        "arcface-margin0.1234567-scale16",
        "arcface-margin0.1234568-scale16",
    ]


def test_the_last_rung_decides_between_the_losses_however_good_an_early_one_was():
    search = plan({"margin": [0.1, 0.4]}, ("arcface", "cosface"))
    early = [Trial(0, 0, Outcome(0.95, 100), True), Trial(1, 0, Outcome(None, 0, "diverged"))]
    search.trials["cosface"] = [*early, Trial(0, 1, Outcome(None, 0, "diverged"))]
    search.trials["arcface"] = [Trial(0, 0, Outcome(0.70, 100)), Trial(1, 0, Outcome(0.75, 100), True)]
    assert search.best() == ("cosface", early[0])  # no loss has ended the last rung
    search.trials["arcface"].append(Trial(1, 1, Outcome(0.80, 100)))
    assert search.best() == ("arcface", search.trials["arcface"][-1])


def test_wilsons_interval_by_its_formula():
    z = 1.959963984540054
    for hits, count in ((0, 10), (7, 10), (10, 10), (4321, 5000)):
        part = hits / count
        center = (part + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * math.sqrt(part * (1 - part) / count + z * z / (4 * count**2))
        assert wilson_interval(hits, count) == pytest.approx((center - half, center + half), abs=1e-9)


def test_a_search_that_is_stopped_gives_the_same_table_and_sees_no_test_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, seen, evaluate_on = load("digits"), set(), validate.evaluate_on
    monkeypatch.setattr(
        validate, "evaluate_on", lambda run, name, *more: seen.add(name) or evaluate_on(run, name, *more)
    )

    class Stop(Watcher):
        def step(self, run):
            if run.progress.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    for schedule, before, folders, epochs in (("constant", 2, 2, 3), ("cosine", 1, 3, 4)):
        search = plan({"margin": [0.1, 0.4]}, schedule=schedule)
        done = run_search(search, tmp_path / schedule, dataset=data)
        assert (done.goes_on, done.epochs) == (schedule == "constant", epochs)
        trials = json.loads((tmp_path / schedule / "tune.json").read_text())["trials"]
        runs = [path.parent for path in (tmp_path / schedule).glob("*/summary.json")]
        assert [trial["epochs"] for trial in trials] == [1, 1, 2] and len(runs) == folders
        texts = [(run / name).read_text() for run in runs for name in ("summary.json", "metrics.jsonl")]
        assert not any('"test' in text for text in texts)

        ended, cut = [], tmp_path / f"{schedule}-cut"
        again = plan({"margin": [0.1, 0.4]}, schedule=schedule)
        stop = lambda name, rung: Stop() if len(ended) == before else Watcher()  # noqa: B023, E731
        with pytest.raises(Interrupted):
            run_search(again, cut, dataset=data, watcher_of=stop, heed=lambda loss, trial: ended.append(trial))  # noqa: B023
        assert len(json.loads((cut / "tune.json").read_text())["trials"]) == len(ended) == before
        run_search(again, cut, dataset=data)
        assert (cut / "tune.json").read_bytes() == (tmp_path / schedule / "tune.json").read_bytes()
        if schedule == "constant":  # a trial that goes on is the run of as many epochs
            best = done.best()[1]
            fit(replace(done.configs["arcface"][best.setting], epochs=2), "alone", dataset=data, trial=True)
            last = json.loads((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()[-1])
            assert last["val_accuracy"] == best.outcome.accuracy
    assert seen == {"validation"} and not (tmp_path / "runs").exists()  # nor is a trial the latest run
    with pytest.raises(Refused, match="already holds a search"):
        check_place(again, cut, resume=False)
    kept = json.loads((cut / "tune.json").read_text())
    options = kept["plan"]["options"]
    # A resume of a run may change the epochs; the rungs have them.
    assert options["rest_lr"] == 1.0 and "epochs" not in options
    # Of a version without that option, which kept those too that may change.
    before = {name: value for name, value in options.items() if name != "rest_lr"} | {"epochs": 2, "cuda_graph": False}
    (cut / "tune.json").write_text(json.dumps(kept | {"plan": kept["plan"] | {"options": before}}))
    check_place(again, cut, resume=True)
    later = options | {"of_a_later_version": 1}
    (cut / "tune.json").write_text(json.dumps(kept | {"plan": kept["plan"] | {"options": later}}))
    with pytest.raises(Refused, match=r"tune.json: was written by a later cifarnet with the option 'of_a_later"):
        check_place(again, cut, resume=True)
    (cut / "tune.json").write_text(json.dumps(kept))
    with pytest.raises(Refused, match="begun otherwise: `schedule` cosine -> linear"):
        check_place(plan({"margin": [0.1, 0.4]}, schedule="linear"), cut, resume=True)


def test_what_cannot_be_searched_is_refused(tmp_path):
    for grid, options, why in (
        ({}, {}, "has one setting"),
        ({"margin": [0.1, 0.1]}, {}, "names 0.1 twice"),
        ({"margin": [0.1, "x"]}, {}, "margin"),
        ({"margin": [0.1, 0.2]}, {"losses": ("ce",)}, "ce has no such constant"),
        ({"margin": [0.1, 0.2]}, {"val_fraction": 0.0}, "held-out training images"),
        ({"margin": [0.1, 0.2]}, {"epochs": 1}, "1 is too few for 2 rungs"),
    ):
        with pytest.raises(Refused, match=why):
            plan(grid, **options)
    assert goes_on(replace(BASE, schedule="constant", loss="arcface"))
    others = ({"swa": 0.5}, {"progressive": 16}, {"loss": "ldam"}, {"schedule": "linear"})
    assert not any(goes_on(replace(BASE, **{"schedule": "constant", **other})) for other in others)
    with pytest.raises(Refused, match="no search to go on with"):
        check_place(plan({"margin": [0.1, 0.2]}), tmp_path / "none", resume=True)
    with pytest.raises(Refused, match="held-out images"):
        fit(replace(BASE, val_fraction=0.0), tmp_path / "none", trial=True)


def test_where_all_diverge_the_search_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search = plan({"margin": [0.1, 0.4]}, optimizer="sgd", lr=1e6, schedule="constant")
    with pytest.raises(Failed, match="every setting diverged"):
        run_search(search, tmp_path / "x")
    with pytest.raises(Failed, match="every setting diverged"):  # read from the folders
        run_search(search, tmp_path / "x", watcher_of=lambda name, rung: pytest.fail("trained again"))
