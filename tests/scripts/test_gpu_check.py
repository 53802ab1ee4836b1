"""scripts/gpu_check.sh rehearsed on the CPU: a rare machine must not be spent on a typo."""

import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import forked_python
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "proof"))
import gpu_data
import gpu_summary

ROOT = Path(__file__).parents[2]
pytest.importorskip("cifarnet._C", reason="the extension is not built")

STEPS = {
    1: "versions build tests memcheck racecheck head_bf16 head_fp32 profile eager_bf16 peers_bf16 peers_fp32",
    2: "versions build bench_train speed resnet18 graphs airbench",
    3: "versions build reproduce",
}
RESULTS = {
    1: {"head_bf16", "head_fp32", "eager_bf16", "peers_bf16", "peers_fp32"},
    2: {"bench_train", "speed", "resnet18", "graphs"},
    3: {"reproduce"},
}


def check(*arguments, python=None):
    """Exit code, stdout and stderr."""
    environment = {**os.environ, "PYTHON": str(python or forked_python.executable()), "OMP_NUM_THREADS": "1"}
    environment.pop("AIRBENCH", None)
    command = ["bash", ROOT / "scripts" / "gpu_check.sh", *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout, result.stderr


def breaking(folder, *scripts):
    """A Python that fails when it is given one of these scripts."""
    path = folder / "python"
    cases = "".join(f"*{name}*) echo '{name} is broken' >&2; exit 7 ;; " for name in scripts)
    path.write_text(f'#!/bin/sh\ncase "$*" in {cases}esac\nexec {forked_python.executable()} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("call", [1, 2, 3])
def test_every_step_of_a_call(call, tmp_path):
    code, out, _ = check(call, tmp_path / "out", "--rehearse")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert code == 0 and summary["failed"] == [], out
    assert [step["step"] for step in summary["steps"]] == STEPS[call].split()
    assert all(step["exit"] == 0 and step["limit"] <= 540 for step in summary["steps"])
    results = {f"{name}.json" for name in RESULTS[call]}
    assert {path.name for path in (tmp_path / "out").iterdir()} == results | {"log.txt", "summary.json", "logs.tar.gz"}
    assert all(json.loads((tmp_path / "out" / name).read_text()) for name in results)
    assert summary["machine"]["torch"] and summary["data"] == "none"
    with tarfile.open(tmp_path / "out" / "logs.tar.gz") as archive:
        assert {"logs/build.log", "logs/versions.log"} <= set(archive.getnames())


def test_a_step_that_fails_is_named_and_the_others_are_done(tmp_path):
    python = breaking(tmp_path, "gpu_facts.py", "reproduce.py")
    code, out, _ = check(3, tmp_path / "out", "--rehearse", python=python)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert code == 1 and summary["failed"] == ["versions", "reproduce"]
    assert [step["exit"] for step in summary["steps"]] == [7, 0, 7]
    assert "reproduce.py is broken" in out and "reproduce.py is broken" in (tmp_path / "out" / "log.txt").read_text()


def test_a_step_ends_with_the_calls_time_and_what_is_left_is_not_run(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *gpu_facts.py*) exec sleep 60 ;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    code, _, _ = check(2, tmp_path / "out", "--rehearse", "--seconds", "6", python=python)
    steps = json.loads((tmp_path / "out" / "summary.json").read_text())["steps"]
    late = len(STEPS[2].split()) - 1  # all but the last, which is skipped for another reason
    assert code == 1 and [step["exit"] for step in steps] == [124] * late + [0] and steps[0]["seconds"] < 8
    assert steps[0]["note"] == "stopped: its time was up" and steps[1]["note"] == "not run: no time is left"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("4", "out"),
        ("1",),
        ("1", "--rehearse"),
        ("1", "out", "--fast"),
        ("1", "out", "--seconds", "x"),
        ("1", "out", "--data", "missing"),
    ],
)
def test_wrong_arguments(arguments, tmp_path):
    code, out, err = check(*[tmp_path / word if word in ("out", "missing") else word for word in arguments])
    assert (code, out) == (2, "") and err.startswith("usage: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_taken_home_is_named(tmp_path, monkeypatch):
    for name in "abcdefg":
        (tmp_path / f"{name}.json").write_text("{}")
    (tmp_path / "summary.json").touch()
    (tmp_path / "one" / "two" / "three").mkdir(parents=True)
    (tmp_path / "one" / "two" / "three" / "deep.txt").write_text("long")
    monkeypatch.setattr(gpu_summary, "BYTES", 4)
    found = gpu_summary.broken_limits(tmp_path)
    assert found[:2] == ["9 files, 8 are allowed", "7 results, 5 are allowed"]
    assert found[2:] == ["deep.txt: 4 bytes", f"{tmp_path}/one/two/three/deep.txt: too deep"]


UNPACK = """import pathlib, sys
here, dest = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[-1]) / "cifar-10-batches-bin"
dest.mkdir()
(dest / "seen").write_text(f"{sys.argv[1]} {len(list((here / 'exact').iterdir()))}")
"""


def packed(folder, names, exact=""):
    (folder / exact).mkdir(parents=True)
    for name in names:
        (folder / exact / name).touch()
    (folder / "unpack.py").write_text(UNPACK)
    return folder


def test_exact_images_in_two_parts_are_joined(tmp_path):
    sheets = sorted(gpu_data.SHEETS)
    one, two = packed(tmp_path / "one", sheets[:30], "exact"), packed(tmp_path / "two", sheets[20:])
    folder, words = gpu_data.unpack([one, two], tmp_path / "dest")
    assert words == gpu_data.EXACT and folder == tmp_path / "dest" / "exact"
    seen = (folder / gpu_data.LOOSE / "seen").read_text()
    assert seen.split()[-1] == str(len(sheets)) == "67" and "--jpeg" not in seen
    (folder / "kept").touch()
    assert (gpu_data.unpack([one, two], tmp_path / "dest")[0] / "kept").exists()  # it is not unpacked again


def test_without_all_sheets_the_jpeg_copy_serves(tmp_path):
    one = packed(tmp_path / "one", sorted(gpu_data.SHEETS)[1:], "exact")
    with pytest.raises(SystemExit, match=r"and 1 files of exact/ are missing"):
        gpu_data.unpack([one], tmp_path / "dest")
    (one / gpu_data.ARCHIVE).touch()
    folder, words = gpu_data.unpack([one], tmp_path / "dest")
    assert words == gpu_data.COPY and "--jpeg" in (folder / gpu_data.LOOSE / "seen").read_text()
    (one / "unpack.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"error: .*unpack\.py"):
        gpu_data.unpack([one], tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []
