"""scripts/study/reproduce.py on digits: that it goes on where it stopped, its table."""

import dataclasses
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import load
from cifarnet.models.checkpoint import load_model

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
import reproduce_cells
import reproduce_plan
import reproduce_table
import study_run
from reproduce_kept import pack, unpack

TINY = TrainConfig(
    arch="baseline", dataset="cifar10", epochs=2, batch_size=128, augment="none", lr=3e-3, precision="fp32"
)
CELLS = [
    reproduce_cells.Cell("baseline", "3.2", TINY),
    reproduce_cells.Cell("baseline-ce", "3.2", dataclasses.replace(TINY, lr=1e-3)),
    reproduce_cells.Cell(
        "baseline-arcface", "3.2", dataclasses.replace(TINY, loss="arcface", loss_options={"scale": "auto"}, ema=0.9)
    ),
]


class StopAt(study_run.RunWatcher):
    """Raises SIGTERM after so many steps, of whichever cell."""

    left = 0

    def step(self, *arguments):
        super().step(*arguments)
        StopAt.left -= 1
        if StopAt.left == 0:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def script(monkeypatch, capsys):
    digits = load("digits")
    few = dataclasses.replace(digits, name="cifar10", train=digits.train.subset(torch.arange(500)))
    monkeypatch.setattr(reproduce, "load", lambda *_: few)
    monkeypatch.setattr(reproduce, "cells", lambda kind: CELLS)
    monkeypatch.setattr(study_run, "RunWatcher", StopAt)

    def call(*options, stop_after=0):
        StopAt.left = stop_after
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, options)])
        with pytest.raises(SystemExit) as end:
            reproduce.main()
        return end.value.code, capsys.readouterr().out

    return call


def test_stopped_anywhere_it_goes_on_to_the_same_results(script, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, out = script("--out", whole)
    assert code == 0 and out.count(" seed 0: ") == 3 and "baseline: 2 epochs" in out and "not finished" not in out
    code, out = script("--out", broken, "--budget", "0")
    assert code == 0 and "the time is up" in out and not list((broken / "results").iterdir())
    for steps in (3, 6, 2):  # within the first cell's epochs, then the second's, the third's
        code, out = script("--out", broken, stop_after=steps)
        assert code == 143 and "call again to go on" in out and "baseline: 2 epochs" not in out
        assert f"reproduce.py --data-dir DIR --out {broken}\n" in out and "baseline-arcface seed 0\n" in out
    assert script("--out", broken)[0] == 0
    for cell in CELLS:
        results = [json.loads((out / "results" / f"{cell.name}-0.json").read_text()) for out in (whole, broken)]
        one, two = ({key: value for key, value in result.items() if key != "seconds"} for result in results)
        assert one == two and one["data"].startswith("JPEG copy") and one["config"]["epochs"] == 2
        weights = [load_file(out / "runs" / f"{cell.name}-0" / "last.safetensors") for out in (whole, broken)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert script("--out", broken)[1].strip() == str(broken / "tables.md")  # nothing is left to run


def test_results_of_another_recipe_are_refused(script, tmp_path):
    assert script("--out", tmp_path, "--only", "baseline")[0] == 0
    path, state = tmp_path / "results" / "baseline-0.json", tmp_path / "runs" / "baseline-0" / "state.safetensors"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"config": result["config"] | {"lr": 0.5, "precision": "bf16"}}))
    refused = rf"{path.name}: was made with lr 0\.5 \(now {CELLS[0].config.lr}\); choose another folder"
    with pytest.raises(Refused, match=refused):
        script("--out", tmp_path, "--only", "baseline", "--seeds", "2")
    path.unlink()
    faster = dataclasses.replace(CELLS[0], config=dataclasses.replace(CELLS[0].config, lr=0.25))
    # A run that would go on.
    with pytest.raises(Refused, match=r"state\.safetensors: was made with lr .* \(now 0\.25\)"):
        reproduce.fill(faster, 0, load("digits"), tmp_path, None)
    assert state.exists() and not path.exists()


def test_a_new_run_joins_no_results_of_other_epochs(script, tmp_path):
    assert script("--out", tmp_path, "--only", "baseline")[0] == 0
    path, plan = tmp_path / "results" / "baseline-0.json", tmp_path / "plan.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"epochs": 40, "config": result["config"] | {"epochs": 40}}))
    assert script("--out", tmp_path, "--only", "baseline")[0] == 0  # it has all its runs, none would join
    refused = (
        r'baseline-0\.json: was made with 40 epochs \(now 2\); choose another folder, .*plan\.json \("baseline": 40\)$'
    )
    second = ("--out", tmp_path, "--only", "baseline", "baseline-ce", "--seeds", "2")
    for known in ({"baseline": 2}, None):
        plan.unlink() if known is None else plan.write_text(json.dumps(known))
        with pytest.raises(Refused, match=refused):
            script(*second)
        assert reproduce_plan.read_plan(tmp_path) == (known or {})  # no plan is made that the results refuse
    assert [one.name for one in (tmp_path / "runs").iterdir() if one.name != "latest"] == ["baseline-0"]
    path.unlink()
    longer = dataclasses.replace(CELLS[0], config=dataclasses.replace(TINY, epochs=3))
    # A run that would go on.
    with pytest.raises(Refused, match=r"state\.safetensors: was made with epochs 2 \(now 3\)"):
        reproduce.fill(longer, 0, load("digits"), tmp_path, None)


