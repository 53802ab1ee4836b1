"""An official .tar.gz: verified byte for byte, and only its named files read, at their exact sizes."""

import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path

from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import open_plain

SLACK = 1 << 20  # bytes that an archive may hold beyond its named files: headers, a readme, class names


@dataclass(frozen=True)
class Archive:
    """An archive as it was published.

    Args:
        url: the official address.
        size, md5, sha256: of the archive.
        folder: its files lie in this folder.
        files: name and size in bytes of each file that is read.
        ceilings: these sizes are what a file has at most.
    """

    url: str
    size: int
    md5: str
    sha256: str
    folder: str
    files: dict[str, int]
    ceilings: bool = False

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


def check(file: BufferedReader | BufferedRandom, path: Path, archive: Archive) -> None:
    """Refuse an archive, open from its start, that is not the published one, byte for byte."""
    if difference := compare(file, path, archive):
        raise Refused(str(path), difference, f"fetch {archive.url} again")


def compare(file: BufferedReader | BufferedRandom, path: Path, archive: Archive) -> str:
    """In words, how an archive, open from its start, differs from the published one; "" where it does not.

    Raises:
        Refused: it has another size, and is most likely cut short.
    """
    size = os.fstat(file.fileno()).st_size
    if size != archive.size:
        raise Refused(str(path), f"it has {plural(size, 'byte')}, not {archive.size:,}", f"fetch {archive.url} again")
    for algorithm, expected in (("md5", archive.md5), ("sha256", archive.sha256)):
        file.seek(0)
        actual = hashlib.file_digest(file, algorithm).hexdigest()
        if actual != expected:
            return f"its {'MD5' if algorithm == 'md5' else 'SHA-256'} is {actual}, not {expected}"
    return ""


def read(path: Path, archive: Archive) -> dict[str, bytes]:
    """The named files of a verified archive, straight into memory: nothing is written, no other member is read.

    Raises:
        Refused: unreadable, not the published archive, or a named file is missing or is not a plain file of its size.
    """
    contents, difference = read_found(path, archive)
    if difference:
        raise Refused(str(path), difference, f"fetch {archive.url} again")
    return contents


def read_found(path: Path, archive: Archive) -> tuple[dict[str, bytes], str]:
    """The named files of an archive that a user has, and in words how it differs from the published one, or "".

    Raises:
        Refused: as `read`, but for a checksum. An archive with another one is read to its end, and refused where it is damaged.
    """
    try:
        with open_plain(path) as whole:
            difference = compare(whole, path, archive)
            whole.seek(0)
            return read_members(whole, path, archive, to_the_end=bool(difference)), difference
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise Refused(str(path), f"cannot be read ({error})", f"fetch {archive.url} again") from error


def read_members(whole: BufferedReader, path: Path, archive: Archive, to_the_end: bool) -> dict[str, bytes]:
    """The named files of an open archive; its own checksum, behind its last byte, is checked where it is read to the end."""
    contents: dict[str, bytes] = {}
    ceiling = sum(archive.files.values()) + SLACK
    tar = tarfile.open(fileobj=whole, mode="r:gz")  # noqa: SIM115 (it holds nothing of its own)
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        if folder == archive.folder and name in archive.files:
            size = archive.files[name]
            fits = member.size <= size if archive.ceilings else member.size == size
            file = tar.extractfile(member) if member.isreg() and fits else None
            if file is None:
                most = "at most " if archive.ceilings else ""
                raise Refused(str(path), f"{name} in it is not a plain file of {most}{size:,} bytes")
            contents[name] = file.read()
        if member.offset_data + member.size > ceiling or (len(contents) == len(archive.files) and not to_the_end):
            break
    if len(contents) < len(archive.files):
        missing = ", ".join(name for name in archive.files if name not in contents)
        raise Refused(str(path), f"{missing} not in it", f"fetch {archive.url} again")
    if to_the_end and tar.fileobj and len(tar.fileobj.read(SLACK)) == SLACK:
        raise Refused(str(path), "it goes on behind its last file", f"fetch {archive.url} again")
    return contents
