"""Files that the user names for results: checked before any work, and never in the place of something that is not ours."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import kind_of
from cifarnet.storage.atomic import cannot_write, replacing, write_file

T = TypeVar("T")

INTO = ("a device", "a pipe")  # what is written into, and not replaced


def check_output(path: Path, overwrite: bool = False) -> Path:
    """Where a result goes that the user wants in `path`: of a link the file that it leads to. Nothing is written yet.

    Raises:
        Refused: a file is there and `overwrite` is not given, a folder is in the way, or none could be made for it.
    """
    try:
        real = path.resolve(strict=False) if path.is_symlink() else path
        kind = kind_of(real.stat().st_mode)
    except FileNotFoundError:
        return _check_folder(real)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        why = getattr(error, "strerror", None) or "its links lead in a circle"
        raise Refused(str(path), f"cannot be written ({why})", "name another file") from error
    if kind in INTO:
        return real
    if kind:
        raise Refused(str(path), f"is {kind}", "name a file")
    if not overwrite:
        raise Refused(str(path), "is there already", "add `overwrite` to replace it, or name another file")
    return _check_folder(real)


def _check_folder(path: Path) -> Path:
    place = next((folder for folder in path.absolute().parents if os.path.lexists(folder)), Path("/"))
    if not place.is_dir():
        raise Refused(str(path), f"{place} is not a folder", "name another file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise Refused(str(path), f"{place} cannot be written", "name another file")
    return path


def free_name(path: Path) -> Path:
    """`path`, or where something is there `name-2.png`, `name-3.png`, …: for results that the user gave no name."""
    number, chosen = 2, path
    while os.path.lexists(chosen):
        chosen, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return chosen


def write_output(path: Path, data: bytes) -> None:
    """Writes a result to where `check_output` said: a plain file is replaced as a whole, a device or pipe written into.

    Raises:
        Failed: it cannot be written; what was there is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_symlink() and kind_of(path.stat().st_mode) in INTO:
            with open(path, "wb") as file:
                file.write(data)
            return
    except OSError as error:
        raise cannot_write(path, error) from error
    write_file(path, data)


def write_checked(path: Path, data: bytes, check: Callable[[bytes], T]) -> T:
    """As `write_output`, once `check` has passed what was written, read back from the disk; returns what it returns.

    Raises:
        Failed: it cannot be written. Whatever `check` raises: then no file is written, and what was there is kept.
    """
    if path.exists() and kind_of(path.stat().st_mode) in INTO:
        found = check(data)
        write_output(path, data)
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)
            file.seek(0)
            return check(file.read())
    except OSError as error:
        raise cannot_write(path, error) from error
