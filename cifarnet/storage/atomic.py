"""The one way to write a file: beside its place under a random name, flushed to the disk, then renamed into place."""

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

from cifarnet.core.errors import Failed
from cifarnet.core.plain_file import kind_of

OURS = re.compile(r"\.cifarnet-[0-9a-f]{16}\.tmp")  # a file that is being written; what is left of one is swept
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
STALE = 24 * 3600  # seconds after which a temporary file is an orphan of a killed process
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """A file to write into, which takes the place of `path` at the end: after a crash the old or the new one is there, whole.

    What killed writers left in its folder is swept once it is a day old; a younger one may belong to a process at work.

    Raises:
        OSError: the disk is full, the folder cannot be written, or `path` is a link or another thing that is no plain
            file. What was there is kept, nothing is left beside it.
    """
    refuse_special(path)
    sweep_temporaries(path.parent, older_than=STALE)
    temporary = path.with_name(f".cifarnet-{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:  # after the rename there is none
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def resuming(path: Path) -> Iterator[BufferedRandom]:
    """`replacing`, but what was written before an error stays in `<name>.part`, and the next time begins with it.

    The file is open for reading and writing. One that is empty at an error is removed.

    Raises:
        OSError: as `replacing`, and where the partial file is no plain file, or is a second name of another.
    """
    partial = partial_of(path)
    for place in (path, partial):
        refuse_special(place)
    refuse_second_name(partial)
    sweep_temporaries(path.parent, older_than=STALE)
    with open(os.open(partial, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666), "r+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.flush()
            if os.fstat(file.fileno()).st_size == 0:
                partial.unlink(missing_ok=True)
            raise
    os.replace(partial, path)
    sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """Where `resuming` keeps what there is of a file."""
    return path.with_name(f"{path.name}.part")


def write_file(path: Path, *data: bytes | memoryview) -> None:
    """Replaces `path` by the pieces of `data`, as a whole.

    Raises:
        Failed: it cannot be written (see `replacing`).
    """
    try:
        with replacing(path) as file:
            file.writelines(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def append(path: Path, data: bytes) -> None:
    """Adds `data` to the end of a plain file, or makes it, and flushes it to the disk.

    Raises:
        OSError: it cannot be written, is no plain file, or is a second name of another file, which would grow with it.
    """
    refuse_special(path)
    refuse_second_name(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW, 0o666), "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def refuse_special(path: Path) -> None:
    """Raises OSError where `path` is a link, a device, a pipe or a folder: a rename would replace it."""
    with contextlib.suppress(FileNotFoundError):
        if kind := kind_of(path.lstat().st_mode):
            raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", str(path))


def refuse_second_name(path: Path) -> None:
    """Raises OSError where `path` is a hard link to a file that has another name too."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_nlink > 1:
            raise OSError(errno.EINVAL, "it is a second name of another file", str(path))


def cannot_write(path: Path, error: OSError) -> Failed:
    """The error for the user, with what helps against its cause."""
    if error.errno in FULL:
        fix = "the previous file is kept; free some space, or choose another disk with `out`"
    elif error.errno == errno.ENOENT:
        fix = "its folder is gone: put it back where it was, or name another with `out`"
    else:
        fix = "the previous file is kept; choose another place with `out`"
    return Failed(str(path), f"cannot be written ({error.strerror or error})", fix)


def move_folder(finished: Path, place: Path) -> None:
    """Gives a folder that is whole its name, unless another process was faster. Raises OSError."""
    sync_folder(finished)
    if not place.exists():
        finished.rename(place)
        sync_folder(place.parent)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """A file of a folder that is being made and has no name yet; `fill_folder` flushes it. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666), "wb") as file:
        file.write(data)


def fill_folder(finished: Path, place: Path) -> None:
    """Gives a folder that is whole its name; where an empty folder has that already, its content moves there. Raises OSError."""
    os.sync()  # once for all files, of which there may be many
    if not place.exists():
        return move_folder(finished, place)
    for part in sorted(finished.iterdir()):
        os.replace(part, place / part.name)
    sync_folder(place)


def point_link(link: Path, target: str) -> None:
    """Makes `link` lead to `target`, in the place of an older link; anything else that stands there stays. Raises OSError."""
    sweep_temporaries(link.parent, older_than=STALE)
    temporary = link.with_name(f".cifarnet-{secrets.token_hex(8)}.tmp")
    if os.path.lexists(link) and not link.is_symlink():
        return
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename in it outlives a power loss (where the system allows it)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporaries(folder: Path, older_than: float = 0) -> None:
    """Removes the files that killed writers left behind in `folder`, and nothing else; nothing where it cannot be listed.

    Args:
        older_than: seconds since its last change; for a folder in which other processes may be writing.
    """
    with contextlib.suppress(OSError):
        for name in filter(OURS.fullmatch, os.listdir(folder)):
            with contextlib.suppress(OSError):
                if time.time() - (folder / name).lstat().st_mtime >= older_than:
                    (folder / name).unlink()
