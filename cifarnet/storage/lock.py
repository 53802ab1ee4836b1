"""Only one process at a time: a lock on a plain file, which ends with the process that holds it."""

import contextlib
import os
import stat
from pathlib import Path

from filelock import FileLock

from cifarnet.core.errors import Refused


def file_lock(path: Path) -> FileLock:
    """The lock on the file `path`, not yet taken; `acquire(timeout=0)` raises `filelock.Timeout` where another holds it.

    Raises:
        Refused: something else than a plain file of its own is there: it is neither followed nor written to.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise Refused(str(path), "is not a plain file of its own, so that it is no lock", "remove it")
    return FileLock(path, thread_local=False)
