"""The image files in a folder and below it, by their suffix or, without one, their content; what else lies there is counted."""

import os
from collections.abc import Iterator
from pathlib import Path

from cifarnet.core.errors import Refused, printable
from cifarnet.core.plain_file import open_plain
from cifarnet.data.images.formats import MARK, format_of, is_image_name
from cifarnet.data.sources.left_out import LeftOut

Entries = list[os.DirEntry[str]]


def walk(folder: str | os.PathLike[str], left: LeftOut, linked: bool = False) -> Iterator[tuple[str, Entries]]:
    """Each folder in and below `folder`, itself first, with its image files, all in the order of their names.

    Args:
        left: counts what is no image that is read here, and links to folders, which are not followed.
        linked: follow those that lie in `folder` itself, but for one that leads back to it or to a folder above it.

    Raises:
        Refused: a folder cannot be read.
    """
    top = os.fspath(folder)
    waiting = [top]
    while waiting:
        place = waiting.pop()
        files, inside = look_into(place, left, linked and place == top)
        yield place, files
        waiting += [entry.path for entry in reversed(inside)]


def look_into(folder: str, left: LeftOut, linked: bool = False) -> tuple[Entries, Entries]:
    """The image files in a folder, and its subfolders; see `walk`."""
    files, inside = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                link = entry.is_symlink()
                if entry.is_dir() and link and not (linked and leads_on(entry.path, folder)):
                    left["links to folders", ""] += 1
                elif entry.is_dir() and not entry.name.startswith("."):
                    inside.append(entry)
                elif is_image_name(entry.name) or is_bare_image(entry):
                    files.append(entry)
                else:
                    left.add_file(entry.name)
    except OSError as error:
        raise Refused(printable(folder), f"cannot be read ({error.strerror})", "check its permissions") from error
    return files, inside


def leads_on(link: str, folder: str) -> bool:
    """Does a link in a folder lead to another one, not back to this or to one above it?"""
    return not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(link))


def is_bare_image(entry: os.DirEntry[str]) -> bool:
    """Is this a file without a suffix that begins as an image does?"""
    if "." in entry.name or not entry.is_file():
        return False
    try:
        with open_plain(entry.path) as file:
            return format_of(file.read(MARK)) is not None
    except OSError:
        return False
