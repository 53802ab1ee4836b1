"""scripts/setup.sh with a python that only says what it was asked for: what is left of it when a part fails or it is stopped."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# PIP and BUILD are what the install of cifarnet and the build do.
PYTHON = """#!/bin/sh
case "$*" in
  *--editable*) echo "$CIFARNET_BUILD" >pip; eval "$PIP" ;;
  *build_ext*) echo "${CIFARNET_BUILD-unset}" >built; eval "$BUILD" ;;
esac
"""
COMPILER = "sleep 60 & echo $! >compiler; wait"  # a process of the build's own


@pytest.fixture
def project(tmp_path):
    """A folder with setup.sh and a .venv that is there already."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "csrc").mkdir()
    for name in ("scripts/setup.sh", "pyproject.toml", "setup.py", "csrc/bindings.cpp"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("cifarnet", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o700)
    return tmp_path


def begin(project, pip="true", build="true", **variables):
    return subprocess.Popen(
        ["bash", "scripts/setup.sh"],
        cwd=project,
        env={**os.environ, "PIP": pip, "BUILD": build, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background job, as these tests may be, ignores it, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path):
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text().strip()


def ends(number):
    """Is the process gone, or is soon?"""
    deadline, status = time.monotonic() + 10, Path(f"/proc/{number}/stat")
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_build_that_fails_is_shown_and_done_again(project):
    setup = begin(project, build="echo 'cifarnet: no compiler' >&2; exit 3", CIFARNET_BUILD="cuda")
    said, _ = setup.communicate(timeout=60)
    assert setup.returncode == 1 and said.endswith("cifarnet: no compiler\n")
    # Only the build takes the user's word; pip builds nothing.
    assert ((project / "built").read_text(), (project / "pip").read_text()) == ("cuda\n", "none\n")
    for lines in ("cifarnet: for the CPU alone\n", "everything is there\n"):
        setup = begin(project, build="echo compiling; echo 'cifarnet: for the CPU alone' >&2")
        said, _ = setup.communicate(timeout=60)
        assert setup.returncode == 0 and said.endswith(lines) and "compiling" not in said


@pytest.mark.parametrize("stopped", [False, True])
def test_no_compiler_is_left_behind(project, stopped):
    """It would write into the folder in which the next setup compiles."""
    pip = "sleep 60" if stopped else "until [ -s compiler ]; do sleep 0.01; done; exit 1"
    setup = begin(project, pip, COMPILER)
    compiler = int(wait_for(project / "compiler"))
    if stopped:
        os.killpg(setup.pid, signal.SIGINT)  # as the terminal does at Ctrl-C
    setup.communicate(timeout=60)
    assert setup.returncode and not (project / ".venv" / "cifarnet.stamp").exists()
    assert ends(compiler)
