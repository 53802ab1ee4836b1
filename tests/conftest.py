"""Fixtures and helpers of several test files."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import Phase, settings
from torch.utils.cpp_extension import include_paths

from cifarnet.cli import run

ROOT = Path(__file__).parents[1]
INCLUDES = [f"-I{path}" for path in (*include_paths(), sysconfig.get_paths()["include"], ROOT / "csrc", ROOT / "tests")]

# For a GPU machine, which is there for minutes: pytest --hypothesis-profile=no-shrinking
settings.register_profile("no-shrinking", phases=[Phase.explicit, Phase.generate])


def settings_of_torch() -> dict[str, object]:
    """What one caller sets for the whole process, and another one finds."""
    cudnn = torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "matrix products": torch.get_float32_matmul_precision(),
    }


@pytest.fixture(autouse=True)
def torch_stays_as_it_was() -> Iterator[None]:
    """No test, and nothing that it calls, changes torch for what comes after it in the process."""
    before = settings_of_torch()
    yield
    assert settings_of_torch() == before


@pytest.fixture(autouse=True)
def empty_folder(torch_stays_as_it_was, monkeypatch, tmp_path) -> None:
    """Every test works in a folder of its own, since a run writes `runs/latest` where it is trained; `monkeypatch` is undone before torch is looked at."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def cifar_data() -> Path:
    """The folder that holds cifar-10-batches-bin/, where the machine has one."""
    folder = os.environ.get("CIFARNET_TEST_DATA")
    if not folder:
        pytest.skip("CIFARNET_TEST_DATA does not name a folder with cifar-10-batches-bin/")
    return Path(folder)


@pytest.fixture(scope="session")
def on_host():
    """The operators cifarnet_on_host: the CUDA backend's code, compiled for the CPU; compiled once for all processes."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no C++ compiler ({compiler}) here")
    sources = sorted([*(ROOT / "csrc").iterdir(), *(ROOT / "tests").glob("cuda_on_host.*")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + torch.__version__.encode()).hexdigest()
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    library = folder / f"cuda_on_host-{digest[:16]}.so"
    with FileLock(folder / "cuda_on_host.lock"):
        if not library.exists():
            for old in folder.glob("cuda_on_host-*.so"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                made = Path(temporary, "library.so")
                options = [
                    "-O1",
                    "-std=c++20",
                    "-fPIC",
                    "-shared",
                    "-w",
                    "-U_FORTIFY_SOURCE",
                    f"-L{Path(torch.__file__).parent / 'lib'}",
                ]
                command = [compiler, *options, *INCLUDES, ROOT / "tests" / "cuda_on_host.cpp", "-o", made]
                result = subprocess.run([*command, "-lc10", "-ltorch_cpu"], capture_output=True, text=True)
                assert result.returncode == 0, result.stderr[-3000:]
                made.rename(library)
    torch.ops.load_library(str(library))
    return torch.ops.cifarnet_on_host


@pytest.fixture
def cli(capfd, monkeypatch, tmp_path):
    """Runs a command without a display; returns exit code, stdout, stderr."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "COLUMNS"):
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


def status_of(work: Callable[[], object]) -> int:
    """How a forked process ends that does `work`: 0, or minus the signal that kills it."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # as in `at_once`
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def kept(monkeypatch):
    """The figures that are saved, to look into."""
    from cifarnet.analysis.plots import style

    figures, save = [], style.save
    monkeypatch.setattr(style, "save", lambda figure, path: (save(figure, path), figures.append(figure)))
    return figures
