"""The file of the compiled extension, looked at before it is loaded: is it whole, and what is it built for?

A library that is cut short ends the process (a bus error) once its missing part is touched, and nothing can catch that.
"""

import importlib.util
import os
import re
import struct
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from cifarnet.core.plain_file import read_bytes

PACKAGE = Path(__file__).parents[1]
NAME = "_C"
LARGEST = 1 << 30  # bytes of the library
ELF = b"\x7fELF"
ARCH = re.compile(r"(?P<major>\d+)\.(?P<minor>\d)(?P<kind>[af]?)(?P<ptx>\+PTX)?")


def extension_path() -> str | None:
    """Where the extension is that this Python would load, or None."""
    spec = importlib.util.find_spec(f"cifarnet.{NAME}")
    return spec.origin if spec else None


def built_for_others() -> list[str]:
    """Names of extensions beside the package's files that are built for another Python, as their names say."""
    if extension_path() is not None:
        return []
    return sorted(path.name for end in ("so", "pyd") for path in PACKAGE.glob(f"{NAME}.*.{end}"))


def built_elsewhere() -> Path | None:
    """The folder of another cifarnet on Python's path that has an extension, where this one, found before it, has none.

    After `pip install .` the source folder is such a one: `python -m` and torchrun take what lies in the current folder.
    """
    if extension_path() is not None:
        return None
    for entry in sys.path:
        folder = Path(entry, PACKAGE.name)
        built = any(os.path.isfile(folder / f"{NAME}{suffix}") for suffix in EXTENSION_SUFFIXES)
        if built and not folder.samefile(PACKAGE):
            return folder
    return None


def read_stamp(path: str) -> dict[str, str]:
    """The build's torch, cuda ("" without), archs and sets, from the text within the file.

    Raises:
        ValueError: the file cannot be read, is empty or cut short, or holds no such text; says which.
    """
    try:
        data = read_bytes(path, LARGEST)
    except OSError as error:
        raise ValueError(f"its file cannot be read ({error.strerror})") from error
    if not data:
        raise ValueError("its file is empty")
    needed = max(ends(data), default=0)
    if len(data) < needed:
        raise ValueError(f"its file is cut short: {len(data):,} bytes of {needed:,}")
    found = re.search(rb"cifarnet-build:([\x20-\x7e]*?):end", data)
    stamp = dict(item.partition("=")[::2] for item in found[1].decode().split(";")) if found else {}
    if not {"torch", "cuda", "archs"} <= stamp.keys():
        raise ValueError("its file names no torch version")
    return stamp


def ends(data: bytes) -> Iterator[int]:
    """Where the parts of a 64-bit little-endian ELF file end: its header, its tables, and what is mapped into memory.

    Nothing of a file of another kind: there the system's loader sees for itself that one is cut short.
    """
    if data[:6] != ELF + b"\x02\x01":
        return
    yield 64
    if len(data) < 64:
        return
    programs, sections = struct.unpack_from("<QQ", data, 32)
    size, count, section_size, section_count = struct.unpack_from("<4H", data, 54)
    yield sections + section_size * section_count
    yield programs + size * count
    for index in range(count):
        place = programs + size * index
        if size >= 56 and place + 56 <= len(data):
            begin, length = struct.unpack_from("<Q16xQ", data, place + 8)
            yield begin + length


def runs_on(archs: str, major: int, minor: int) -> bool:
    """True where code built for `archs` ("8.0,9.0+PTX") runs on a GPU of compute capability major.minor.

    Machine code runs on the same major version from its own minor on; PTX is compiled for anything newer. What is built for one
    architecture alone ("9.0a") or for its family ("10.0f") runs on no other.
    """
    for found in filter(None, map(ARCH.fullmatch, archs.split(","))):
        built, kind = (int(found["major"]), int(found["minor"])), found["kind"]
        if built == (major, minor) or (kind != "a" and built[0] == major and built[1] <= minor):
            return True
        if not kind and found["ptx"] and built <= (major, minor):
            return True
    return False
