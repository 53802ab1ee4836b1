"""The rows of parquet files: the images' bytes copied into one file, and the number of each one's class."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.core.plain_file import open_plain
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.labels import encode_labels
from cifarnet.data.sources.left_out import LeftOut
from cifarnet.data.sources.parquet_columns import class_names, find_columns
from cifarnet.data.sources.tar_index import MAX_IMAGE

BATCH = 256  # rows that are in memory at a time


@dataclass(frozen=True)
class Copied:
    """Images of parquet files, their bytes in one file.

    Args:
        path, stamp: that file, with its size and time of change.
        offsets, sizes: int64 [N], where each image lies in it.
        labels: int64 [N], class numbers.
        rows: int64 [N, 2], of each image the number of its parquet file, and its row there.
        classes: their names.
        image, label: the columns.
        left: rows that are no part of the set.
    """

    path: Path
    stamp: str
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...]
    image: str
    label: str
    left: LeftOut

    def at(self, path: Path, stamp: str) -> "Copied":
        """The same in this file."""
        return replace(self, path=path, stamp=stamp)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For `write_arrays`; `from_arrays` reads them."""
        left = [(*kind, count) for kind, count in self.left.items()]
        notes = json.dumps([self.stamp, self.classes, self.image, self.label, left]).encode()
        arrays = {name: getattr(self, name) for name in ("offsets", "sizes", "labels", "rows")}
        return arrays | {"notes": np.frombuffer(notes, np.uint8)}

    @classmethod
    def from_arrays(cls, path: Path, arrays: dict[str, np.ndarray]) -> "Copied":
        """Raises ValueError or TypeError where these are no such arrays."""
        stamp, classes, image, label, left = json.loads(bytes(arrays.pop("notes")))
        texts = [stamp, image, label, *classes]
        lengths = {len(array) for array in arrays.values()}
        if not all(isinstance(text, str) for text in texts) or len(lengths) != 1 or arrays["rows"].shape[1] != 2:
            raise ValueError("not what was written")
        counts = LeftOut({(str(reason), str(kind)): int(count) for reason, kind, count in left})
        return cls(path, stamp, **arrays, classes=tuple(classes), image=image, label=label, left=counts)


def check_installed() -> None:
    """Raises Refused where pyarrow is absent."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise Refused(
            "`dataset=parquet`", "the pyarrow package is not installed", 'pip install "cifarnet[parquet]"'
        ) from error


def copy_rows(
    paths: Sequence[Path], options: Mapping[str, Any], out: BinaryIO, progress: ProgressCallback | None
) -> Copied:
    """Writes the images' bytes to `out`, one after the other, and tells where each lies (`path` and `stamp` are not yet known).

    Raises:
        Refused: a file is damaged, columns cannot be told, or a label is no class.
        OSError: `out` cannot be written.
    """
    left, places, labels = LeftOut(), [], []
    image = label = ""
    orders = [names_in(path, options) for path in paths]
    known = all_names(orders)
    # A file that names no classes numbers them as the others do, where these agree.
    agreed = known if all(order in (None, known) for order in orders) else None
    written = 0
    for number, path in enumerate(paths):
        with OpenTable(path) as table:
            image, label = find_columns(path, table.schema, options)
            for row, data, value in table.rows(image, label):
                if data is None or value is None or value == -1:
                    left["rows without an image" if data is None else "rows without a label", ""] += 1
                    continue
                if len(data) > MAX_IMAGE:
                    raise Refused(f"{printable(path)}, row {row}", f"has {len(data):,} bytes", "make it smaller")
                if known and isinstance(value, int):
                    value = name_of(value, path, orders[number] or agreed)
                out.write(data)
                places.append((written, len(data), number, row))
                labels.append(value)
                written += len(data)
                if progress and row % (8 * BATCH) == 0:
                    progress(number, len(paths))
    if not places:
        raise Refused(
            printable(paths[0]),
            "no row has an image and a label",
            "name the columns with `image_column` and `label_column`",
        )
    classes, of_rows = as_classes(labels, known)
    offsets, sizes, files, rows = np.array(places, dtype=np.int64).T
    rows = np.stack([files, rows], axis=1)
    return Copied(Path(), "", offsets.copy(), sizes.copy(), of_rows, rows, classes, image, label, left)


def as_classes(labels: Sequence[Any], known: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and int64 [N], the labels as their numbers; where a label is no known class, all are those of the labels."""
    texts = [composed(str(label)) for label in labels]
    place = {name: number for number, name in enumerate(known or ())}
    if not place.keys() >= set(texts):
        return encode_labels(texts)
    return tuple(place), np.array([place[text] for text in texts], dtype=np.int64)


def name_of(label: int, path: Path, names: Sequence[str] | None) -> str:
    """The name of the class that is a label of this file.

    Raises:
        Refused: it is no number of a class that is named, or the file names none and the others do in several orders.
    """
    if names is None:
        why = "has numbers as labels and no names for them, and other files number their classes differently"
        raise Refused(printable(path), why, "write the names into each file, or labels as text")
    if not 0 <= label < len(names):
        why = f"has the label {label}, and names of {plural(len(names), 'class')}"
        raise Refused(printable(path), why, "write the labels again, counted from 0")
    return names[label]


def names_in(path: Path, options: Mapping[str, Any]) -> list[str] | None:
    """The names that a file gives its classes, if it does. Raises Refused as `copy_rows`."""
    with OpenTable(path) as table:
        return class_names(table.schema, find_columns(path, table.schema, options)[1])


def all_names(orders: Sequence[list[str] | None]) -> list[str] | None:
    """The names of all files' classes, in the order of the last file that has some; None where none has."""
    given = [names for names in reversed(orders) if names]
    return list(dict.fromkeys(name for names in given for name in names)) or None


class OpenTable:
    """A parquet file that is open; what pyarrow raises is refused by the file's name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "OpenTable":
        import pyarrow.parquet as pq

        try:
            self.file = open_plain(self.path)
        except OSError as error:
            raise Refused(printable(self.path), f"cannot be read ({error.strerror})", "name a parquet file") from error
        try:
            self.table = pq.ParquetFile(self.file)
            self.schema = self.table.schema_arrow
        except Exception as error:  # of a damaged file it may be anything
            self.file.close()
            raise self.damaged(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def rows(self, image: str, label: str) -> Iterator[tuple[int, bytes | None, Any]]:
        """Of each row its number, the image's bytes and the label; None where one is missing."""
        row = 0
        batches = self.table.iter_batches(BATCH, columns=[image, label], use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                found = list(zip(*(batch.column(name).to_pylist() for name in (image, label)), strict=True))
            except Exception as error:
                raise self.damaged(error) from error
            for data, value in found:
                yield row, data.get("bytes") if isinstance(data, dict) else data, value
                row += 1

    def damaged(self, error: Exception) -> Exception:
        """The error for what pyarrow raised. (That memory ran out says nothing about the file.)"""
        if isinstance(error, MemoryError):
            return error
        text = printable(str(error).splitlines()[0][:200] if str(error) else type(error).__name__)
        return Refused(printable(self.path), f"is no parquet file, or is damaged ({text})", "fetch or write it again")
