"""Where files lie that can be made again: the user's cache, or a folder of our own where this user has no home."""

import os
import stat
from pathlib import Path

from cifarnet.core.errors import Refused

NAME_ONE = "set the environment variable XDG_CACHE_HOME to a folder that can be written"
# Libraries that keep files in the home folder, and complain on stderr, or fail, where they cannot.
LIBRARIES = {"MPLCONFIGDIR": "matplotlib", "NUMBA_CACHE_DIR": "numba"}
SHARED_MEMORY = Path("/dev/shm")  # on Linux writable where nothing else may be


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/cifarnet`, by default `~/.cache/cifarnet`. A relative `XDG_CACHE_HOME` is ignored.

    A user without a home, as in a container (HOME unset and no line in /etc/passwd), has `cifarnet-<uid>` in the
    temporary folder.

    Raises:
        Refused: there is no home, and that folder in the temporary one cannot be used.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "cifarnet"
    try:
        return Path.home() / ".cache" / "cifarnet"
    except RuntimeError:
        return temporary_cache()


def temporary_cache() -> Path:
    """`cifarnet-<uid>` in the temporary folder, made if need be: this user's alone.

    Raises:
        Refused: there is no temporary folder, or something of this name is in it that others can write.
    """
    import tempfile  # here, for a fast start

    try:
        folder = Path(tempfile.gettempdir()) / f"cifarnet-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Refused("cache folder", f"there is no home folder, and no temporary one ({error})", NAME_ONE) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Refused(f"cache folder {folder}", "is not this user's alone", NAME_ONE)
    return folder


def nearest_present(path: Path) -> Path:
    """`path`, or the nearest folder above that is there."""
    path = Path(os.path.abspath(path))
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def can_be_written(folder: Path) -> bool:
    """Can files be put into the folder, which may have to be made?"""
    place = nearest_present(folder)
    effective = os.access in os.supports_effective_ids
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK, effective_ids=effective)


def find_temporary() -> None:
    """Takes shared memory for the temporary folder where no other can be written: torch cannot do without one.

    Raises:
        Refused: that cannot be written either.
    """
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    if any(map(can_be_written, map(Path, filter(None, (*named, "/tmp", "/var/tmp", "/usr/tmp", "."))))):
        return
    if not can_be_written(SHARED_MEMORY):
        raise Refused("temporary folder", "there is none that can be written", "set TMPDIR to a folder that can")
    os.environ["TMPDIR"] = str(SHARED_MEMORY)


def house_libraries() -> None:
    """Sends the caches of matplotlib and numba to a folder that can be written, where the home folder cannot.

    Variables that are set already stay as they are.

    Raises:
        Refused: as `find_temporary`.
    """
    find_temporary()
    try:
        home = Path.home()
        if can_be_written(home / ".config") and can_be_written(home / ".cache"):
            return
    except (RuntimeError, OSError):
        pass
    for choose in (cache_folder, temporary_cache):
        try:
            folder = choose()
        except Refused:
            continue
        if can_be_written(folder):
            for variable, name in LIBRARIES.items():
                os.environ.setdefault(variable, str(folder / name))
            return
