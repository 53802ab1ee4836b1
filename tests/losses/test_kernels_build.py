"""Building and loading the extension: what it is built for is checked before it is loaded, and what cannot be built is
said in one line."""

import os
import shutil
import subprocess
import types
import warnings
from pathlib import Path

import forked_python
import pytest
import torch

from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, kernels
from cifarnet.losses.heads import MarginHead
from cifarnet.losses.objectives import OBJECTIVES

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """Each test finds out anew which backends there are."""
    for name, value in {"_resolved": {}, "_why_not": None, "_extension": None, "_loss_numbers": {}}.items():
        monkeypatch.setattr(kernels, name, value)
    kernels._say.cache_clear()
    monkeypatch.delenv("CIFARNET_BACKEND", raising=False)


def pretend(monkeypatch, tmp_path, stamp):
    """A library whose file holds this stamp, in the extension's place."""
    library = tmp_path / "_C.so"
    library.write_bytes(b"\x7fELF" + bytes(100) + stamp.encode() + bytes(100))
    monkeypatch.setattr(kernels, "_extension_path", lambda: str(library))


def test_the_extension_is_built_here():
    if os.environ.get("CIFARNET_BUILD") == "none" or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler here, or CIFARNET_BUILD=none")
    assert kernels.build_info()["torch"] == torch.__version__
    assert kernels.resolve("auto", "cpu") == "cpu" and kernels.resolve("cpu", "cpu") == "cpu"


def test_built_for_another_torch(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, "cifarnet-build:torch=2.1.0;cuda=;archs=;sets=plain:end")
    with pytest.warns(UserWarning, match=r"built for torch 2\.1\.0 and this is torch .*rebuild it with") as caught:
        assert kernels.resolve("auto", "cpu") == "torch"
        assert kernels.resolve("auto", "cpu") == "torch"
    assert len(caught) == 1
    with pytest.raises(Refused, match=r"^backend: it is built for torch 2\.1\.0") as refused:
        kernels.resolve("cpu", "cpu")
    assert refused.value.exit_code == 2
    assert kernels._extension is None


def test_a_library_that_is_not_ours_or_does_not_load(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, "")
    with pytest.raises(Refused, match="names no torch version"):
        kernels.resolve("cpu", "cpu")
    monkeypatch.setattr(kernels, "_why_not", None)
    pretend(monkeypatch, tmp_path, f"cifarnet-build:torch={torch.__version__};cuda=;archs=;sets=plain:end")
    monkeypatch.setattr(kernels.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError("bad ELF")))
    with pytest.raises(Refused, match="cannot be loaded \\(bad ELF\\)"):
        kernels.resolve("cpu", "cpu")


