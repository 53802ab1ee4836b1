"""Ctrl-C while Python still imports the program: 130 and one line, wherever it comes, from both entry points."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A finder that sends the signal when a module is asked for: at that very moment the program is within its imports.
INTERRUPTED = """
import os, signal, sys
wanted, entry = sys.argv.pop(1), sys.argv.pop(1)
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
if entry == "module":
    import runpy
    runpy.run_module("cifarnet", run_name="__main__", alter_sys=True)
else:
    import importlib
    module, function = entry.split(":")
    sys.exit(getattr(importlib.import_module(module), function)())
"""
SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["cifarnet"]


@pytest.mark.parametrize("entry", ["module", SCRIPT])
@pytest.mark.parametrize(
    "module",
    [
        "cifarnet.cli",
        "typer",
        "cifarnet.cli.complexity",
        "cifarnet.core.errors",
        "cifarnet.losses.registry",
        "rich.console",
    ],
)
def test_ctrl_c_within_the_imports(entry, module):
    line = [sys.executable, "-c", INTERRUPTED, module, entry, "train", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 130 and done.stdout == "" and done.stderr == "stopped by Ctrl-C\n"


@pytest.mark.parametrize(
    "lost",
    [
        "class Finalized:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); pass\nFinalized(); time.sleep(10)",
        "try: os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException: raise AttributeError('half imported')",
    ],
)
def test_a_signal_that_python_or_a_library_loses(lost):
    """In a finalizer nothing can be raised; NumPy's import made an AttributeError of it."""
    code = f"""
import os, signal, sys, time
from cifarnet.cli.common import run_app
def app(**_):
    exec({lost!r}, globals())
sys.exit(run_app(app, []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 130 and done.stderr == "stopped by Ctrl-C\n", done
