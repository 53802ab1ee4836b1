"""`cifarnet tune`: what is typed wrong, what is said before it begins, the table, the command that trains what was chosen."""

import json
import shlex
from types import SimpleNamespace

import pytest

from cifarnet.cli.tune_tables import full_command, interval, notes
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted
from cifarnet.engine import fit as engine
from cifarnet.engine.halving import Outcome, Rung, Trial
from cifarnet.engine.search import Search

LINE = [
    "tune",
    "--dataset",
    "digits",
    "--arch",
    "baseline",
    "--subset",
    "200",
    "--batch-size",
    "100",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]
TWO = ["--loss", "arcface", "--loss", "cosface", "--margin", "0.1,0.3", "--eta", "2", "--epochs", "2"]


def test_what_is_typed_wrong_is_one_line(cli, tmp_path):
    for words, told in (
        ("--loss ce --margin 0.1,0.2", "error: --margin: ce has no such constant; "),
        ("--loss adaface --scale x", "error: --scale: 'x' is not "),
        ("--loss adaface --scale 16,,32", "error: --scale: '16,,32' has an empty value; "),
        ("--loss adaface --scale 16,16", "error: --scale: names 16.0 twice; "),
        ("--loss adaface --loss adaface --scale 16,32", "error: --loss: names adaface twice; "),
        ("--loss adaface --margin 0.1", "error: tune: has one setting, and nothing to choose from; "),
        ("--loss adaface --margin 0.1,0.2 --eta 5", "error: --eta: must be "),
        ("--loss adaface --margin 0.1,0.2 --eta 2 --epochs 1", "error: --epochs: 1 is too few for 2 rungs"),
        ("--loss adaface --margin 0.1,0.2 --val-fraction 0", "error: --val-fraction: is 0: "),
        ("--loss adaface --margin 0.1,0.2 --resume", "error: --resume: there is no search in searches yet; "),
        ("--loss adaface --margin 0.1,0.2 --seeds 1,2", "error: --seeds: is an option of cifarnet train, not of "),
        ("--loss adaface --loss-option h", "error: --loss-option: 'h' is not NAME=VALUE; "),
        ("--loss adaface --loss-option k=1,2", "error: --loss-option k: no loss has such a constant; "),
    ):
        code, out, err = cli(*LINE, *words.split())
        assert (code, out) == (2, "") and err.startswith(told) and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_from_the_plan_to_the_command(cli, tmp_path, monkeypatch):
    code, out, err = cli(*LINE, *TWO, "--dry-run")
    assert (code, err) == (0, "") and list(tmp_path.iterdir()) == []
    assert "2 trials of 1 epoch, 1 trial of 2 epochs; the best 1/2 of a rung go on" in out and "starts again" in out
    assert "4 epochs for each loss, 8 in all" in out and "search   searches/baseline-digits-1\n" in out

    fit, number = engine.fit, iter((1, 2, 3))

    def stopped(*given, **named):
        if next(number) == 3:
            raise Interrupted(2, tmp_path, 1, 1)
        return fit(*given, **named)

    monkeypatch.setattr(engine, "fit", stopped)
    code, out, err = cli(*LINE, *TWO)
    resume = [*LINE, *TWO, "--out", "searches/baseline-digits-1", "--resume"]
    assert (code, out) == (130, "") and err.endswith(f"go on with: cifarnet {' '.join(resume)}\n")

    monkeypatch.setattr(engine, "fit", fit)
    code, out, err = cli(*resume)
    assert code == 0 and err.count("% of the held-out images") == 6 and out.count("chosen") >= 1
    rows = json.loads((tmp_path / "searches/baseline-digits-1/tune.json").read_text())["trials"]
    assert [out.count(f"{100 * row['accuracy']:.2f}%") > 0 for row in rows] == [True] * 6
    code, again, _ = cli(*LINE, *TWO, "--resume", "--json", "-q")
    found = json.loads(again)
    assert code == 0 and found["trials"] == rows and out.endswith(f"train it in full: {found['command']}\n")
    best = max((row for row in rows if row["epochs"] == 2), key=lambda row: row["accuracy"])
    assert found["chosen"] == {"loss": best["loss"], "setting": best["setting"]}
    program, *words = shlex.split(found["command"])
    code, out, _ = cli(*words, "--dry-run", "--json")
    config = json.loads(out)["config"]
    assert program == "cifarnet" and code == 0 and config["val_fraction"] == 0 and config["subset"] == 200
    assert config["loss"] == best["loss"] and config["loss_options"] == best["setting"]


def test_an_interval_has_its_percent_sign_at_both_ends():
    """Newcombe 1998 (Statistics in Medicine 17), table I, method 3."""
    assert interval(Outcome(81 / 263, 263)) == "25.53% to 36.62%" and interval(Outcome(0.0, 20)) == "0.00% to 16.11%"
    assert interval(Outcome(None, 20)) == "–"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([0.80, 0.79, 0.50], [0.85], ["rung 1"]),  # 80 of 100: 71.1% to 86.7%
        ([0.80, 0.72, 0.50], [0.85], ["rung 1"]),
        ([0.80, 0.71, 0.50], [0.85], []),
        ([0.80, None, 0.50], [0.85], []),
    ],
)
def test_a_choice_that_is_not_sure_on_an_early_rung_is_said_to_be(first, second, said):
    """The last rung has one trial, and nothing to compare it with: what was left behind decides. Wilson's ends as R's prop.test."""
    trials = [Trial(number, 0, Outcome(value, 100), number == 0) for number, value in enumerate(first)]
    trials += [Trial(0, 1, Outcome(value, 100)) for value in second]
    grid = {"margin": [0.1, 0.2, 0.3]}
    search = Search({"arcface": [TrainConfig()] * 3}, [{}] * 3, grid, 3, [Rung(3, 1, 1), Rung(1, 3, 3)], False)
    search.trials["arcface"] = trials
    found = [note for note in notes(search) if "not sure" in note]
    assert len(found) == len(said) and all(word in note for word, note in zip(said, found, strict=True))


def test_the_command_has_every_digit_of_the_setting(cli):
    settings = [{"margin": 0.1234567}, {"margin": 0.2}]
    search = Search({"arcface": [TrainConfig()] * 2}, settings, {}, 2, [Rung(2, 1, 1)], False)
    search.trials["arcface"] = [Trial(0, 0, Outcome(0.9, 100)), Trial(1, 0, Outcome(0.8, 100))]
    given = {"dataset": "digits", "arch": "baseline", "subset": 100, "epochs": 1, "device": "cpu"}
    asked = SimpleNamespace(named=(), file=None, given=given, init_from=None, fixed={})
    _, *words = shlex.split(full_command(search, asked))
    code, out, err = cli(*words, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["config"]["loss_options"] == {"margin": 0.1234567}
