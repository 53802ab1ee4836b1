"""scripts/study/margins.py: its statistics against scipy and the closure of tests, its plan, its page; a tiny study, stopped."""

import dataclasses
import itertools
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from cifarnet.core.errors import Refused
from cifarnet.data import load
from cifarnet.data.selection import long_tail

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import margins
import margins_plan
import margins_statistics
import study_run
from margins_page import difference, write_page
from margins_plan import (
    ACCURACY,
    CIFAR10,
    METHODS,
    OF_SPEED,
    REGIMES,
    SEEN,
    Item,
    choose,
    config_of,
    items_of,
    source_of,
)
from margins_run import result_path
from margins_statistics import differences, holm, short_verdict, verdict


def results(regime, scores, name="accuracy"):
    """The JSON of runs with these scores, by method a list over the seeds."""
    return {method: {n: {"measures": {name: one}} for n, one in enumerate(values)} for method, values in scores.items()}


def test_holm_is_the_closure_of_bonferronis_tests():
    generator = np.random.default_rng(0)
    for count in (1, 2, 4, 6):
        for _ in range(20):
            p = (generator.random(count) ** 3).round(3).tolist()  # rounded: some are equal
            subsets = [s for n in range(1, count + 1) for s in itertools.combinations(range(count), n)]
            closed = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in subsets if one in s) for one in range(count)]
            assert holm(p) == pytest.approx(closed, abs=1e-12)
    assert holm([]) == []


def test_differences_are_scipys_paired_ones():
    regime = dataclasses.replace(OF_SPEED[0], seeds=5)
    generator = np.random.default_rng(1)
    scores = {method: (0.3 + 0.1 * generator.random(5)).tolist() for method in regime.methods}
    for measure in regime.measures:
        found = differences(regime, measure, results(regime, scores, measure.name))
        assert [one.method for one in found] == [method for method in regime.methods if method != "ce"]
        sign = -1 if measure.name == "eer" else 1
        for one in found:
            theirs = stats.ttest_rel(100 * sign * np.array(scores[one.method]), 100 * sign * np.array(scores["ce"]))
            interval = theirs.confidence_interval(0.95)
            mine = (one.interval.low, one.interval.high, one.p)
            assert mine == pytest.approx((interval.low, interval.high, theirs.pvalue), rel=1e-9)
        assert [one.holm for one in found] == holm([one.p for one in found])


def test_what_is_not_there_yet_has_no_interval():
    """Nor have two seeds, nor differences that are all alike."""
    regime = OF_SPEED[1]
    scores = {"ce": [0.9, 0.8, 0.85], "arcface": [0.91], "cosface": [0.95, 0.87], "adaface": [0.95, 0.85, 0.9]}
    found = {one.method: one for one in differences(regime, ACCURACY, results(regime, scores))}
    assert found["arcface"].values == {0: pytest.approx(1.0)} and found["ce-simplex"].values == {}
    assert found["cosface"].values == {0: pytest.approx(5), 1: pytest.approx(7)}
    assert all(
        (one.interval, one.p, one.holm, one.better, one.sure) == (None, None, None, False, False)
        for one in found.values()
    )
    shown = {method: difference(one) for method, one in found.items()}  # the mean of all seeds that there are
    assert shown == {"cosface": "+6.00, n = 2", "arcface": "+1.00, n = 1", "adaface": "+5.00, n = 3", "ce-simplex": "–"}
    with pytest.raises(ValueError, match="accuracy is not finite"):
        differences(regime, ACCURACY, results(regime, scores | {"arcface": [np.nan]}))


def test_losses_that_are_to_come_count_in_the_correction():
    regime = OF_SPEED[1]
    found = differences(regime, ACCURACY, results(regime, {"ce": [0.9, 0.8, 0.85], "arcface": [0.95, 0.852, 0.898]}))
    tested = [one for one in found if one.p is not None]
    assert [one.method for one in tested] == ["arcface"] and tested[0].holm == pytest.approx(4 * tested[0].p)