def test_a_loss_is_compared_over_the_seeds_that_both_have():
    def results(*accuracies, first=17):
        return [{"seed": first + i, "accuracy": value / 100} for i, value in enumerate(accuracies)]

    plain = results(88.82, 88.71, 89.01)
    for mine, words in [
        (results(88.66, 88.41), "-0.23, n = 2"),  # of the means -0.31: the third seed would count on one side alone
        (results(88.44, 88.71), "-0.19, n = 2"),
        (results(88.37), "-0.45, n = 1"),
        (results(88.57, 88.24, 88.55), "-0.39 (-0.70 to -0.08), n = 3"),
        (results(88.57, 88.24, first=20), "-0.44, of means: no seed in common"),
    ]:
        assert reproduce_table.against(mine, plain) == words


def test_the_table(script, tmp_path):
    assert script("--out", tmp_path, "--only", "baseline", "baseline-ce", "--seeds", "2")[0] == 0
    accuracy = {
        name: [
            100 * json.loads((tmp_path / "results" / f"{name}-{seed}.json").read_text())["accuracy"] for seed in (0, 1)
        ]
        for name in ("baseline", "baseline-ce")
    }
    text = (tmp_path / "tables.md").read_text()
    heads = [head.strip() for head in text.splitlines()[2].split("|")[1:-1]]
    row = next(line for line in text.splitlines() if line.startswith("| 3.2 | baseline |"))
    named = dict(zip(heads, (cell.strip() for cell in row.split("|")[1:-1]), strict=True))
    mean, other = (sum(accuracy[name]) / 2 for name in ("baseline", "baseline-ce"))
    assert named["published"] == "69.77 (10 epochs)" and named["difference"] == f"{mean - 69.77:+.2f}"
    spread = abs(accuracy["baseline"][0] - accuracy["baseline"][1]) / 2**0.5  # the sample deviation of two
    assert named["ours"] == f"{mean:.2f} ± {spread:.2f}" and named["against ce"] == f"{mean - other:+.2f}, n = 2"
    assert named["epochs"] == "2" and "report's protocol as long" not in named
    assert "seeds" not in named and " Seeds: 2. Precision: fp32. Device: cpu (" in text  # the same in every row
    path = tmp_path / "results" / "baseline-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "another", "epochs": 10}))
    text = reproduce_table.write_table(tmp_path).read_text()
    assert "| another / cpu (" in text and "| 2 / 10 |" in text  # a row names all that made it
    path.unlink()
    lines = reproduce_table.write_table(tmp_path).read_text().splitlines()
    assert "| seeds |" in lines[2] and {line.split("|")[-2].strip() for line in lines[4:]} == {"1", "2"}


def test_a_cell_of_six_views_states_what_one_view_gets(script, tmp_path, monkeypatch):
    cell = dataclasses.replace(CELLS[0], config=dataclasses.replace(TINY, epochs=1, tta=True))
    monkeypatch.setattr(reproduce, "cells", lambda kind: [cell])
    assert script("--out", tmp_path)[0] == 0
    result = json.loads((tmp_path / "results" / "baseline-0.json").read_text())
    model, info = load_model(tmp_path / "runs" / "baseline-0" / "last.safetensors")
    test = load("digits").test
    mean, std = (torch.tensor(values)[:, None, None] for values in (info.mean, info.std))
    with torch.no_grad():
        answers = model((test.images / 255 - mean) / std).argmax(1)
    right = (answers == test.labels).double().mean().item()
    assert result["accuracy_one_view"] == pytest.approx(right, abs=1e-9) != result["accuracy"]
    assert (
        f"| {100 * result['accuracy']:.2f} ({100 * right:.2f} without --tta) |" in (tmp_path / "tables.md").read_text()
    )


def test_wrong_input_is_refused_before_anything_is_made(script, tmp_path):
    with pytest.raises(Refused, match=r"--only: resnet19 is no cell of this kind; choose from baseline, .*arcface"):
        script("--out", tmp_path / "out", "--only", "baseline", "resnet19")
    for options in (("--out", tmp_path / "out", "--seeds", "0"), ()):
        assert script(*options)[0] == 2
    assert not (tmp_path / "out").exists()


def test_another_machine_goes_on_with_the_file_that_was_kept(script, tmp_path):
    kept = tmp_path / "kept.json"
    first = ("--only", "baseline", "baseline-ce", "--keep", kept)
    assert script("--out", tmp_path / "one", *first, stop_after=10)[0] == 143  # in the second cell
    found = json.loads(kept.read_text())
    assert found["plan"] == {"baseline": 2, "baseline-ce": 2} and list(found["results"]) == ["baseline-0"]
    code, out = script("--out", tmp_path / "two", *first)
    assert code == 0 and "2 epochs\n" not in out and "baseline-ce seed 0: " in out and "baseline seed" not in out
    assert json.loads(kept.read_text())["results"].keys() == {"baseline-0", "baseline-ce-0"}
    assert "baseline seed" not in script("--out", tmp_path / "three", *first)[1]
    for text in ("{", "[]", '{"results": {}}'):
        kept.write_text(text)
        with pytest.raises(Refused, match=r"kept\.json: this is no plan with its results"):
            script("--out", tmp_path / "four", *first)


def test_what_was_stopped_before_it_had_a_plan_is_kept_too(tmp_path):
    (tmp_path / "out" / "results").mkdir(parents=True)
    pack(tmp_path / "out", tmp_path / "kept.json")
    (tmp_path / "there").mkdir()
    unpack(tmp_path / "kept.json", tmp_path / "there")
    assert json.loads((tmp_path / "there" / "plan.json").read_text()) == {}
