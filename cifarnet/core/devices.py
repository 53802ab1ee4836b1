"""Which device computes, and in which precision: chosen once, never silently another than the one asked for."""

import contextlib
import os
import shlex
import shutil
import sys
import sysconfig

import torch

from cifarnet.core.config import PRECISIONS
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused, plural
from cifarnet.core.known import unknown
from cifarnet.core.plain_file import read_text


def available_devices() -> list[str]:
    """Names of the devices that this torch can use, best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def pick_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU; any other name must be there. Of several ranks each gets a GPU of its own.

    Raises:
        Refused: a device that is not there; the message lists those that are.
    """
    name, present = str(name), available_devices()  # a caller may have a torch.device
    if ranks.world > 1:
        return _pick_for_rank(name, ranks, present)
    if name == "auto":
        return torch.device(present[0].split(":")[0])
    full = "cuda:0" if name == "cuda" else name
    if full not in present:
        raise Refused("device", f"'{name}' is not there", f"this machine has {', '.join(present)}")
    return torch.device(name)


def _pick_for_rank(name: str, ranks: Ranks, present: list[str]) -> torch.device:
    """The GPU with the rank's number on its machine, or the CPU, which all ranks of a machine share."""
    if name not in ("auto", "cpu", "cuda"):
        raise Refused("device", f"'{name}' is one device, and there are {ranks.world} ranks", "use auto, cuda or cpu")
    gpus = sum(device.startswith("cuda") for device in present)
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if ranks.local >= gpus:
        wanted = f"this is rank number {ranks.local + 1} of its machine, which has {plural(gpus, 'GPU')}"
        raise Refused("device", wanted, "give torchrun a smaller --nproc-per-node, or use `device=cpu`")
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


def device_name(device: torch.device) -> str:
    """The device's name in a message: the GPU's product name, or the CPU with its thread count."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{device} ({threads} thread{'s' if threads > 1 else ''})"
    return str(device)


def has_bf16(device: torch.device) -> bool:
    """Is bf16 arithmetic native on the device, and faster there than fp32?

    On a CPU that takes matrix units (AMX) or an AMD core. An Intel core with AVX512-BF16 alone is slower in bf16: a
    ResNet-18 step at 131 images a second, 148 in fp32; with AMX 395 and 215, on an AMD EPYC 310 and 185.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not probe_cpu("_is_avx512_bf16_supported"):
        return False
    return probe_cpu("_is_amx_tile_supported") or cpu_vendor() == "AuthenticAMD"


def probe_cpu(name: str) -> bool:
    """A fact about the processor, as torch sees it; False where this torch has no such probe."""
    probe = getattr(torch.cpu, name, None)
    return probe is not None and bool(probe())


def cpu_vendor() -> str:
    """GenuineIntel, AuthenticAMD … as Linux tells it; empty where it is not told."""
    with contextlib.suppress(OSError):
        for line in read_text("/proc/cpuinfo").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return ""


def pick_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 where that is faster (`has_bf16`), else fp32.

    Raises:
        Refused: another name than these and bf16; bf16 on a GPU that has none.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise Refused("precision", f"{device_name(device)} has no bf16", "use `precision=fp32`")
    return name


def check_compiler(device: torch.device) -> None:
    """Refuses torch.compile where it has no compiler to call: C++ on a CPU, C on a GPU, and Python's headers for both.

    Raises:
        Refused: something of it is missing; says what to install.
    """
    if device.type not in ("cpu", "cuda"):
        return
    language, variable, usual = ("C++", "CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cuda":
        language, variable, usual = "C", "CC", "gcc"
    named = shlex.split(os.environ.get(variable, ""))[:1] or [usual, "clang" if device.type == "cuda" else usual]
    if not any(map(shutil.which, named)):
        why = f"torch.compile needs a {language} compiler, and {named[0]} is not found"
        raise Refused("compile", why, f"install one (Debian: apt install {usual}), set {variable}, or leave it out")
    headers = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(headers) and not os.environ.get("CPATH"):
        raise Refused("compile", f"torch.compile needs {headers}", "install python3-dev, or leave it out")


def precision_here(trained: str, device: torch.device) -> str:
    """The precision in which to use a model that was `trained` in one: the same, but no bf16 where that is the slower."""
    return pick_precision("auto" if trained == "bf16" and not has_bf16(device) else trained, device)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`, without waiting: to a GPU by way of pinned memory, since any other copy may wait for its stream."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def finish(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