def test_a_margin_pays_only_where_it_is_sure():
    regime = OF_SPEED[1]
    plain = {method: [0.9, 0.91, 0.92] for method in regime.methods}
    sure = results(regime, plain | {"arcface": [0.95, 0.9601, 0.9702]})
    assert short_verdict(regime, sure) == "`arcface` (test accuracy)"
    perhaps = results(regime, plain | {"arcface": [0.93, 0.965, 0.97]})
    one = next(one for one in differences(regime, ACCURACY, perhaps) if one.method == "arcface")
    assert one.better and not one.sure and short_verdict(regime, perhaps) == "`arcface` (perhaps test accuracy)"
    assert short_verdict(regime, results(regime, plain)) == "no"


def test_the_verdict_says_whichever_it_is():
    regime = OF_SPEED[1]
    plain = {method: [0.9, 0.91, 0.92] for method in regime.methods}
    nothing = verdict(regime, results(regime, plain | {"arcface": [0.95, 0.80, 0.93]}))
    assert "No margin's interval lies above 0" in nothing and "3 seeds" in nothing and "Worse" not in nothing
    # Simplex prototypes are no margin: that they help does not make one pay.
    simplex = verdict(regime, results(regime, plain | {"ce-simplex": [0.95, 0.961, 0.969]}))
    assert "No margin's interval" in simplex and "Without a margin: `ce-simplex`" in simplex and "(better)" in simplex
    both = verdict(
        regime, results(regime, plain | {"arcface": [0.95, 0.9601, 0.9702], "adaface": [0.88, 0.889, 0.901]})
    )
    assert both.startswith(
        "Better than cross-entropy, with the whole interval above 0: `arcface`, test accuracy, +5.01"
    )
    assert "Worse, with the whole interval below 0: `adaface`" in both and "No margin" not in both


def test_the_plan():
    assert sum(len(items_of(regime)) for regime in REGIMES) == (29 + 19 + 40 + 19) + (29 + 29 + 40 + 29)
    for regime in REGIMES:
        items = items_of(regime)
        runs = [item for item in items if item.seed is not None]
        seeds = [item.seed for item in runs]
        # A seed whole before the next.
        assert seeds == sorted(seeds) and len(runs) == regime.seeds * len(regime.methods)
        for place, item in enumerate(items):
            source = source_of(item)
            if item.seed is not None and source is not None:
                assert items.index(source) < place  # its constants are chosen before it runs
            constants = METHODS[item.method].tries[0] if METHODS[item.method].tries else {}
            config = config_of(item, constants, {}, CIFAR10)
            assert config.val_fraction == (0.1 if item.seed is None else 0.0) and 2 * config.epochs >= regime.epochs
            assert (config.imbalance, config.label_noise) == (
                100.0 if regime.name.startswith("tail") else 1.0, 0.4 if regime.name.startswith("noise") else 0.0
            )  # fmt: skip
            held = config.hold_out_classes.split(",") if regime.draws else []
            assert set(held) == (
                {CIFAR10[n] for n in set(range(10)) - set(SEEN[item.seed or 0])} if regime.draws else set()
            )
            assert item.minutes > 0
        losses = {config_of(item, {}, {}, CIFAR10).to_dict()["seed"] for item in runs if item.seed == 1}
        assert losses == {margins_plan.SEED + 1}  # paired: every loss has the seed
    tail = len(long_tail(torch.arange(50_000) % 10, 10, 100.0, 0))
    assert [one.images for one in REGIMES if one.name.startswith("tail")] == [tail, tail]
    assert [one.name for one in choose(["tail", "unseen", "tail"])] == ["tail", "unseen"]
    with pytest.raises(Refused, match=r"--regime: tial is none; choose from unseen-small, .*, tail, noise"):
        choose(["tial"])


