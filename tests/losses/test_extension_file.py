"""A compiled head whose file is broken: one warning and pure torch, a refusal of `--backend cpu`, and never a crash.

They are tried with the real program, on a copy of the package.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked_python
import pytest

import cifarnet
from cifarnet.losses import extension_file, kernels

TRAIN = "train --dataset digits --arch baseline --loss arcface --epochs 1 --augment none --batch-size 500 --device cpu -q --json"
LIBRARY = extension_file.extension_path()
BYTES = Path(LIBRARY).read_bytes() if LIBRARY else b""
BREAKS = {
    "empty": (b"", "its file is empty"),
    "one byte": (b"\x7f", "names no torch version"),
    "the start of a header": (BYTES[:20], "cut short: 20 bytes of 64"),
    "half": (BYTES[: len(BYTES) // 2], f"cut short: {len(BYTES) // 2:,} bytes of {len(BYTES):,}"),
    "without its last byte": (BYTES[:-1], f"cut short: {len(BYTES) - 1:,} bytes of {len(BYTES):,}"),
    "random": (os.urandom(50_000), "names no torch version"),
    "a page that fails": (b"<html>not found</html>", "names no torch version"),
}

pytestmark = pytest.mark.skipif(
    LIBRARY is None or BYTES[:6] != b"\x7fELF\x02\x01", reason="the extension is not built here, or is no ELF file"
)


@pytest.fixture
def package(tmp_path):
    """A copy of the package without its library, and the place where that would be."""
    source = Path(cifarnet.__file__).parent
    shutil.copytree(source, tmp_path / "cifarnet", ignore=shutil.ignore_patterns("_C.*"))
    return tmp_path / "cifarnet" / Path(LIBRARY).name


# Like `python -m cifarnet`, line after line, but an editable install does not lend the copy its own library.
PROGRAM = """
import contextlib, io, json, os, sys, warnings
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path += filter(None, [os.environ.get("LATER_ON_THE_PATH")])
from cifarnet.cli import run
from cifarnet.cli.common import show_warning
warnings.showwarning, done = show_warning, []
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(line.split())
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


def execute(folder, *lines, prefix=()):
    """(exit code, stdout, stderr) of each line, of one process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*prefix, sys.executable if prefix else forked_python.executable(), "-c", PROGRAM, *lines],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def falls_back(folder, why, prefix=()):
    """What the program has to do of such a library, whose fault is `why`."""
    train, refusal, doctor = execute(
        folder, f"{TRAIN} --out run", f"{TRAIN} --backend cpu --out other", "doctor --json", prefix=prefix
    )
    code, out, err = train
    assert code == 0, err
    assert err.startswith("warning: the compiled margin head is not used: ") and err.count("\n") == 1
    assert why in err and json.loads(out)["backend"] == "torch"
    code, out, err = refusal
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("error: --backend: ") and why.split("; ")[0] in err and "--backend torch" in err
    assert not (folder / "other").exists()
    code, out, err = doctor
    found = json.loads(out)
    assert code == 0 and err == "" and found["backend"]["auto"] == "torch"
    assert any(why in problem for problem in found["problems"])


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_wrong_with_a_file(tmp_path, name):
    data, why = BREAKS[name]
    (tmp_path / "_C.so").write_bytes(data)
    with pytest.raises(ValueError, match=why):
        extension_file.read_stamp(str(tmp_path / "_C.so"))


@pytest.mark.parametrize("name", ["empty", "half"])
def test_a_broken_library(package, name):
    data, why = BREAKS[name]
    package.write_bytes(data)
    falls_back(package.parents[1], why)


def test_a_library_for_another_python(package):
    name = "_C.cpython-27-x86_64-linux-gnu.so"
    package.with_name(name).write_bytes(BYTES)
    falls_back(package.parents[1], f"{name} is built for another Python")


def test_a_library_of_the_cifarnet_that_stands_behind_the_current_folder_s(package, monkeypatch):
    """As after `pip install .` in the source folder: `python -m cifarnet` and torchrun take what lies there."""
    installed = package.parents[1] / "site-packages" / "cifarnet"
    installed.mkdir(parents=True)
    (installed / package.name).write_bytes(BYTES)
    monkeypatch.setenv("LATER_ON_THE_PATH", str(installed.parent))
    why = f"it is in {installed}, and Python found {package.parent} first, in the current folder or by PYTHONPATH"
    falls_back(package.parents[1], f"{why}; start in another folder, or rebuild it with: pip install")


def test_a_place_on_the_path_that_cannot_be_looked_into_is_passed_over(monkeypatch):
    monkeypatch.setattr(extension_file, "extension_path", lambda: None)
    monkeypatch.setattr(sys, "path", ["x" * 5000, ""])
    with pytest.raises(OSError, match="File name too long"):
        os.stat(sys.path[0])
    monkeypatch.chdir("/")
    assert extension_file.built_elsewhere() is None


def test_a_library_without_read_permission(package):
    """Permissions do not bind root, so that root first drops the right to pass them by."""
    prefix = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"]).returncode != 0:
            pytest.skip("needs setpriv to be bound by permissions")
    package.write_bytes(BYTES)
    package.chmod(0)
    falls_back(package.parents[1], "its file cannot be read (Permission denied)", prefix)


def test_a_whole_library_is_read_as_it_was_built():
    assert extension_file.read_stamp(LIBRARY) == kernels.build_info()
    assert max(extension_file.ends(BYTES)) <= len(BYTES)


def test_every_cut_is_seen_before_it_is_loaded():
    """readelf knows what a loader maps into memory: a file that ends before that is never whole to us."""
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    told = subprocess.run(["readelf", "-lW", LIBRARY], capture_output=True, text=True, check=True).stdout
    mapped = [line.split() for line in told.splitlines() if line.split()[:1] == ["LOAD"]]
    ends = {int(offset, 16) + int(size, 16) for _, offset, _, _, size, *_ in mapped}
    assert len(mapped) > 1 and ends <= set(extension_file.ends(BYTES))
    for size in [*range(1, 5000, 97), *range(5000, len(BYTES), 100_003)]:
        assert max(extension_file.ends(BYTES[:size]), default=1 << 40) > size
