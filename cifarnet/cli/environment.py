"""The facts that a bug report needs first: versions, devices, the head's backend and why, where the data is, room on the disk."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from cifarnet import __version__
from cifarnet.cli.options import spoken_error
from cifarnet.core.caches import NAME_ONE, cache_folder, can_be_written, nearest_present
from cifarnet.core.devices import available_devices, device_name, has_bf16, pick_device, pick_precision
from cifarnet.core.distributed import launched
from cifarnet.core.errors import CifarnetError
from cifarnet.data.images.streamed import cores
from cifarnet.data.request import Request
from cifarnet.data.sources import cifar
from cifarnet.losses import kernels
from cifarnet.losses.extension_file import PACKAGE
from cifarnet.storage.runs import LATEST, RUNS

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "pillow",
    "scikit-learn",
    "umap-learn",
    "matplotlib",
    "typer",
    "rich",
)
# What the extras bring: absent from most machines, and no problem there.
EXTRAS = ("onnx", "onnxscript", "onnxruntime", "huggingface_hub", "pyarrow", "webdataset", "tensorboard")
NOT_BUILT = "the compiled head is not built"
NOT_USED = "the compiled head is not used"
FOUND = "found"
LOW_DISK = 2 << 30  # bytes: an archive of CIFAR and what is unpacked from it, and some checkpoints


def examine(data_dir: Path | None = None) -> dict[str, Any]:
    """Everything, as plain JSON values; nothing is downloaded and nothing is changed.

    Args:
        data_dir: a folder in which CIFAR is looked for before the cache.

    Returns:
        versions, package (the folder of this cifarnet), devices, backend, data, disk, runs; and problems, a list of sentences.
    """
    found = {
        "versions": versions(),
        "package": str(PACKAGE),
        "devices": devices(),
        "backend": backend(),
        "data": data(data_dir),
        "disk": {str(path): shutil.disk_usage(nearest_present(path)).free for path in (cache(), Path.cwd()) if path},
        "runs": runs(),
    }
    return found | {"problems": problems(found)}


def versions() -> dict[str, str]:
    """Of cifarnet, Python, the system and the packages, without importing these."""
    found = {"cifarnet": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in (*PACKAGES, *EXTRAS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed" if name in EXTRAS else "missing"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return found | {
        "torch": torch.__version__,
        "cuda of torch": torch.version.cuda or "none",
        "cudnn": str(cudnn or "none"),
    }


def devices() -> dict[str, Any]:
    """The devices, and what `--device auto --precision auto` chooses."""
    listed = []
    for name in available_devices():
        device = torch.device(name)
        row: dict[str, Any] = {"name": name, "description": device_name(device), "bf16": has_bf16(device)}
        if device.type == "cuda":
            row["memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
            row["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        listed.append(row)
    chosen = pick_device("auto")
    return {"found": listed, "device": str(chosen), "precision": pick_precision("auto", chosen), "cores": cores()}


def backend() -> dict[str, Any]:
    """The backend that `--backend auto` chooses, why, and the extension's build ({}: not built)."""
    device = pick_device("auto").type
    asked, built = os.environ.get("CIFARNET_BACKEND") or "auto", kernels.build_info()
    if asked != "auto":
        try:
            chosen = kernels.resolve("auto", device)
        except CifarnetError as error:
            return {"auto": None, "why": str(error), "build": built}
        return {"auto": chosen, "why": f"the environment variable CIFARNET_BACKEND says {asked}", "build": built}
    if device not in ("cpu", "cuda"):
        return {"auto": "torch", "why": f"the compiled head does not run on {device}", "build": built}
    problem = kernels.obstacle(device)
    if problem is None:
        return {
            "auto": device,
            "why": f"the compiled head is built for this torch and runs on {device}",
            "build": built,
        }
    why = NOT_BUILT if problem == kernels.NOT_BUILT else f"{NOT_USED}: {problem}; {kernels.remedy()}"
    return {"auto": "torch", "why": why, "build": built}


def data(data_dir: Path | None) -> dict[str, Any]:
    """The folders looked in, and where each CIFAR is, or why not; its files are checked by size, an archive by checksum."""
    folders = [path for path in (data_dir, cache()) if path]
    sets: dict[str, str] = {}
    looked_in = data_dir if data_dir and data_dir.exists() else None
    for name, details in cifar.SETS.items():
        try:
            cifar.find(details, Request(looked_in, download=False))
            sets[name] = FOUND
        except CifarnetError as error:
            sets[name] = spoken_error(error.what, error.why, error.fix)
    return {"folders": {str(path): folder_state(path) for path in folders}, "sets": sets}


def folder_state(path: Path) -> str:
    """Is the folder there, and can it be written?"""
    usable = can_be_written(path)
    if os.path.exists(path):
        return "writable" if usable else "not writable"
    return "not there yet" if usable else "not there, and cannot be made"


def cache() -> Path | None:
    """The cache folder; None where there can be none."""
    try:
        return cache_folder()
    except CifarnetError:
        return None


def runs() -> dict[str, Any]:
    """The runs of this folder, and the newest."""
    count = sum(1 for path in RUNS.glob("*/config.json") if not path.parent.is_symlink())
    return {
        "folder": str(RUNS.absolute()),
        "count": count,
        "latest": str(LATEST.resolve()) if LATEST.exists() else None,
    }


def problems(found: dict[str, Any]) -> list[str]:
    """The facts that are likely to be in the way, each with its remedy."""
    listed = [f"{name} is missing: reinstall cifarnet" for name, text in found["versions"].items() if text == "missing"]
    if found["backend"]["auto"] is None or NOT_USED in found["backend"]["why"]:
        listed.append(found["backend"]["why"])
    if found["backend"]["why"] == NOT_BUILT:
        listed.append(kernels.NOT_BUILT)
    for check in (launched, cache_folder):
        try:
            check()
        except CifarnetError as error:
            listed.append(str(error))
    listed += data_problems(found["data"])
    for path, free in found["disk"].items():
        if free < LOW_DISK:
            listed.append(
                f"{free >> 20} MB are free for {path}: CIFAR and its archive take 350 MB, a ResNet's checkpoints up to 1 GB"
            )
    return listed


def data_problems(data: dict[str, Any]) -> list[str]:
    """The faults of the folders of data and of the files in them; CIFAR-100 alone is not missed."""
    listed = []
    for path, state in data["folders"].items():
        if path != str(cache()) and state.startswith("not there"):
            listed.append(f"--data-dir {path}: there is no such folder; name the one that holds the data")
        elif path == str(cache()) and state in ("not writable", "not there, and cannot be made"):
            listed.append(f"the cache {path} is {state}: {NAME_ONE}")
    absent = [name for name, state in data["sets"].items() if f"{cifar.SETS[name].title}: not in" in state]
    listed += [state for name, state in data["sets"].items() if state != FOUND and name not in absent]
    if "cifar10" in absent:
        names = " and ".join(cifar.SETS[name].title for name in absent)
        listed.append(
            f"{names} not found: train downloads what it needs; without a network fetch it elsewhere (the lines under data say "
            "how) and name its folder with --data-dir, or try --dataset digits, which needs no files"
        )
    return listed
