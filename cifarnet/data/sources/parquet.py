"""Parquet files of images, as the Hugging Face hub has them: a column of image files' bytes, and one of labels.

A row cannot be reached without unpacking all of its group. So the images' bytes are copied once, as they are, into one file
in the user's cache, with a list of their places: shuffling, resuming within an epoch and sharing among ranks are then
exact and fast, as for any other set, and later starts do not open the parquet files again.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Failed, Refused, plural, printable
from cifarnet.core.warn import warn
from cifarnet.data.dataset import Dataset
from cifarnet.data.found import Found
from cifarnet.data.images.cache import arrays_path, held, read_arrays, write_arrays
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.request import Request
from cifarnet.data.sources.layouts import PARQUET, find_root, parquet_files, role_of
from cifarnet.data.sources.members import Members
from cifarnet.data.sources.parquet_rows import Copied, check_installed, copy_rows
from cifarnet.data.sources.splits import check_trained, parts_by_name, stratified
from cifarnet.data.sources.tar_index import MAX_IMAGE, Shard, open_shard
from cifarnet.storage.atomic import replacing

SHAPES = {"offsets": (torch.int64, 1), "sizes": (torch.int64, 1), "labels": (torch.int64, 1), "rows": (torch.int64, 2)}
SHAPES |= {"notes": (torch.uint8, 1)}
ROOM = 1 << 28  # bytes of the disk that stay free
SAID = 1 << 30  # bytes from which it is said that a copy is made


@dataclass(frozen=True, eq=False)
class RowImages(Members):
    """Images of rows of parquet files, read from their copy in the cache."""

    def name(self, index: int) -> str:
        """`train.parquet, row 17`, fit for a terminal."""
        return printable(os.fsdecode(self.names[index]))


def load_parquet(request: Request) -> Dataset:
    """A parquet file of images, or a folder of them.

    The columns are told by type and name (`find_columns`), unless `image_column` and `label_column` name them. Files whose
    names, or whose folders', hold the word test (else val) are the test set; without any a test set is made
    (`stratified`). Class names are those that the Hugging Face library wrote down, else the labels, sorted.

    Raises:
        Refused: pyarrow is absent, no parquet files, one that is damaged, columns that cannot be told, a label that is no
            class, too little room for the copy, or images that cannot be read, by name.
    """
    root, paths = find_files(request.data_dir)
    copy = open_copy(root, paths, request)
    what = printable(root)
    warn(f"{what}: images from the column {printable(copy.image)}, labels from the column {printable(copy.label)}")
    copy.left.say(what)
    train, test = divide(what, root, paths, copy)
    check_trained(what, copy.classes, copy.labels, train, "give each class at least one image for training")
    file_of, row_of = copy.rows.T
    called = np.array(
        [
            os.fsencode(f"{paths[file].name}, row {row}")[-100:]
            for file, row in zip(file_of.tolist(), row_of.tolist(), strict=True)
        ],
        dtype=bytes,
    )
    shard = Shard(copy.path, copy.stamp, copy.offsets, copy.sizes, copy.labels, called)
    members = RowImages((shard,), np.zeros(len(called), np.int32), copy.offsets, copy.sizes, called)
    base = np.frombuffer(
        hashlib.blake2b(stamp_of(paths).encode("utf-8", "surrogateescape"), digest_size=8).digest(), dtype=np.int64
    )
    # Of file and row: where an image lies in the copy depends on which rows have a label, in the column that is asked for.
    keys = base ^ ((file_of << 40 | row_of) * np.int64(0x9E3779B97F4A7C1))
    whole = StreamedSplit(members, torch.from_numpy(copy.labels), request.image_size)
    found = Found("parquet", root, left_out=copy.left.as_pairs())
    classes = tuple(map(printable, copy.classes))
    subject = f"parquet rows/{os.path.realpath(root)}/{copy.image}"
    return indexed_dataset(Listing("parquet", classes, whole, keys, train, test, subject, found), request.progress)


def find_files(given: Path | None) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the parquet files that `data_dir` names."""
    if given is None:
        raise Refused("data_dir", "parquet needs it", "name a parquet file or a folder of them")
    if given.is_file():
        return given, [given]
    try:
        root = find_root(given)
        paths = parquet_files(root)
    except OSError as error:
        raise Refused(printable(given), f"cannot be read ({error.strerror})", "name a parquet file") from error
    if not paths:
        raise Refused(printable(given), "no parquet files in it", f"name a folder of files that end in {PARQUET[0]}")
    places = sorted({str(path.parent if role_of(path.parent.name) is None else path.parent.parent) for path in paths})
    if len(places) > 1:
        raise Refused(
            printable(given), f"parquet files of several sets in it: {names(places)}", "name one of these folders"
        )
    return Path(places[0]), paths


