"""Arrays kept in the user's cache between two starts: safetensors with a checksum, written whole or not at all.

What is read back is a memory of earlier work, never a reason to fail: a file that is missing, damaged, of another
version or locked away counts as absent, and the work is done again. So does what nobody has read for `UNUSED`.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cifarnet.core.errors import Failed, Refused
from cifarnet.core.plain_file import open_plain
from cifarnet.core.warn import warn
from cifarnet.data.request import ProgressCallback, cache_folder
from cifarnet.storage.atomic import write_file
from cifarnet.storage.lock import file_lock
from cifarnet.storage.safetensors_header import read_metadata

FORMAT, VERSION = "cifarnet-index", f"3, Pillow {PIL.__version__}"  # another decoder may round pixels otherwise
ENTRY = re.compile(r"[0-9a-f]{32}\.(safetensors|lock|images)")
DTYPES = {"int64": "I64", "uint8": "U8"}
UNUSED = 60 * 24 * 3600  # seconds after which what nobody has read is removed: its images may be long gone
NUMBER = 8  # bytes of a safetensors header's length


def arrays_path(subject: str) -> Path:
    """The file in the cache that is kept about `subject` (a real path and whatever else decides the contents)."""
    name = hashlib.blake2b(subject.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / "index" / f"{name}.safetensors"


def read_arrays(path: Path, stamp: str, shapes: dict[str, tuple[torch.dtype, int]]) -> dict[str, Tensor] | None:
    """The arrays that `write_arrays` left, or None. They are mapped, not copied: several processes share their memory.

    Args:
        stamp: what they must have been written with.
        shapes: dtype and number of dimensions of each array that must be there.
    """
    try:
        metadata = read_metadata(path, FORMAT, stamp)
        with open_plain(path) as file:
            file.seek(NUMBER + int.from_bytes(file.read(NUMBER), "little"))
            checksum = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
        if metadata.get("version") != VERSION or metadata.get("checksum") != checksum:
            return None
        with safe_open(path, "pt") as file:
            if set(file.keys()) != set(shapes):
                return None
            arrays = {name: file.get_tensor(name) for name in shapes}
    except (Refused, OSError, SafetensorError, ValueError, RuntimeError, TypeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use
    fits = all((arrays[name].dtype, arrays[name].ndim) == shape for name, shape in shapes.items())
    return arrays if fits else None


def write_arrays(path: Path, stamp: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps int64 and uint8 arrays; where they cannot be written a warning says so, and the work goes on without."""
    # Not safetensors.numpy.save, which copies each array, of gigabytes here, and keeps an order of its own: the checksum
    # in the header must be that of the bytes as they will lie in the file, before any is written.
    header: dict[str, object] = {}
    checksum, offset, pieces = hashlib.blake2b(), 0, []
    for name, array in arrays.items():
        piece = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        offsets = [offset, offset := offset + len(piece)]
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        checksum.update(piece)
        pieces.append(piece)
    header["__metadata__"] = {"format": FORMAT, "kind": stamp, "version": VERSION, "checksum": checksum.hexdigest()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % NUMBER)  # the arrays begin where a processor likes them to
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, len(text).to_bytes(NUMBER, "little"), text, *pieces)
        remove_unused(path.parent)
    except (OSError, Failed) as error:
        why = error.__cause__ or error
        reason = getattr(why, "strerror", None) or why
        warn(f"{path.parent}: cannot be written ({reason}); the next start will read all again")


def remove_unused(folder: Path) -> None:
    """Removes what has neither been written nor read for `UNUSED`: arrays with their lock, and with the copy that they are about."""
    entries: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if ENTRY.fullmatch(path.name):
            entries.setdefault(path.stem, []).append(path)
    for files in entries.values():
        with contextlib.suppress(OSError):
            if time.time() - max(file.lstat().st_mtime for file in files) >= UNUSED:
                for file in files:
                    file.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path, progress: ProgressCallback | None = None) -> Iterator[None]:
    """Only one process at a time is in here with the same `path`; the others wait. Where no lock can be had, nobody waits."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = file_lock(path.with_suffix(".lock"))
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                if progress:
                    progress(0, 1)  # so that it is seen that something goes on
                stack.enter_context(lock.acquire())
        yield
