"""What machine this is: its facts as JSON, for scripts/gpu_check.sh."""

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.utils.cpp_extension import CUDA_HOME

PACKAGES = (
    "setuptools",
    "torchvision",
    "triton",
    "pytest",
    "hypothesis",
    "ninja",
    "scikit-learn",
    "typer",
    "numpy",
    "filelock",
)


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def tool(name: str) -> str:
    """A program of the CUDA toolkit: on the PATH, else in the toolkit's folder; "" where there is none."""
    places = (shutil.which(name), *(Path(home, "bin", name) for home in (CUDA_HOME, "/usr/local/cuda") if home))
    return next((str(place) for place in places if place and os.access(place, os.X_OK)), "")


def said(*command: str) -> str:
    """The last line that a command prints."""
    if not command[0]:
        return ""
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return (result.stdout.strip() or result.stderr.strip() or "nothing").splitlines()[-1]


def main() -> None:
    """Prints the facts and writes them to the file that is named."""
    cuda = torch.cuda.is_available()
    facts = {"python": platform.python_version(), "torch": torch.__version__, "torch_cuda": torch.version.cuda or ""}
    facts |= {"gpu": torch.cuda.get_device_name() if cuda else ""}
    facts |= {"arch": "{}.{}".format(*torch.cuda.get_device_capability()) if cuda else ""}
    facts |= {name: installed(name) for name in PACKAGES}
    facts |= {"nvcc": said(tool("nvcc"), "--version"), "sanitizer": tool("compute-sanitizer")}
    facts |= {"driver": said(shutil.which("nvidia-smi") or "", "--query-gpu=driver_version", "--format=csv,noheader")}
    facts |= {"cores": str(os.cpu_count())}
    Path(sys.argv[1]).write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(f"{name}: {value or 'none'}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