@pytest.mark.parametrize(
    ("archs", "capability", "expected"),
    [
        ("8.0,9.0+PTX", (8, 0), True),
        ("8.0,9.0+PTX", (8, 6), True),
        ("8.0,9.0+PTX", (9, 0), True),
        ("8.0,9.0+PTX", (12, 0), True),
        ("8.0,9.0+PTX", (7, 5), False),
        ("8.0,9.0", (10, 0), False),
        ("8.6", (8, 0), False),
        ("9.0a", (9, 0), True),
        ("9.0a+PTX", (10, 0), False),
        ("10.0a", (10, 3), False),
        ("10.0f", (10, 3), True),
        ("8.0,9.0,9.0+PTX", (10, 3), True),
        ("Hopper", (9, 0), False),
        ("", (9, 0), False),
    ],
)
def test_which_gpus_a_build_runs_on(archs, capability, expected):
    assert kernels.runs_on(archs, *capability) is expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Hopper", "9.0,9.0+PTX"),
        ("8.0;9.0+PTX", "8.0,9.0,9.0+PTX"),
        ("9.0a 10.0", "10.0,9.0a"),
        ("Ampere", "8.0,8.6,8.6+PTX"),
    ],
)
def test_the_stamp_names_what_torch_compiles_for(monkeypatch, asked, expected):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    monkeypatch.setenv("CIFARNET_BUILD", "none")
    script = "import runpy, sys; sys.argv[1:] = ['--name']; print(runpy.run_path('setup.py')['built_archs']())"
    found = subprocess.run(
        [forked_python.executable(), "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split("\n")[-2] == expected


def test_built_without_this_gpu_s_architecture(monkeypatch, tmp_path):
    stamp = f"cifarnet-build:torch={torch.__version__};cuda=13.0;archs=9.0;sets=plain:end"
    pretend(monkeypatch, tmp_path, stamp)
    monkeypatch.setattr(kernels, "_load", lambda path: None)
    cards = [(9, 0), (8, 0)]  # the second may be the one that computes
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: cards[number])
    with pytest.warns(UserWarning, match=r"built for the GPU architectures 9\.0 and this GPU is 8\.0"):
        assert kernels.resolve("auto", "cuda") == "torch"
    with pytest.raises(Refused, match=r"this GPU is 8\.0"):
        kernels.resolve("cuda", "cuda")
    cards[1] = (9, 0)
    monkeypatch.setattr(kernels, "_resolved", {})
    assert kernels.resolve("auto", "cuda") == "cuda"


@pytest.fixture
def newface(monkeypatch):
    """A loss in pure torch, a copy of CosFace, that the extension does not have."""
    pytest.importorskip("cifarnet._C", reason="the extension is not built")
    monkeypatch.setitem(LOSSES, "newface", LOSSES["cosface"])
    monkeypatch.setitem(OBJECTIVES, "newface", OBJECTIVES["cosface"])
    return "newface"


def test_a_loss_without_kernels_runs_in_pure_torch(newface):
    torch.manual_seed(0)
    head, twin = MarginHead(8, 5, newface), MarginHead(8, 5, "cosface", backend="torch")
    twin.load_state_dict(head.state_dict())
    features, labels = torch.randn(4, 8), torch.randint(5, (4,))
    assert kernels.resolve("auto", "cpu", loss="cosface") == "cpu"  # loads the extension
    before = kernels.calls()
    with pytest.warns(UserWarning, match="compiled margin head is not used: it has no loss 'newface'") as caught:
        values = [head(features, labels) for _ in range(2)]
    assert len(caught) == 1 and kernels.calls() == before | {"torch": before["torch"] + 2}
    assert all(torch.equal(value, twin(features, labels)) for value in values)


def test_a_loss_without_kernels_is_refused_by_a_named_backend(newface):
    with pytest.raises(Refused, match=r"^backend: it has no loss 'newface'.*use `backend=torch`") as refused:
        kernels.resolve("cpu", "cpu", loss=newface)
    assert "\n" not in str(refused.value)
    with pytest.raises(Refused, match="it has no loss 'newface'"):
        MarginHead(8, 5, newface, backend="cpu")(torch.randn(4, 8), torch.randint(5, (4,)))


def test_built_from_older_sources(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, f"cifarnet-build:torch={torch.__version__};cuda=;archs=;sets=plain:end")
    monkeypatch.setattr(kernels.importlib, "import_module", lambda name: types.ModuleType(name))
    with pytest.raises(Refused, match="it is built from older sources"):
        kernels.resolve("cpu", "cpu")


def test_not_built(monkeypatch):
    monkeypatch.setattr(kernels, "_extension_path", lambda: None)
    with pytest.warns(UserWarning, match=r"pure torch runs it; .* pip install --no-build-isolation \.$") as caught:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            assert kernels.resolve("auto", "cpu", dtype) == "torch"
    assert [warning.filename for warning in caught] == [__file__]
    kernels._say.cache_clear()
    kernels._resolved.clear()
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.resolve("torch", "cpu") == "torch" and kernels.resolve("auto", "mps") == "torch"
        assert kernels.resolve("auto", "cpu") == "torch"  # the first process of the machine has said it
    assert kernels.build_info() == {}
    with pytest.raises(Refused, match="the cpu extension is not built") as refused:
        kernels.resolve("cpu", "cpu")
    assert refused.value.exit_code == 2


def test_what_a_forced_backend_cannot_do(monkeypatch):
    with pytest.raises(Refused, match="'fast' is not known"):
        kernels.resolve("fast", "cpu")
    with pytest.raises(Refused, match="the cuda kernels cannot run on the device 'cpu'"):
        kernels.resolve("cuda", "cpu")
    with pytest.raises(Refused, match="the cpu kernels cannot run on the device 'mps'"):
        kernels.resolve("cpu", "mps")
    with pytest.raises(Refused, match="float64"):
        kernels.resolve("cpu", "cpu", torch.float64)
    assert kernels.resolve("auto", "cpu", torch.float64) == "torch" and kernels.resolve("auto", "mps") == "torch"


def test_the_environment_stands_in_for_auto(monkeypatch):
    monkeypatch.setenv("CIFARNET_BACKEND", "torch")
    assert kernels.resolve("auto", "cpu") == "torch"
    monkeypatch.setenv("CIFARNET_BACKEND", "cuda")  # it decides at each call, not at the first one
    with pytest.raises(Refused, match=r"^CIFARNET_BACKEND: the cuda kernels cannot run on the device 'cpu'"):
        kernels.resolve("auto", "cpu")


def build(mode, tmp_path, **environment):
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc", dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "cifarnet").mkdir(exist_ok=True)
    shutil.copy(ROOT / "cifarnet" / "__init__.py", tmp_path / "cifarnet")
    environment = {**os.environ, "CIFARNET_BUILD": mode, **environment}
    command = [forked_python.executable(), "setup.py", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = [line for line in result.stderr.splitlines() if line.startswith(("cifarnet: ", "error: "))]
    return result.returncode, said, list((tmp_path / "cifarnet").glob("_C*"))


def test_the_sources_are_what_gcc_11_compiles():
    """Ubuntu 22.04 has that one; the builtin came with gcc 12."""
    sources = [path for path in (ROOT / "csrc").iterdir() if "__builtin_shufflevector(" in path.read_text()]
    assert sources == []


@pytest.mark.parametrize("jobs", ["", "0"])
def test_no_compiler_is_one_message_and_no_failure(tmp_path, jobs):
    nowhere = {"CXX": "/nonexistent/c++", "CUDA_HOME": "/nonexistent", "PATH": "/nonexistent"}
    code, said, built = build("auto", tmp_path, **nowhere, MAX_JOBS=jobs)
    assert code == 0 and built == []
    assert len(said) == 1 and "pure torch serves: no C++ compiler (/nonexistent/c++) is found" in said[0]


def test_a_build_asked_for_by_name_fails_where_it_cannot_be_done(tmp_path):
    assert build("cpu", tmp_path, CXX="/nonexistent/c++")[0] != 0
    assert build("cuda", tmp_path, CUDA_HOME="/nonexistent", PATH="/nonexistent")[0] != 0


def test_build_none_and_an_unknown_word(tmp_path):
    assert build("none", tmp_path) == (0, [], [])
    code, said, _ = build("everything", tmp_path)
    assert code == 1 and said == ["error: CIFARNET_BUILD: 'everything' is not known; choose auto, none, cpu or cuda"]
