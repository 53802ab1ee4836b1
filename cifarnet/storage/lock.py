"""Locks on files between processes, by filelock."""

import errno
from pathlib import Path

from filelock import FileLock, Timeout

from cifarnet.storage.atomic import refuse_second_name, refuse_special

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of a file system that has none


def file_lock(path: Path) -> FileLock:
    """A lock on the plain file `path`, not taken yet. It is free again when its holder ends, however that ends.

    `acquire(timeout=0)` raises filelock.Timeout where another process holds it, and OSError where the file cannot be
    opened or its file system has no locks. What the file holds is not kept.

    Raises:
        OSError: `path` is a link (also a second name of another file), or another thing that is no plain file.
    """
    refuse_special(path)
    refuse_second_name(path)
    # The fallback is a file whose mere presence is the lock: it would outlive a killed process.
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def is_held(path: Path) -> bool:
    """Does a process hold the lock on `path` at this moment? False where that cannot be told.

    To look is to take the lock for a moment: whoever means to keep it waits for that moment, and so do others that look.
    """
    if not path.exists():
        return False
    try:
        held = file_lock(path)
        held.acquire(timeout=0.1, poll_interval=0.01)
        held.release()
    except Timeout:
        return True
    except OSError:
        pass
    return False
