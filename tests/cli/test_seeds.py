"""`train --seeds`: what is typed wrong, the table, the line after Ctrl-C, the exit code where a run fails."""

import json
import math
from pathlib import Path

import pytest

from cifarnet.cli.series import say_series
from cifarnet.core.errors import Interrupted
from cifarnet.engine import fit as engine
from cifarnet.engine.series import SeedRun

LINE = [
    "train",
    "--dataset",
    "digits",
    "--arch",
    "baseline",
    "--epochs",
    "1",
    "--batch-size",
    "512",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]


def test_what_is_typed_wrong_is_one_line(cli, tmp_path):
    for text in ("a,b", "", "0,", "1.5", "-1", "²", "9" * 30, "0;1"):
        code, out, err = cli(*LINE, "--seeds", text)
        assert (code, out) == (2, "") and err.startswith("error: --seeds: '") and err.count("\n") == 1, text
    for more, told in (
        (["--seeds", "1,1"], "error: --seeds: names 1 twice; name each seed once\n"),
        (["--seeds", "1", "--seed", "2"], "error: --seeds: cannot be with --seed; leave one of them out\n"),
        (["--seeds", "1", "--resume", "--overwrite"], "error: --resume: goes on with a run as it is; drop --overwrite\n"),
        (["--seeds", "1", "--resume"], "error: --resume: there is no series of seeds in runs yet; name its folder with --out\n"),
        (["--seeds", "1", "--lr", "-1"], None),
    ):  # fmt: skip
        code, out, err = cli(*LINE, *more)
        assert (code, out) == (2, "") and (err == told or (told is None and "--lr" in err)), err
    assert list(tmp_path.iterdir()) == []


def test_the_table_its_json_and_a_run_that_fails(cli, tmp_path, monkeypatch):
    code, out, err = cli(*LINE, "--seeds", "0,1", "--out", "x", "-q")
    assert code == 0 and "side by side: cifarnet report x-seed*" in out and err == ""
    summaries = [json.loads((tmp_path / f"x-seed{seed}" / "summary.json").read_text()) for seed in (0, 1)]
    one, other = (100 * summary["test"]["accuracy"] for summary in summaries)
    assert f"{(one + other) / 2:.2f}%" in out and f"{abs(one - other) / math.sqrt(2):.2f}" in out

    def broken(config, *rest, **more):
        raise engine.Refused("x-seed2", "another process is training there", "wait")

    monkeypatch.setattr(engine, "fit", broken)
    code, out, err = cli(*LINE, "--seeds", "0,1,2", "--out", "x", "--resume", "--json")
    found = json.loads(out)
    assert code == 1 and found["runs"] == summaries and found["accuracy"]["n"] == 2
    assert [row["seed"] for row in found["failed"]] == [2]
    assert err.splitlines()[-1].startswith("error: --seeds: 1 of 3 runs failed: seed 2;")

    def stopped(config, path, **more):
        raise Interrupted(2, path, 1, 7)

    monkeypatch.setattr(engine, "fit", stopped)
    code, out, err = cli(*LINE, "--seeds", "7,8")
    command = f"cifarnet {' '.join(LINE)} --seeds 7,8 --out runs/baseline-ce-digits-1 --resume"
    assert (code, out) == (130, "") and err.endswith(f"go on with: {command}\n")


def test_the_interval_of_the_mean_accuracy_ends_at_0_and_100_percent(capfd):
    """Of two values t(0.975, 1) = 12.706 (Student's table): mean ± 12.706 · difference / 2, cut off; three near ones are not."""
    for accuracies, said, low, high in (
        ((0.338, 0.2225), "0.00% to 100.00% (Student's t, n = 2)", 0, 1),
        ((0.99, 0.995), "96.07% to 100.00% (Student's t, n = 2)", 0.9925 - 12.7062 * 0.0025, 1),
        ((0.01, 0.02), "0.00% to 7.85% (Student's t, n = 2)", 0, 0.015 + 12.7062 * 0.005),
        ((0.5, 0.51, 0.52), "48.52% to 53.48% (Student's t, n = 3)", 0.51 - 4.30265 * 0.01 / 3**0.5, 0.534841),
    ):
        runs = [
            SeedRun(seed, Path(f"x-seed{seed}"), {"test": {"accuracy": value}}) for seed, value in enumerate(accuracies)
        ]
        say_series(runs, Path("x"), False)
        assert f"accuracy: 95% interval of the mean {said}\n" in capfd.readouterr().out
        say_series(runs, Path("x"), True)
        found = json.loads(capfd.readouterr().out)["accuracy"]
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-6)


def test_seeds_that_are_all_alike_are_said_to_tell_nothing_of_the_spread(capfd):
    runs = [SeedRun(seed, Path(f"x-seed{seed}"), {"test": {"accuracy": 0.8}}) for seed in range(3)]
    say_series(runs, Path("x"), False)
    out = capfd.readouterr().out
    assert "accuracy: the same of all 3 seeds" in out and "interval of the mean" not in out
    say_series(runs, Path("x"), True)
    found = json.loads(capfd.readouterr().out)["accuracy"]
    assert (found["mean"], found["low"], found["high"]) == (pytest.approx(0.8), None, None)


@pytest.mark.parametrize("tta", [True, False, None])
def test_a_series_of_six_views_says_so(capfd, tta):
    summary = {"test": {"accuracy": 0.5}} | ({} if tta is None else {"tta": tta, "views": 6})
    say_series([SeedRun(seed, Path(f"x-seed{seed}"), summary) for seed in (0, 1)], Path("x"), False)
    assert ("six views of each image (--tta)" in capfd.readouterr().out) is bool(tta)
