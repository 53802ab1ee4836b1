"""What several test files share."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

from cifarnet.cli import run

# For a GPU machine, which is there for minutes: pytest --hypothesis-profile=no-shrinking
settings.register_profile("no-shrinking", phases=[Phase.explicit, Phase.generate])


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


def at_once(work: Callable[[], object], count: int = 3) -> list:
    """The results of `work` in `count` forked processes that start at the same moment, in the order in which they end."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.Queue()

    def start() -> None:
        torch.set_num_threads(1)  # a forked process has none of its parent's threads, and would wait for them
        barrier.wait()
        answers.put(work())

    processes = [context.Process(target=start) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    return found
