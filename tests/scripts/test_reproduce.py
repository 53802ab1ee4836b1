"""scripts/study/reproduce.py on digits: its plan, that it goes on where it stopped, its table."""

import dataclasses
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cifarnet.analysis.report.published import cell_of
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import load

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
import reproduce_cells
import reproduce_table
import study_run

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


def test_every_cell_of_the_tables_is_there():
    gpu = {cell.name: cell for cell in reproduce_cells.cells("gpu")}
    cpu = {cell.name: cell for cell in reproduce_cells.cells("cpu")}
    losses = ("ce", "arcface", "curricularface", "adaface")
    assert {f"{arch}-{loss}" for arch in ("resnet18", "resnet50") for loss in losses} <= gpu.keys()
    assert {
        "baseline",
        "baseline-plus",
        "resnet18-cifar",
        "resnet18-imagenet",
        "plainnet50",
        "resnet18-arcface-frozen",
    } <= (gpu.keys())
    assert {
        "resnet18-report",
        "resnet50-report",
        "speed",
        "resnet18-arcface-s64-m0.5",
    } <= gpu.keys() and cpu.keys() <= gpu.keys()
    for cell in [*gpu.values(), *cpu.values()]:
        cell.config.check()
        assert cell.config.val_fraction == 0  # trained on all the images, chosen on none of the test's
    assert {name for name, cell in cpu.items() if cell.seeds == 3} == {
        "baseline", "baseline-plus", *(f"resnet18-{loss}" for loss in losses),
    }  # fmt: skip
    assert all(cell.config.epochs <= (80 if name == "baseline-plus" else 12) for name, cell in cpu.items())
    names = [cell.name for cell, seed in reproduce.runs_of(list(cpu.values()), None)]
    assert len(names) == 3 * 6 + 7 and names[: len(cpu)] == list(cpu)  # all cells have one seed before any has two
    assert {name for name, cell in gpu.items() if cell_of(cell.config)} >= {"baseline", "resnet50-ce"}


def test_the_plan_fills_the_budget_and_no_more():
    chosen = [cell for cell in reproduce_cells.cells("gpu") if cell.config.epochs == 60]
    rates = dict.fromkeys((cell.name for cell in chosen), 15_000.0)
    plan = reproduce_cells.plan_epochs(chosen, rates, 50_000, 1, 38.0)
    seconds = sum(plan[cell.name] for cell in chosen) * 50_000 / 15_000 * reproduce_cells.EVALUATION
    assert min(plan.values()) > 1 and 0.95 * 38 * 60 < seconds < 38 * 60
    assert set(reproduce_cells.plan_epochs(chosen, dict.fromkeys(rates, 0.1), 50_000, 3, 175.0).values()) == {1}
    deep = next(cell for cell in reproduce_cells.cells("cpu") if cell.name == "resnet50-ce")
    minutes = 50_000 * reproduce_cells.EVALUATION / 40 * 2 / 60  # of a core, an epoch at 40 images a second on two
    assert [reproduce_cells.capped_epochs(deep, rate, 50_000, 2) for rate in (1e6, 40.0, 0.1)] == [
        12, int(300 / minutes), 1,
    ]  # fmt: skip


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
    with pytest.raises(
        Refused, match=r"state\.safetensors: was made with lr .* \(now 0\.25\)"
    ):  # a run that would go on
        reproduce.fill(faster, 0, load("digits"), tmp_path, None)
    assert state.exists() and not path.exists()


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
    assert named["ours"] == f"{mean:.2f} ± {spread:.2f}" and named["against ce"] == f"{mean - other:+.2f}"
    assert named["epochs"] == "2" and "report's protocol as long" not in named
    assert "seeds" not in named and " Seeds: 2. Precision: fp32. Device: cpu (" in text  # the same in every row
    path = tmp_path / "results" / "baseline-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "another", "epochs": 10}))
    text = reproduce_table.write_table(tmp_path).read_text()
    assert "| another / cpu (" in text and "| 2 / 10 |" in text  # a row names all that made it
    path.unlink()
    lines = reproduce_table.write_table(tmp_path).read_text().splitlines()
    assert "| seeds |" in lines[2] and {line.split("|")[-2].strip() for line in lines[4:]} == {"1", "2"}


def test_wrong_input_is_refused_before_anything_is_made(script, tmp_path):
    with pytest.raises(Refused, match=r"--only: resnet19 is no cell of this kind; choose from baseline, .*arcface"):
        script("--out", tmp_path / "out", "--only", "baseline", "resnet19")
    for options in (("--out", tmp_path / "out", "--seeds", "0"), ()):
        assert script(*options)[0] == 2
    assert not (tmp_path / "out").exists()


def test_the_list_needs_no_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--list", "--cells", "gpu"])
    reproduce.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [cell.name for cell in reproduce_cells.cells("gpu")]


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


def test_the_quick_cells_are_the_margins_on_resnet18():
    quick = reproduce_cells.cells("quick")
    assert [cell.name for cell in quick] == [f"resnet18-{name}" for name in ("ce", *reproduce_cells.MARGINS)]
    assert all(cell.config.eval_every == cell.config.epochs == 24 for cell in quick)
    assert {cell.name for cell in quick} <= {cell.name for cell in reproduce_cells.cells("gpu")}  # --only finds them
