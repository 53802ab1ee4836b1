"""`cifarnet doctor` against the system's own words."""

import json
import os
import platform
import subprocess
import sys

import onnx
import pytest
import torch

import cifarnet
from cifarnet.cli import environment, run
from cifarnet.data.sources.cifar import SETS
from cifarnet.losses import kernels


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    """Runs it in an empty folder with --json; returns the document."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CIFARNET_BACKEND", raising=False)

    def call(*arguments):
        assert run(["doctor", "--json", *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def test_versions_devices_and_disk(doctor, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "EXTRAS", ("onnx", "no-such-package"))
    found = doctor()
    assert found["versions"]["onnx"] == onnx.__version__ and found["versions"]["no-such-package"] == "not installed"
    assert not any("no-such-package" in text for text in found["problems"])
    told = subprocess.run([sys.executable, "-m", "pip", "show", "safetensors"], capture_output=True, text=True)
    if told.returncode == 0:
        assert f"Version: {found['versions']['safetensors']}\n" in told.stdout
    assert found["package"] == os.path.dirname(cifarnet.__file__)
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["python"] == platform.python_version()
    assert found["devices"]["found"][-1]["name"] == "cpu" and found["devices"]["cores"] == len(os.sched_getaffinity(0))
    disk = os.statvfs(tmp_path)
    assert found["disk"][str(tmp_path)] == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.05)
    assert not (tmp_path / "cache").exists()  # looking changes nothing


def test_the_backend_and_why(doctor, monkeypatch, tmp_path):
    assert doctor()["backend"]["build"] == kernels.build_info()
    monkeypatch.setenv("CIFARNET_BACKEND", "torch")
    found = doctor()["backend"]
    assert found["auto"] == "torch" and "CIFARNET_BACKEND says torch" in found["why"]
    monkeypatch.setenv("CIFARNET_BACKEND", "tpu")
    found = doctor()
    assert found["backend"]["auto"] is None and "'tpu' is not known" in found["problems"][0]
    monkeypatch.delenv("CIFARNET_BACKEND")
    library = tmp_path / "_C.so"
    library.write_bytes(b"\x7fELF cifarnet-build:torch=1.0;cuda=;archs=;sets=plain:end\0")
    monkeypatch.setattr(kernels, "_extension_path", lambda: str(library))
    monkeypatch.setattr(kernels, "_extension", None)
    monkeypatch.setattr(kernels, "_why_not", None)
    found = doctor()
    assert "built for torch 1.0" in found["backend"]["why"] and found["problems"][0] == found["backend"]["why"]
    assert found["backend"]["build"]["sets"] == "plain"
    monkeypatch.setattr(kernels, "_extension_path", lambda: None)
    for found in (doctor(), doctor()):
        assert found["backend"] == {"auto": "torch", "why": "the compiled head is not built", "build": {}}
        assert found["problems"][0] == kernels.NOT_BUILT


def test_data_and_runs(doctor, tmp_path):
    folder = tmp_path / "data" / SETS["cifar10"].archive.folder
    folder.mkdir(parents=True)
    for name, size in SETS["cifar10"].archive.files.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").touch()
    (tmp_path / "runs" / "latest").symlink_to("mine")
    found = doctor("--data-dir", tmp_path / "data")
    assert found["data"]["sets"]["cifar10"] == "found" and "curl -LO" in found["data"]["sets"]["cifar100"]
    assert found["runs"] == {"folder": str(tmp_path / "runs"), "count": 1, "latest": str(tmp_path / "runs" / "mine")}
    (tmp_path / "cache").write_text("a file in the way")
    assert any("XDG_CACHE_HOME" in problem for problem in doctor()["problems"])


def test_data_that_is_not_there_is_a_problem(doctor, tmp_path):
    """Each with what to do; a damaged file too. CIFAR-100 alone is not missed."""
    absent, nowhere = (
        "CIFAR-10 and CIFAR-100 not found: train downloads",
        "--data-dir nowhere: there is no such folder; name",
    )
    (problem,) = doctor()["problems"]
    assert problem.startswith(absent) and "--data-dir" in problem and "--dataset digits" in problem
    first, second = doctor("--data-dir", "nowhere")["problems"]
    assert first.startswith(nowhere) and second.startswith(absent)
    folder = tmp_path / "data" / SETS["cifar10"].archive.folder
    folder.mkdir(parents=True)
    for name, size in SETS["cifar10"].archive.files.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert doctor("--data-dir", "data")["problems"] == []
    (folder / "test_batch.bin").unlink()
    (problem,) = doctor("--data-dir", "data")["problems"]
    assert "test_batch.bin missing; unpack the archive again" in problem


def test_for_people(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if not line.startswith(" ")]
    assert titles == ["versions", "devices", "margin head", "data", "storage", "problems"]
    assert f"{torch.__version__}\n" in out and "\x1b" not in out
