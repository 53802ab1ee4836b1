"""The cells of scripts/study/reproduce.py, their plan and its list."""

import sys
from pathlib import Path

import pytest

from cifarnet.analysis.report.published import cell_of
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
import reproduce_cells
import reproduce_plan
import study_run


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
    assert cpu["speed"].seeds == 5 and cpu["speed"].config.tta
    assert all(cell.config.epochs <= (80 if name == "baseline-plus" else 12) for name, cell in cpu.items())
    names = [cell.name for cell, seed in reproduce.runs_of(list(cpu.values()), None)]
    assert len(names) == 3 * 6 + 5 + 7 and names[: len(cpu)] == list(cpu)  # all cells have one seed before any has two
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


def test_the_quick_cells_are_the_margins_on_resnet18():
    quick = reproduce_cells.cells("quick")
    assert [cell.name for cell in quick] == [f"resnet18-{name}" for name in ("ce", *reproduce_cells.MARGINS)]
    assert all(cell.config.eval_every == cell.config.epochs == 24 for cell in quick)
    assert {cell.name for cell in quick} <= {cell.name for cell in reproduce_cells.cells("gpu")}  # --only finds them


def test_the_list_needs_no_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--list", "--cells", "gpu"])
    reproduce.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [cell.name for cell in reproduce_cells.cells("gpu")]


def test_the_list_has_the_epochs_of_the_plan(monkeypatch, capsys, tmp_path):
    study_run.write_json(tmp_path / "plan.json", {"baseline-plus": 40})
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--list", "--out", str(tmp_path)])
    reproduce.main()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "40 epochs  3 of 3 left" in lines["baseline-plus"] and "12 epochs" in lines["resnet18-ce"]


def test_a_capped_cell_joins_no_results_of_other_epochs(tmp_path):
    other, capped = (
        reproduce_cells.Cell(name, "3.2", TrainConfig(), capped=True) for name in ("baseline", "baseline-ce")
    )
    study_run.write_json(tmp_path / "plan.json", {"baseline": 3})
    study_run.write_json(tmp_path / "results" / "baseline-ce-0.json", {"cell": "baseline-ce", "epochs": 2})
    with pytest.raises(Refused, match=r"baseline-ce-0\.json: was made with 2 epochs \(now 3\)"):
        reproduce.cap(capped, [other, capped], None, tmp_path)
    assert reproduce_plan.read_plan(tmp_path) == {"baseline": 3}
    study_run.write_json(tmp_path / "plan.json", {"baseline": 3, "baseline-ce": 2})
    assert reproduce.cap(capped, [other, capped], None, tmp_path).config.epochs == 2
