"""Which precision `auto` comes to on which processor, that a resumed run keeps it, and that freed memory is used again."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifarnet.core import devices
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import cpu_vendor, pick_precision
from cifarnet.core.torch_settings import determinism, measured_convolutions
from cifarnet.data import load
from cifarnet.engine.setup import build_run

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "vendor", "expected"),
    [
        (True, True, "GenuineIntel", "bf16"),
        (True, False, "GenuineIntel", "fp32"),
        (True, False, "AuthenticAMD", "bf16"),
        (False, False, "AuthenticAMD", "fp32"),
        (True, False, "", "fp32"),
    ],
)
def test_bf16_where_it_is_the_faster(monkeypatch, avx512_bf16, amx, vendor, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(devices, "cpu_vendor", lambda: vendor)
    assert pick_precision("auto", CPU) == expected
    assert pick_precision("bf16", CPU) == "bf16"  # asked for is asked for


@pytest.mark.parametrize(
    ("text", "vendor"),
    [("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags: x\n", "AuthenticAMD"), ("processor : 0\n", ""), (None, "")],
)
def test_the_vendor_is_read_from_linux(monkeypatch, text, vendor):
    def fake(path):
        assert path == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(devices, "read_text", fake)
    assert cpu_vendor() == vendor


@pytest.mark.parametrize(("threads", "name"), [(1, "cpu (1 thread)"), (2, "cpu (2 threads)")])
def test_a_cpu_is_named_with_its_threads(monkeypatch, threads, name):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert devices.device_name(CPU) == name


def test_a_resumed_run_keeps_the_precision_it_began_with(cli, monkeypatch, tmp_path):
    """Begun where auto is bf16, resumed where it is fp32; only --precision changes it. Measured here as is fastest here."""
    train = ["train", "--arch", "baseline", "--dataset", "digits", "--augment", "none", "--epochs", "1", "--out", "run"]
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    assert cli(*train)[0] == 0
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    assert build_run(TrainConfig(arch="baseline", dataset="digits"), load("digits")).precision == "fp32"

    def precisions():
        return [
            json.loads((tmp_path / "run" / f"{name}.json").read_text())["precision"] for name in ("config", "summary")
        ]

    assert precisions() == ["bf16", "bf16"]
    code, _, err = cli("train", "--resume", "--out", "run", "--epochs", "2")
    assert code == 0 and "bf16" in err and precisions() == ["bf16", "bf16"]
    code, out, _ = cli("eval", "run", "--json")
    assert code == 0 and json.loads(out)["precision"] == "fp32"
    assert cli("train", "--resume", "--out", "run", "--epochs", "3", "--precision", "fp32")[0] == 0
    assert precisions() == ["fp32", "fp32"]


FREE_AND_TAKE = """
import resource, torch
from cifarnet.core.freed_memory import keep_freed_memory

keep_freed_memory()
for _ in range(40):  # 64 MB, freed at once; glibc before 2.38 takes a freed aligned block again only once it has neighbours
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's allocator is another")
def test_freed_memory_is_taken_again_without_faults():
    """As the kernel counts them; a MALLOC_MMAP_MAX_ of the user's own stays: then each tensor faults in anew."""

    def faults(**more):
        env = os.environ | {"OMP_NUM_THREADS": "1"} | more
        run = subprocess.run([sys.executable, "-c", FREE_AND_TAKE], env=env, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults() < faults(MALLOC_MMAP_MAX_="65536") / 20


TAKE_AND_GIVE_BACK = """
import resource, torch
from pathlib import Path
from cifarnet.core.freed_memory import freed_memory_kept

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

start = resident()
with freed_memory_kept(torch.device("cpu")):
    with freed_memory_kept(torch.device("cpu")):
        torch.ones(1 << 27)
    within = resident()
after = resident()
torch.ones(1 << 27)
print(within - start, after - start, resident() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size is read from Linux's /proc")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's allocator is another")
def test_freed_memory_is_kept_within_and_given_back_after():
    """512 MB, in megabytes of the process."""
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_MMAP_MAX_"} | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", TAKE_AND_GIVE_BACK], env=env, capture_output=True, text=True)
    within, after, later = map(int, run.stdout.split())
    assert within > 500 and max(after, later) < 100, run.stdout


@pytest.mark.parametrize("before", [False, True])
def test_convolutions_are_measured_on_cuda_alone_and_only_within(monkeypatch, before):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", before)
    for device, wanted in (("cuda", True), ("cuda", False), ("cpu", True)):
        with measured_convolutions(torch.device(device), wanted):
            assert cudnn.benchmark == (before or (device, wanted) == ("cuda", True))
        assert cudnn.benchmark == before
    with pytest.raises(RuntimeError, match="out of memory"), measured_convolutions(torch.device("cuda"), True):
        raise RuntimeError("out of memory")
    assert cudnn.benchmark == before
    with determinism(True), measured_convolutions(torch.device("cuda"), False):
        assert cudnn.deterministic and not cudnn.benchmark
    assert cudnn.benchmark == before