class StopAt(study_run.RunWatcher):
    """Raises SIGINT after so many steps, of whichever run."""

    left = 0

    def step(self, *arguments):
        super().step(*arguments)
        StopAt.left -= 1
        if StopAt.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def script(monkeypatch, capsys):
    digits = load("digits")
    few = dataclasses.replace(digits, train=digits.train.subset(torch.arange(300)))
    monkeypatch.setattr(margins, "load", lambda *_: few)
    for method in ("ce", "arcface"):
        short = dataclasses.replace(METHODS[method], tries=METHODS[method].tries[:2])
        monkeypatch.setitem(METHODS, method, short)
    for name in ("margins_run", "study_run"):
        monkeypatch.setattr(sys.modules[name], "RunWatcher", StopAt)
    # The second is not run.
    monkeypatch.setattr(margins, "REGIMES", [dataclasses.replace(OF_SPEED[0], methods=("ce", "arcface")), OF_SPEED[1]])
    monkeypatch.setattr(margins, "choose", lambda names: [margins.REGIMES[0]])

    def call(*options, stop_after=0):
        StopAt.left = stop_after
        monkeypatch.setattr(sys, "argv", ["margins.py", "--rehearse", *map(str, options)])
        with pytest.raises(SystemExit) as end:
            margins.main()
        return end.value.code, capsys.readouterr().out

    return call


def test_a_tiny_study_stopped_anywhere_goes_on_to_its_page(script, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, out = script("--docs", whole)
    assert code == 0 and "not finished" not in out and "unseen-arcface-1: accuracy" in out
    for steps in (1, 5):  # in a try, in a run
        code, out = script("--docs", broken, stop_after=steps)
        assert code == 130 and f"--regime unseen --docs {broken} --rehearse" in out
        assert "**Not finished**" in (broken / "margins.md").read_text()
    assert script("--docs", broken)[0] == 0
    regime = margins.rehearsal([margins.REGIMES[0]])[0]
    for item in items_of(regime):
        one, two = (json.loads(result_path(docs / "results" / "margins", item).read_text()) for docs in (whole, broken))
        assert {**one, "seconds": 0} == {**two, "seconds": 0} and {
            "cores",
            "processor",
            "data",
            "source_digest",
        } <= one.keys()
    page = (whole / "margins.md").read_text()
    run = json.loads(result_path(whole / "results" / "margins", Item(regime, "ce", 0)).read_text())
    pair = json.loads(result_path(whole / "results" / "margins", Item(regime, "ce", 1)).read_text())
    for name, words in (("tar", "TAR at FAR 0.01"), ("eer", "EER"), ("dir", "DIR at FPIR 0.1")):
        first, second = (100 * one["measures"][name] for one in (run, pair))
        mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
        assert f"{words}, % |" in page and f"| `ce` | {mean:.2f} ± {deviation:.2f} | 2 |" in page
    assert (whole / "margins" / "unseen.png").stat().st_size > 5000 and "(margins/unseen.png)" in page
    assert "0 of 10 runs" in page and "--regime balanced`" in page  # the regime that was not run
    code, out = script("--docs", broken, "--budget", "0")
    assert code == 0 and "the time is up" in out and "not finished" not in out
    path = result_path(whole / "results" / "margins", Item(regime, "arcface", 0))
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"config": found["config"] | {"epochs": 9, "precision": "bf16"}}))
    with pytest.raises(Refused, match=r"unseen-arcface-0\.json: was made with epochs 9 \(now 2\)"):
        script("--docs", whole)
    # The page alone is as strict: other images than cross-entropy's, other measures, other tries.
    for changed, why in (
        ({"data_digest": "0"}, "saw {.*and ce with this seed"),
        ({"protocol": {"far": 0.1}}, "was measured with"),
    ):
        path.write_text(json.dumps(found | changed))
        with pytest.raises(Refused, match=rf"unseen-arcface-0\.json: {why}"):
            script("--docs", whole, "--page")
    path.write_text(json.dumps(found))
    tries = result_path(whole / "results" / "margins", Item(regime, "arcface", None))
    had = json.loads(tries.read_text())
    tries.write_text(json.dumps(had | {"tries": had["tries"][:1]}))
    with pytest.raises(Refused, match=r"unseen-arcface-tries\.json: has the tries"):
        script("--docs", whole, "--page")


def test_the_page_of_no_results(tmp_path):
    text = write_page(tmp_path, REGIMES).read_text()
    assert text.count("**Not finished**: 0 of ") == len(REGIMES) and "![" not in text and "nan" not in text
    assert margins_statistics.p_words(0.0004) == "< 0.001"
