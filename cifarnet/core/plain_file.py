"""The one way to open a file that is read: a plain file, under a ceiling, not led out of the folder that it belongs to."""

import errno
import os
import stat
from io import BufferedReader

TEXT = 64 << 20  # bytes: the ceiling of a text file, which is read into memory whole
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
KINDS |= {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFLNK: "a link"}

AnyPath = str | os.PathLike[str]


def kind_of(mode: int) -> str:
    """In words, the kind of thing that has this `st_mode`: "a pipe"; "" of a plain file."""
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no plain file")


def open_plain(path: AnyPath, within: AnyPath | None = None) -> BufferedReader:
    """The file at `path`, open for reading; a pipe does not block, a device is not read.

    Args:
        within: the folder that the file belongs to, as a part of a run: a link that leads out of it is not followed.

    Raises:
        OSError: it is not there, cannot be read, is not a plain file, or lies outside `within`.
    """
    if within is not None:
        check_within(path, within)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    file = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        if kind := kind_of(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", os.fspath(path))
        return open(file, "rb")
    except BaseException:
        os.close(file)
        raise


def check_within(path: AnyPath, folder: AnyPath) -> None:
    """Raises OSError where `path` is a link, or lies behind one, that leads out of `folder`."""
    real, home = os.path.realpath(path), os.path.realpath(folder)
    if real != os.path.join(home, os.path.relpath(real, home)) or os.path.relpath(real, home).startswith(os.pardir):
        raise OSError(errno.EINVAL, f"it is a link that leads out of {os.fspath(folder)}", os.fspath(path))


def read_bytes(path: AnyPath, ceiling: int = TEXT, within: AnyPath | None = None) -> bytes:
    """All of a plain file of at most `ceiling` bytes. Raises OSError as `open_plain`, and where it is larger."""
    with open_plain(path, within) as file:
        data = file.read(ceiling + 1)
    if len(data) > ceiling:
        raise OSError(errno.EFBIG, f"it has more than {ceiling:,} bytes", os.fspath(path))
    return data


def read_text(path: AnyPath, ceiling: int = TEXT, within: AnyPath | None = None) -> str:
    """The text of a plain file in UTF-8, without the byte-order mark that some editors put in front.

    Raises:
        OSError: as `read_bytes`, and where it is not UTF-8.
    """
    try:
        return read_bytes(path, ceiling, within).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is not text in UTF-8", os.fspath(path)) from error
