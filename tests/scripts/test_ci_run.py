""".ci/run with scripts and programs that only end as they are told: what fails beside the tests fails the run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = (
    "scripts/setup.sh",
    "scripts/test.sh",
    ".venv/bin/ruff",
    ".venv/bin/mypy",
    ".venv/bin/python",
    "path/chromium",
)


@pytest.mark.parametrize(
    ("fails", "code", "done"),
    [
        ("", 0, "setup.sh test.sh ruff ruff mypy"),
        ("setup.sh", 3, "setup.sh"),
        ("test.sh", 3, "setup.sh test.sh ruff ruff mypy"),
        ("ruff", 3, "setup.sh test.sh ruff"),
        ("mypy", 3, "setup.sh test.sh ruff ruff mypy"),
    ],
)
def test_what_fails_fails_the_run(tmp_path, fails, code, done):
    for name in PROGRAMS:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ends = 3 if path.name == fails else 0
        path.write_text(f"#!/bin/sh\necho {path.name} >>done\necho {path.name} says\nexit {ends}\n")
        path.chmod(0o700)
    (tmp_path / "checkout" / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "checkout" / ".ci")
    path = f"{tmp_path / 'checkout' / 'path'}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", tmp_path / "checkout" / ".ci" / "run"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stderr
    assert sorted((tmp_path / "checkout" / "done").read_text().split()) == sorted(done.split())
    assert all(f"{name} says" in run.stdout for name in done.split())
