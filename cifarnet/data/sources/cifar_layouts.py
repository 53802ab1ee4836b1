"""The layouts that CIFAR comes in, each read as records: the official binary files and the Python batches, loose or packed."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import open_plain
from cifarnet.data.found import DIFFERS, EXACT, UNVERIFIED
from cifarnet.data.sources import archive
from cifarnet.data.sources.archive import Archive
from cifarnet.data.sources.cifar_sets import PIXELS, Cifar
from cifarnet.data.sources.pickle_array import Array, NotPlain
from cifarnet.data.sources.pickle_walk import read_pickle

BINARY, PYTHON, PARQUET = "official binary", "Python batches", "parquet"
AGAIN = "unpack the archive again"


@dataclass(frozen=True)
class Records:
    """Some images in their order.

    Args:
        title: what to call the file in a message.
        labels: whole numbers [n, label bytes], unchecked.
        pixels: uint8 [n, 3072], planes R, G, B.
        status: EXACT, DIFFERS or UNVERIFIED.
    """

    title: str
    labels: np.ndarray
    pixels: np.ndarray
    status: str = UNVERIFIED


@dataclass(frozen=True)
class Source:
    """Where a set was found, and what reads it.

    Args:
        layout: in words.
        path: the folder or the archive.
        read: gives the records of "train" or "test".
        owner: the tool that the files belong to; "" of the user's or the program's own.
    """

    layout: str
    path: Path
    read: Callable[[str], Iterator[Records]]
    owner: str = ""


def files_of(cifar: Cifar, split: str) -> tuple[str, ...]:
    """The binary files of "train" or "test"."""
    return cifar.train if split == "train" else cifar.test


def batch_name(file: str) -> str:
    """The Python batch that holds the same images as a binary file."""
    return file.removesuffix(".bin")


def look_for_files(cifar: Cifar, folder: Path, incomplete: list[Refused]) -> Source | None:
    """The loose files in `folder`, binary ones before Python batches; those of which some are missing go to `incomplete`."""
    for layout, files in ((BINARY, [*cifar.archive.files]), (PYTHON, [*cifar.batches])):
        missing = [name for name in files if not os.path.lexists(folder / name) or os.path.isdir(folder / name)]
        if not missing:
            reader = binary_file if layout == BINARY else python_file
            return Source(layout, folder, lambda split, read=reader: read(cifar, folder, split))  # type: ignore[misc]
        if len(missing) < len(files):
            incomplete.append(Refused(str(folder), f"{', '.join(missing)} missing", AGAIN))
    return None


def binary_file(cifar: Cifar, folder: Path, split: str) -> Iterator[Records]:
    """Loose binary files: no checksum of theirs is published."""
    for name in files_of(cifar, split):
        size = cifar.archive.files[name]
        yield binary_records(cifar, str(folder / name), read_file(folder / name, size, exact=True), UNVERIFIED)


def python_file(cifar: Cifar, folder: Path, split: str) -> Iterator[Records]:
    """Loose Python batches, each compared with the published one."""
    for file in files_of(cifar, split):
        name, count = batch_name(file), cifar.count(file)
        data = read_file(folder / name, count * 2 * PIXELS + (1 << 20))  # each byte as a character of UTF-8, at most
        status, published = UNVERIFIED, cifar.batches[name]
        if published.size in (None, len(data)):
            equal = hashlib.md5(data, usedforsecurity=False).hexdigest() == published.md5
            status = EXACT if equal else DIFFERS if published.size else UNVERIFIED
        yield batch_records(cifar, str(folder / name), data, count, status)


def look_for_archive(cifar: Cifar, path: Path) -> Source | None:
    """The archive at `path`, where it has the name or the size of one of the two. It is read here, and checked."""
    for layout, known in ((BINARY, cifar.archive), (PYTHON, cifar.python)):
        if path.name in archive_names(known) or (os.path.isfile(path) and os.path.getsize(path) == known.size):
            contents, difference = archive.read_found(path, known)
            status = DIFFERS if difference else EXACT
            return Source(layout, path, packed(cifar, layout, path, contents, status))
    return None


def archive_names(known: Archive) -> tuple[str, ...]:
    """The names of an archive: as published, and as Keras has it."""
    return known.name, f"{known.folder}.tar.gz", f"{known.folder}-target_archive"


def packed(
    cifar: Cifar, layout: str, path: Path, contents: dict[str, bytes], status: str
) -> Callable[[str], Iterator[Records]]:
    """The reader of an archive's members."""

    def read(split: str) -> Iterator[Records]:
        for file in files_of(cifar, split):
            if layout == BINARY:
                yield binary_records(cifar, f"{file} in {path}", contents[file], status)
            else:
                name = batch_name(file)
                yield batch_records(cifar, f"{name} in {path}", contents[name], cifar.count(file), status)

    return read


def read_file(path: Path, size: int, exact: bool = False) -> bytes:
    """A file's bytes, once it is seen that there are `size`, or at most so many."""
    try:
        with open_plain(path) as file:
            actual = os.fstat(file.fileno()).st_size
            if actual == size or (actual < size and not exact):
                return file.read(actual)
        most = "" if exact else "at most "
        raise Refused(str(path), f"it has {plural(actual, 'byte')}, not {most}{size:,}", AGAIN)
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})") from error


def binary_records(cifar: Cifar, title: str, data: bytes, status: str) -> Records:
    """The records of a binary file of the right size."""
    rows, labels = np.frombuffer(data, np.uint8).reshape(-1, cifar.record), len(cifar.label_classes)
    return Records(title, rows[:, :labels], rows[:, labels:], status)


def batch_records(cifar: Cifar, title: str, data: bytes, count: int, status: str) -> Records:
    """The records of a Python batch, which is not run.

    Raises:
        Refused: it holds something else than a batch of `count` images.
    """
    try:
        content = read_pickle(data)
        if not isinstance(content, dict):
            raise NotPlain("it holds no dict")
        named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
        pixels = pixels_in(named.get("data"), count)
        labels = [labels_in(named.get(key), key, count) for key in cifar.label_keys]
    except NotPlain as error:
        fix = f"fetch {cifar.python.url} again"
        raise Refused(
            title, f"is no batch of {cifar.title}: {error} (a pickle is read here, never run)", fix
        ) from error
    return Records(title, np.stack(labels, axis=1), pixels, status)


def pixels_in(value: Any, count: int) -> np.ndarray:
    """The array of a batch, [count, 3072]."""
    array = value.values if isinstance(value, Array) else None
    if array is None or array.shape != (count, PIXELS):
        raise NotPlain(f'its "data" are not {count:,} rows of {PIXELS:,} pixels')
    return array


def labels_in(value: Any, key: str, count: int) -> np.ndarray:
    """The labels of a batch, as int64 [count]; those out of range are found later."""
    if type(value) is not list or len(value) != count or not all(type(label) is int for label in value):
        raise NotPlain(f'its "{key}" are not {count:,} whole numbers')
    if min(value, default=0) < 0 or max(value, default=0) > 255:
        raise NotPlain(f'its "{key}" are not all in the range of a byte')
    return np.array(value, np.int64)