def stamp_of(paths: list[Path]) -> str:
    """Names, sizes and times of change of the files."""
    found = []
    for path in paths:
        try:
            file, stamp = open_shard(path)
        except OSError as error:
            raise Refused(printable(path), f"cannot be read ({error.strerror})", "name a parquet file") from error
        os.close(file)
        found.append(f"{os.path.realpath(path)} {stamp}")
    return "\0".join(found)


def open_copy(root: Path, paths: list[Path], request: Request) -> Copied:
    """The images' bytes in the cache, copied there now if they are not, or no longer what they were."""
    asked = json.dumps([request.options.get(name) for name in ("image_column", "label_column")])
    place = arrays_path(f"parquet/{os.path.realpath(root)}/{asked}")
    stamp = hashlib.blake2b(f"{stamp_of(paths)}\0{asked}".encode("utf-8", "surrogateescape")).hexdigest()
    with held(place, request.progress):
        return read_copy(place, stamp, len(paths)) or make_copy(place, stamp, paths, request)


def read_copy(place: Path, stamp: str, files: int) -> Copied | None:
    """The copy that `make_copy` left, if it is whole and could be true."""
    known = read_arrays(place, f"parquet, labels by name {stamp}", SHAPES)
    if known is None:
        return None
    try:
        found = Copied.from_arrays(place.with_suffix(".images"), {name: array.numpy() for name, array in known.items()})
        file, stamp = open_shard(found.path)
        os.close(file)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    size = int(stamp.split()[0])
    inside = (
        (found.offsets >= 0) & (found.sizes >= 0) & (found.sizes <= MAX_IMAGE) & (found.offsets <= size - found.sizes)
    )
    good = inside & (found.labels >= 0) & (found.labels < len(found.classes))
    good &= (found.rows[:, 0] >= 0) & (found.rows[:, 0] < files)
    return found if stamp == found.stamp and len(good) and good.all() else None


def make_copy(place: Path, stamp: str, paths: list[Path], request: Request) -> Copied:
    """Copies the images of all rows into the cache, and notes where each lies.

    Raises:
        Refused: there is no room for it; a file is damaged, or its columns cannot be told.
        Failed: the copy cannot be written.
    """
    check_installed()
    target, size = place.with_suffix(".images"), sum(path.stat().st_size for path in paths)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(place.parent).free < size + ROOM:
            why = f"there is no room for a copy of its images ({size:,} bytes)"
            raise Refused(printable(place.parent), why, "free some space, or set XDG_CACHE_HOME to another disk")
        if size >= SAID:
            warn(f"parquet: {size >> 20:,} MB of images are copied once to {printable(place.parent)}")
        with replacing(target) as out:
            copied = copy_rows(paths, request.options, out, request.progress)
        file, copied_stamp = open_shard(target)
        os.close(file)
    except OSError as error:
        why = f"a copy of the images cannot be written ({error.strerror or error})"
        raise Failed(printable(place.parent), why, "set XDG_CACHE_HOME to a folder that can be written") from error
    copied = copied.at(target, copied_stamp)
    write_arrays(place, f"parquet, labels by name {stamp}", copied.to_arrays())
    return copied


def divide(what: str, root: Path, paths: list[Path], copy: Copied) -> tuple[Tensor, Tensor]:
    """The numbers of the training images and of the test images, int64 each, in order.

    Raises:
        Refused: no file is for training.
    """
    called = [str(path.relative_to(root)) if path != root else path.stem for path in paths]
    parts, file_of = parts_by_name([name.removesuffix(Path(name).suffix) for name in called]), copy.rows[:, 0]
    if parts.left:
        warn(f"{what}: left out: {names([called[n] for n in parts.left])}")
    if parts.test and parts.train:
        train, test = (torch.from_numpy(np.isin(file_of, part).nonzero()[0]) for part in (parts.train, parts.test))
        if len(train) and len(test):
            return train, test
        raise Refused(what, "the files of one part hold no images", "name files with images of both parts")
    if not parts.train and len(paths) > 1:
        raise Refused(what, f"{plural(len(paths), 'file')} for testing and none for training", "add the training files")
    names_of_rows = (os.fsencode(f"{called[file]}:{row}") for file, row in copy.rows.tolist())
    chosen = np.isin(file_of, parts.train) if parts.train else np.ones(len(file_of), dtype=bool)
    index = torch.from_numpy(chosen.nonzero()[0])
    kept = [name for name, take in zip(names_of_rows, chosen, strict=True) if take]
    train, test = stratified(what, copy.classes, copy.labels[chosen], kept)
    return index[train], index[test]
