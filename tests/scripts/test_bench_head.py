"""scripts/bench/head.py at tiny shapes: its truth, its rows, what it does with a competitor that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from scripts.bench import head as bench_head
from scripts.bench import head_competitors

pytest.importorskip("cifarnet._C", reason="the extension is not built")


def call(monkeypatch, capsys, tmp_path, *options):
    """Exit code, rows by name, what was printed."""
    out = tmp_path / "bench.json"
    line = ["bench_head.py", "--shapes", "12,8,30", "--seconds", "0", "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as end:
        bench_head.main()
    rows = json.loads(out.read_text())["rows"]
    return end.value.code, {row["name"]: row for row in rows}, capsys.readouterr().out


def test_the_truth_is_the_same_however_many_rows_go_at_a_time():
    case = bench_head.Case.make(11, 8, 30, "cpu", torch.float32)
    for part, whole in zip(case.in_double(3), case.truth, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-14)
    exact = torch.autograd.grad(
        head_competitors.reference(case.features.double(), case.weight.double(), case.labels),
        (case.features, case.weight),
    )
    assert case.error(exact) < 1e-6


def test_a_row_a_competitor(monkeypatch, capsys, tmp_path):
    code, rows, out = call(monkeypatch, capsys, tmp_path, "--dtype", "bf16", "--only", "ours", "eager", "floor")
    assert code == 0 and rows.keys() == {"cifarnet", "eager", "eager, autocast", "floor (3 products)"}
    assert rows["cifarnet"]["error"] < 1e-2 < rows["eager, autocast"]["error"] < 0.2
    assert rows["cifarnet"]["rounds"] == 3 and all(row["median_ms"] >= row["fastest_ms"] > 0 for row in rows.values())
    assert "| 12, 8, 30 | eager, autocast |" in out


@pytest.mark.parametrize(("name", "ends_with"), [("reference", 0), ("ours", 1)])
def test_what_fails_is_in_its_row_and_the_others_are_measured(monkeypatch, capsys, tmp_path, name, ends_with):
    def broken(z, w, y):
        raise RuntimeError("no such kernel\nmore of it")

    monkeypatch.setattr(bench_head, "TRUTH", {"cpu": 0})
    monkeypatch.setattr(head_competitors, name, broken)
    code, rows, _ = call(monkeypatch, capsys, tmp_path, "--only", "ours", "eager")
    failed, other = ("cifarnet", "eager") if name == "ours" else ("eager", "cifarnet")
    assert code == ends_with and rows[failed]["failed"] == "RuntimeError: no such kernel"
    assert rows[other]["median_ms"] > 0 and "median_ms" not in rows[failed]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_the_peak_counts_what_a_process_had_before_and_keeps():
    code = """
import torch
from cifarnet.core.freed_memory import keep_freed_memory
from scripts.bench.head_timing import peak
keep_freed_memory()
torch.ones(1 << 20)  # the libraries' pages are read now, not while the peak is taken
print(*[peak(lambda: [torch.ones(1 << 20) for _ in range(16)], "cpu") for _ in range(3)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [float(found) for found in done.stdout.split()] == pytest.approx([67.1] * 3, rel=0.05)  # MB
