"""A folder that is made under a name of its own and moved to its place when it is whole; what a killed process left of one is swept."""

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from cifarnet.storage.atomic import STALE
from cifarnet.storage.lock import file_lock

# Of a process that was killed at the beginning or the end the lock alone is left.
OURS = re.compile(r"\.cifarnet-[0-9a-f]{16}\.(part|lock)")


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """An empty folder in `place`, to be filled and moved; what is left of it at the end is removed.

    A lock beside it is held as long as it is at work, by which others know it from an orphan. Those are swept first.

    Raises:
        OSError: `place` cannot be written.
    """
    sweep_folders(place)
    folder = place / f".cifarnet-{secrets.token_hex(8)}.part"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks
            stack.enter_context(file_lock(lock_of(folder)).acquire(timeout=1))  # another may be sweeping at this moment
        try:
            folder.mkdir()
            yield folder
        finally:
            remove(folder)


def sweep_folders(place: Path) -> None:
    """Removes the folders and locks that killed processes left in `place`; where locks cannot be had, folders that are a day old.

    Raises:
        OSError: `place` cannot be listed.
    """
    for folder in {path.with_suffix(".part") for path in place.iterdir() if OURS.fullmatch(path.name)}:
        try:
            with file_lock(lock_of(folder)).acquire(timeout=0):
                remove(folder)
        except Timeout:  # its maker is at work
            pass
        except OSError:
            with contextlib.suppress(OSError):
                if time.time() - folder.lstat().st_mtime >= STALE:
                    remove(folder)


def lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def remove(folder: Path) -> None:
    """Removes a folder with its lock, as far as that can be done."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        lock_of(folder).unlink(missing_ok=True)
