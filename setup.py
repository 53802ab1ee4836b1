"""Builds the compiled margin head where it can: for the CPU with a C++ compiler, for CUDA too with an nvcc that fits torch.

CIFARNET_BUILD=auto (default) builds what this machine can and says in one line what it could not; `none` builds nothing
(the pure-torch head does everything); `cpu` and `cuda` fail where they cannot be built. TORCH_CUDA_ARCH_LIST chooses the
GPU architectures (default 8.0;9.0+PTX). CIFARNET_SANITIZE=1 builds with AddressSanitizer and UBSan (scripts/proof/sanitize.sh).
The rest of the metadata is in pyproject.toml.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup

CSRC = Path("csrc")
COMMON = ["-O3", "-std=c++20", "-fPIC", "-fno-math-errno", "-Wall", "-Wno-psabi", "-g0"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize=vptr"]
INSTRUCTION_SETS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
}
X86 = platform.machine() in ("x86_64", "AMD64")


class NotBuildable(Exception):
    """Why something cannot be built here."""


def wanted() -> str:
    mode = os.environ.get("CIFARNET_BUILD", "auto")
    if mode not in ("auto", "none", "cpu", "cuda"):
        sys.exit(f"error: CIFARNET_BUILD: '{mode}' is not known; choose auto, none, cpu or cuda")
    return mode


def say(text: str) -> None:
    print(f"cifarnet: {text}", file=sys.stderr, flush=True)


def sanitize() -> bool:
    return os.environ.get("CIFARNET_SANITIZE") == "1"


def cuda_version() -> str:
    """The toolkit's version. A build machine often has no GPU, so that torch.cuda.is_available() says nothing here."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        raise NotBuildable("this torch is built without CUDA")
    nvcc = Path(CUDA_HOME or "/nonexistent", "bin", "nvcc")
    if not nvcc.exists():
        raise NotBuildable("no nvcc is found (set CUDA_HOME)")
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    if not found or found[1].split(".")[0] != torch.version.cuda.split(".")[0]:
        raise NotBuildable(f"nvcc is {found[1] if found else 'unknown'} and torch wants {torch.version.cuda}")
    return found[1]


def write_stamp(folder: Path, cuda: str) -> None:
    """The header that names what the extension is built for; kernels.py reads it before it loads the library."""
    import torch

    archs = built_archs() if cuda else ""
    stamp = f"torch={torch.__version__};cuda={cuda};archs={archs};sets={','.join(sets())}"
    text = f'#define MARGIN_BUILD_STAMP "{stamp}"\n'
    header = folder / "build_stamp.h"
    folder.mkdir(parents=True, exist_ok=True)
    if not header.exists() or header.read_text() != text:
        header.write_text(text)


def built_archs() -> str:
    """The GPU architectures that torch has nvcc compile for, "8.0,9.0,9.0+PTX": names such as Hopper are resolved."""
    from torch.utils.cpp_extension import _get_cuda_arch_flags

    found = re.findall(r"code=(sm|compute)_(\d+)(\d[af]?)", " ".join(_get_cuda_arch_flags()))
    return ",".join(sorted(f"{major}.{minor}{'+PTX' if kind == 'compute' else ''}" for kind, major, minor in found))


def sets() -> list[str]:
    return list(INSTRUCTION_SETS) if X86 else ["plain"]


def extension(with_cuda: bool):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    sources = [
        "bindings.cpp",
        "instruction_sets.cpp",
        "margin_forward_cpu.cpp",
        "margin_backward_cpu.cpp",
        "margin_shard_cpu.cpp",
        "side_ops_cpu.cpp",
        "one_vs_all_cpu.cpp",
    ]
    macros: list[tuple[str, str | None]] = [("MARGIN_X86", None)] if X86 else []
    flags = {"cxx": [*COMMON, *(SANITIZE if sanitize() else [])]}
    if sys.platform == "linux":
        flags["cxx"].append("-fopenmp")  # not when linking: torch's own OpenMP serves, a second pool would fight it
    if with_cuda:
        os.environ["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST") or "8.0;9.0+PTX"
        sources.append("margin_head_cuda.cu")
        macros.append(("MARGIN_CUDA", None))
        flags["nvcc"] = ["-O3", "-std=c++20", "--threads=2", "-Xptxas=-v" if os.environ.get("VERBOSE") else "-w"]
    make = CUDAExtension if with_cuda else CppExtension
    built = make(
        "cifarnet._C",
        [str(CSRC / source) for source in sources],
        define_macros=macros,
        extra_compile_args=flags,
        extra_link_args=["-fsanitize=address,undefined"] if sanitize() else [],
        depends=[str(path) for path in CSRC.iterdir()],
    )
    # The CUDA runtime is torch's own, like its OpenMP: a toolkit need not bring the library to link with.
    built.libraries = [name for name in built.libraries if name != "cudart"]
    return built


def make_build_ext():
    import torch  # noqa: F401  (here, so that a missing torch is a message and not a traceback)
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        """torch's BuildExtension, with one object for each instruction set, and falling back where auto may."""

        def build_extensions(self) -> None:
            if wanted() != "auto":
                return self.build_for(with_cuda=wanted() == "cuda")
            try:
                return self.build_for(with_cuda=True)
            except Exception as error:
                why = first_line(error)
            try:
                self.build_for(with_cuda=False)
                say(f"the margin head is compiled for the CPU alone: {why}")
            except Exception as error:
                say(f"the margin head is not compiled, pure torch serves: {first_line(error)}")
                self.extensions = self.distribution.ext_modules = []

        def build_for(self, with_cuda: bool) -> None:
            cuda = cuda_version() if with_cuda else ""
            built = extension(with_cuda)
            built._full_name = self.extensions[0]._full_name
            built._file_name, built._needs_stub = self.extensions[0]._file_name, False
            folder = Path(self.build_temp).resolve()
            write_stamp(folder, cuda)
            built.include_dirs.append(str(folder))
            with ThreadPoolExecutor(max(1, int(os.environ["MAX_JOBS"]))) as pool:
                built.extra_objects = list(pool.map(lambda name: self.compile_rows(name, folder), sets()))
            self.extensions[:] = [built]
            self.force = True  # another torch or CIFARNET_BUILD changes no source; ninja leaves what is up to date
            super().build_extensions()

        def compile_rows(self, name: str, folder: Path) -> str:
            compiler = os.environ.get("CXX", "c++")
            if shutil.which(compiler) is None:
                raise NotBuildable(f"no C++ compiler ({compiler}) is found")
            target = folder / f"margin_rows_{name}.o"
            flags = [*COMMON, *(SANITIZE if sanitize() else []), *INSTRUCTION_SETS[name]]
            command = [compiler, *flags, "-DMARGIN_X86", f"-DMARGIN_ISA={name}", "-c", str(CSRC / "margin_rows.cpp")]
            subprocess.run([*command, "-o", str(target)], check=True)
            return str(target)

    return Build.with_options(use_ninja=shutil.which("ninja") is not None)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def limit_jobs() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    if not os.environ.get("MAX_JOBS", "").isdigit():  # nor does torch take another word for a number
        os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, memory // (4 << 30))))


def main() -> None:
    if wanted() == "none":
        return setup()
    limit_jobs()
    try:
        setup(ext_modules=[extension(with_cuda=False)], cmdclass={"build_ext": make_build_ext()})
    except ImportError as error:
        if wanted() != "auto":
            sys.exit(f"error: CIFARNET_BUILD={wanted()}: {error}; install torch first, then use --no-build-isolation")
        say(f"the margin head is not compiled, pure torch serves: {error}")
        setup()


main()
