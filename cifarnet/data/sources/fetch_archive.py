"""An official .tar.gz, fetched once into the cache: what is kept of it is its named files, verified."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifarnet.core.caches import NAME_ONE, cache_folder
from cifarnet.core.errors import CifarnetError, Failed, Refused
from cifarnet.data.images.cache import held
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.archive import Archive, check, read
from cifarnet.data.sources.download import download
from cifarnet.data.sources.mirrors import MIRRORS
from cifarnet.data.sources.server import Offer
from cifarnet.storage.atomic import move_folder, partial_of, write_file
from cifarnet.storage.new_folder import new_folder


class Missing(Refused):
    """A data set that can be downloaded and is not on this machine."""


def fetch_archive(
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
        check_room(cache, archives, title)
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


def check_room(cache: Path, archives: Sequence[Archive], title: str) -> None:
    """Raises Refused where the disk has no room for the largest of the archives and its files beside it."""
    needed = max(archive.size + sum(archive.files.values()) for archive in archives)
    if (free := shutil.disk_usage(cache).free) < needed:
        why = f"{free / 1e6:,.0f} MB are free there, and {title} needs {needed / 1e6:,.0f}"
        raise Refused(f"cache folder {cache}", why, f"free some space, or {NAME_ONE}")


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
