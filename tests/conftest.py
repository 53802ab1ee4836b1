"""What several test files share."""

import os
from pathlib import Path

import pytest

from cifarnet.cli import run


@pytest.fixture(scope="session")
def cifar_data() -> Path:
    """The folder that holds cifar-10-batches-bin/, where the machine has one."""
    folder = os.environ.get("CIFARNET_TEST_DATA")
    if not folder:
        pytest.skip("CIFARNET_TEST_DATA does not name a folder with cifar-10-batches-bin/")
    return Path(folder)


@pytest.fixture
def cli(capfd, monkeypatch, tmp_path):
    """Runs a command in an empty folder, without a display; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    capfd.readouterr()

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call
