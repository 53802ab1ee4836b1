"""The real program in odd environments: no home, no compiler, nothing that can be written but --out."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import cifarnet
from cifarnet.core import caches
from cifarnet.core.caches import cache_folder, house_libraries
from cifarnet.core.devices import check_compiler
from cifarnet.core.errors import Refused

ROOT = str(Path(cifarnet.__file__).parents[1])
STRANGER = 54_321  # a user that no /etc/passwd knows
LINE = "train --dataset digits --arch baseline --augment none --batch-size 500 --device cpu --epochs 1 -q"
TRAIN = LINE.split()
BARE = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}


# Numba refuses to compile it where its cache has no place.
COMPILED = """
import numba
@numba.njit(cache=True)
def successor(number):
    return number + 1
assert successor(1) == 2
"""


def execute(*arguments, folder, prefix=(), **variables):
    """The program with no other variables than these; what it prints must be its own lines."""
    line = [*prefix, sys.executable, "-m", "cifarnet", *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, env=BARE | variables, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Could not determine" not in done.stderr, done.stderr
    return done


@pytest.fixture
def stranger():
    """(what starts a program as a user without a name, a folder): the user may read everything, and write in "own" there."""
    prefix = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    prefix += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs root and setpriv to become another user")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        os.chmod(folder, 0o755)
        for name in ("own", "temporary"):
            Path(folder, name).mkdir()
            os.chown(Path(folder, name), STRANGER, STRANGER)
        yield prefix, Path(folder)


# no home


def test_a_user_without_a_home(stranger):
    """HOME is not set and the user has no line in /etc/passwd, as in a container: everything works, nothing is warned of."""
    prefix, folder = stranger
    own, temporary = folder / "own", folder / "temporary"
    where = {"folder": own, "prefix": prefix, "TMPDIR": str(temporary)}
    done = execute(*TRAIN, "--out", "run", **where)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    done = execute("visualize", "umap", "run", "--method", "pca", **where)
    assert done.returncode == 0 and done.stdout == "run/pca.png\n" and done.stderr.count("\n") == 2, done.stderr
    (folder / "compiled.py").write_text(COMPILED)  # where this user cannot write, as UMAP's own functions are
    line = [*prefix, sys.executable, "-c", "from cifarnet.cli import run; run(['doctor', '--json']); import compiled"]
    bare = BARE | {"TMPDIR": str(temporary), "PYTHONPATH": f"{ROOT}:{folder}"}
    done = subprocess.run(line, cwd=own, env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    cache = temporary / f"cifarnet-{STRANGER}"
    assert found["data"]["folders"] == {str(cache): "writable"}
    assert sorted(path.name for path in cache.iterdir()) == ["matplotlib", "numba"]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in own.iterdir()) == ["run", "runs"]  # no folder called ~


def test_a_home_that_cannot_be_written(stranger):
    """As `docker run --user` leaves it: HOME=/root or /. The cache that a download needs is named with its variable."""
    prefix, folder = stranger
    (folder / "home").mkdir(mode=0o700)
    where = {
        "folder": folder / "own",
        "prefix": prefix,
        "TMPDIR": str(folder / "temporary"),
        "HOME": str(folder / "home"),
    }
    done = execute(*TRAIN, "--out", "run", **where)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    done = execute("train", "--dataset", "cifar10", "--out", "other", **where)
    assert done.returncode == 2 and done.stderr.startswith(f"error: cache folder {folder}/home/.cache/cifarnet: cannot")
    assert "set the environment variable XDG_CACHE_HOME" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """This process without a home, with a temporary folder of its own."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"cifarnet-{os.getuid()}"


def test_the_cache_in_the_temporary_folder_is_this_user_s_alone(homeless):
    """Another user could have made it first, and put data of his own into it."""
    assert cache_folder() == homeless and homeless.stat().st_mode & 0o777 == 0o700
    homeless.chmod(0o777)
    with pytest.raises(Refused, match="is not this user's alone; set the environment variable XDG_CACHE_HOME"):
        cache_folder()
    homeless.rmdir()
    (homeless.parent / "elsewhere").mkdir()
    homeless.symlink_to("elsewhere")
    with pytest.raises(Refused, match="is not this user's alone"):
        cache_folder()


def test_variables_that_are_set_stay(homeless, monkeypatch):
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    house_libraries()
    assert os.environ["MPLCONFIGDIR"] == "/mine" and os.environ["NUMBA_CACHE_DIR"] == str(homeless / "numba")


def test_a_user_with_a_home_keeps_the_libraries_places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    house_libraries()
    assert "MPLCONFIGDIR" not in os.environ and "NUMBA_CACHE_DIR" not in os.environ
    assert list(tmp_path.iterdir()) == []


# nothing can be written but --out


def test_a_read_only_machine(tmp_path):
    """In a mount namespace where only `out` takes files: not the home, not the current folder, not /tmp."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs root and unshare to mount")
    out, here = tmp_path / "out", tmp_path / "here"
    out.mkdir(), here.mkdir()
    script = f"""
        mount --make-rprivate / && mount --bind {out} {out} && mount -o remount,bind,ro / || exit 77
        touch {here}/x /tmp/x /root/x ~/x 2>/dev/null && exit 77
        cd {here} && exec "$@"
    """
    prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
    done = execute(*TRAIN, "--out", out / "run", folder=here, prefix=prefix, HOME=os.environ.get("HOME", "/root"))
    if done.returncode == 77:
        pytest.skip("cannot make the root read-only here")
    assert done.returncode == 0, done.stderr
    assert {"last.safetensors", "summary.json", "curves.png"} <= {path.name for path in (out / "run").iterdir()}
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines()), done.stderr


def test_no_temporary_folder_at_all(homeless, monkeypatch):
    """Not even shared memory: the one variable to set is named."""
    monkeypatch.setattr(caches, "can_be_written", lambda folder: False)
    with pytest.raises(Refused, match=r"^temporary folder: there is none that can be written; set TMPDIR to a folder"):
        house_libraries()


def test_a_current_folder_that_was_removed(tmp_path):
    (tmp_path / "gone").mkdir()
    prefix = ["sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh"]
    done = execute("doctor", folder=tmp_path, prefix=prefix)
    assert done.returncode == 2 and done.stderr.startswith("error: the current folder: it is not there any more")


# no compiler


def test_compile_without_a_compiler_is_refused_before_data_is_read(tmp_path):
    done = execute("train", "--dataset", "cifar10", "--compile", "--out", "run", folder=tmp_path, PATH="/nonexistent")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "error: --compile: torch.compile needs a C++ compiler, and g++ is not found; install one"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "variables", "words"),
    [
        ("cpu", {"CXX": "/nonexistent/c++"}, r"C\+\+ compiler, and /nonexistent/c\+\+ is not found; .*set CXX"),
        ("cuda", {}, "a C compiler, and gcc is not found; .*set CC,"),
    ],
)
def test_what_each_device_needs(monkeypatch, device, variables, words):
    monkeypatch.setenv("PATH", "/nonexistent")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=words):
        check_compiler(torch.device(device))
    check_compiler(torch.device("mps"))  # it calls none
