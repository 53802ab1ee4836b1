"""Files that survive a crash: written beside, flushed to the disk, then renamed into place."""

import contextlib
import os
from pathlib import Path

from cifarnet.core.errors import Failed

TEMPORARY = ".tmp"  # ends the name of a file that is being written; what is left of one is swept when a run starts


def write_file(path: Path, *data: bytes | memoryview) -> None:
    """Replaces `path` by the pieces of `data`, atomically: after a crash the old or the new file is there, whole.

    Raises:
        Failed: the disk is full or the folder cannot be written; the old file is kept, the temporary one removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise Failed(
            str(path),
            f"cannot be written ({error.strerror})",
            "the previous file is kept; free some space or move `out`",
        ) from error
    finally:  # after the rename there is none
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename in it outlives a power loss (where the system allows it)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporaries(folder: Path) -> None:
    """Removes what killed writers left behind in `folder`."""
    for orphan in folder.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            orphan.unlink()
