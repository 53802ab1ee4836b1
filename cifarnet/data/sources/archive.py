"""An official .tar.gz: fetched once into the cache, verified, and only its named files read at their exact sizes."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path

from cifarnet.core.caches import NAME_ONE, cache_folder
from cifarnet.core.errors import CifarnetError, Failed, Refused, plural
from cifarnet.core.plain_file import open_plain
from cifarnet.data.images.cache import held
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.download import download
from cifarnet.data.sources.mirrors import MIRRORS
from cifarnet.data.sources.server import Offer
from cifarnet.storage.atomic import move_folder, partial_of, write_file
from cifarnet.storage.new_folder import new_folder

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


class Missing(Refused):
    """A data set that can be downloaded and is not on this machine."""


def obtain(
    archives: Sequence[Archive],
    title: str,
    looked_in: list[Path],
    allowed: bool = True,
    progress: ProgressCallback | None = None,
) -> Archive:
    """Download the set, verify it, and leave its named files in the cache (`<cache>/<archive.folder>/`).

    Of several processes one downloads, and the others wait for it.

    Args:
        archives: the archives that hold the set, any of which will do: first the mirrors of each are asked, in this order,
            and then the official address of the last.
        looked_in: for the message.

    Returns:
        the archive whose files are there now.

    Raises:
        Missing: not allowed.
        Refused: no connection, a cache folder that cannot be written, no room on its disk, or a wrong checksum.
        Failed: the download was cut short or something else came in its place.
    """
    where = " or ".join(map(str, looked_in))
    fetch = f"`curl -LO {archives[-1].url}` where there is a network, and name the folder it is in with `data_dir`"
    fetch += "; `dataset=digits` needs no download"
    if not allowed:
        raise Missing(title, f"not in {where}", f"fetch it with {fetch}")
    cache = writable(cache_folder())
    with held(cache / "download", progress):
        for archive in archives:
            if (cache / archive.folder).is_dir():  # another process was here first
                return archive
        needed = max(archive.size + sum(archive.files.values()) for archive in archives)
        if (free := shutil.disk_usage(cache).free) < needed:
            why = f"{free / 1e6:,.0f} MB are free there, and {title} needs {needed / 1e6:,.0f}"
            raise Refused(f"cache folder {cache}", why, f"free some space, or {NAME_ONE}")
        offers = {
            offer: archive for archive in archives for offer in offers_of(archive, cache, archive is archives[-1])
        }
        try:
            taken = download(list(offers), progress)
        except CifarnetError as error:
            fix = f"{error.fix}; or fetch it with {fetch}" if error.fix else f"fetch it with {fetch}"
            raise type(error)(title, f"not in {where}, and the download failed ({error.why})", fix) from error
        unpack(taken.path, offers[taken], cache)
        for archive in archives:
            for path in (cache / archive.name, partial_of(cache / archive.name)):
                path.unlink(missing_ok=True)
        return offers[taken]


def offers_of(archive: Archive, cache: Path, official: bool) -> list[Offer]:
    """Who has the archive: its mirrors and, where it is asked for, the official address."""
    path = cache / archive.name
    addresses = [*MIRRORS.get(archive.url, ()), *([archive.url] if official else [])]
    return [Offer(url, archive.size, path, lambda file: check(file, path, archive)) for url in addresses]


def writable(cache: Path) -> Path:
    """The cache folder, made if need be; refused where it cannot be written."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        raise Refused(f"cache folder {cache}", f"cannot be written ({error.strerror})", NAME_ONE) from error
    return cache


def unpack(path: Path, archive: Archive, cache: Path) -> None:
    """Write the named files to `<cache>/<archive.folder>`: all of them or none."""
    contents = read(path, archive)
    try:
        with new_folder(cache) as folder:
            for name, data in contents.items():
                write_file(folder / name, data)
            move_folder(folder, cache / archive.folder)
    except OSError as error:
        raise Failed(str(cache / archive.folder), f"could not be written ({error.strerror})") from error
