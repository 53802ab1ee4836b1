"""CIFAR as the Hugging Face hub has it: parquet files whose rows hold a PNG and its labels. Decoded once, then kept in the cache."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import open_plain
from cifarnet.data.images.cache import arrays_path, held, read_arrays, write_arrays
from cifarnet.data.images.decode import read_square_bytes
from cifarnet.data.images.open import ImageError
from cifarnet.data.images.square import Square
from cifarnet.data.images.streamed import StreamedSplit, cores
from cifarnet.data.sources.cifar_layouts import PARQUET, Records, Source, files_of
from cifarnet.data.sources.cifar_sets import PIXELS, Cifar

IMAGE_COLUMNS = ("img", "image")
SIDE = 32
PNG = b"\x89PNG\r\n\x1a\n"
PIECE, FEW = 256, 8  # images that a process decodes at a time; pieces for which no processes are started
LARGEST = 2_000_000_000  # bytes that the columns may take in memory
KIND = "cifar parquet"
SHAPES = {"pixels": (torch.uint8, 2), "labels": (torch.uint8, 2)}


def look_for_parquet(cifar: Cifar, place: Path) -> Source | None:
    """The parquet files of both splits, in `place` or in their own folder in it."""
    for folder in (place / cifar.parquet[1], place):
        files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
        if all(files.values()):
            return Source(PARQUET, folder, reader(cifar, files))
    return None


def reader(cifar: Cifar, files: dict[str, list[Path]]) -> Callable[[str], Iterator[Records]]:
    """The reader of a split: from the cache, where these very files were decoded before."""

    def read(split: str) -> Iterator[Records]:
        paths = files[split]
        kept = arrays_path(f"{KIND} {cifar.title} {os.path.realpath(paths[0])}")
        with held(kept):
            stamp = json.dumps([KIND, *map(stamp_of, paths)])
            arrays = read_arrays(kept, stamp, SHAPES)
            if arrays is None:
                pixels, labels = decode_files(cifar, paths, cifar.count(*files_of(cifar, split)))
                write_arrays(kept, stamp, {"pixels": pixels, "labels": labels})
            else:
                pixels, labels = arrays["pixels"].numpy(), arrays["labels"].numpy()
        yield Records(str(paths[0]), labels, pixels)

    return read


def stamp_of(path: Path) -> list[Any]:
    """Plain values that change when a file does."""
    try:
        facts = path.stat()
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})") from error
    return [path.name, facts.st_size, facts.st_mtime_ns]


def decode_files(cifar: Cifar, paths: list[Path], count: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows: uint8 [count, 3072] pixels and uint8 [count, label bytes]."""
    pixels, labels, done = np.empty((count, PIXELS), np.uint8), [], 0
    for path in paths:
        table = read_table(cifar, path)
        if done + table.num_rows > count:
            raise Refused(str(path), f"there are more than the {plural(count, 'image')} of {cifar.title}")
        images = table.column(0).combine_chunks()
        images = images.field("bytes") if hasattr(images.type, "fields") else images
        if any(column.null_count for column in (images, *table.columns[1:])):
            raise Refused(str(path), "it has rows without an image or a label")
        labels.append(np.stack([column.to_numpy() for column in table.columns[1:]], axis=1))
        rows = StreamedSplit(PngRows(path, images), torch.zeros(len(images), dtype=torch.int64), SIDE)
        pieces = torch.arange(len(rows)).split(PIECE)
        for found, _, errors in rows.decode(pieces, cores() if len(pieces) > FEW else 0):
            if errors:
                raise Refused(*errors[0])
            pixels[done : done + len(found)] = found.reshape(len(found), -1)
            done += len(found)
    if done != count:
        raise Refused(str(paths[0]), f"there are {plural(done, 'image')}, not the {count:,} of {cifar.title}")
    together = np.concatenate(labels)
    if together.min(initial=0) < 0 or together.max(initial=0) > 255:
        raise Refused(str(paths[0]), "it has a label that is none")
    return pixels, together.astype(np.uint8)


def read_table(cifar: Cifar, path: Path) -> Any:
    """The column of images, then those of labels, as a table."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        fix = 'pip install "cifarnet[parquet]"'
        raise Refused(str(path), "parquet is read by pyarrow, which is not installed", fix) from error
    try:
        with open_plain(path) as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            names = parquet.schema_arrow.names
            image = next((name for name in IMAGE_COLUMNS if name in names), IMAGE_COLUMNS[0])
            missing = [name for name in (image, *cifar.label_columns) if name not in names]
            if missing:
                why = f"it has no column {missing[0]}, as {cifar.title} has"
                raise Refused(str(path), why, "`dataset=parquet` reads other sets")
            groups = (parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > LARGEST:
                raise Refused(str(path), f"it holds more than {LARGEST:,} bytes")
            return check_types(path, parquet.read([image, *cifar.label_columns]).select([image, *cifar.label_columns]))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Refused(str(path), f"cannot be read as parquet ({str(error).splitlines()[0]:.200})") from error


def check_types(path: Path, table: Any) -> Any:
    """The table, once its first column is seen to hold bytes, or a struct with bytes, and the others whole numbers."""
    import pyarrow.types as kinds

    first, others = table.schema.types[0], table.schema.types[1:]
    if kinds.is_struct(first):
        at = first.get_field_index("bytes")
        first = first.field(at).type if at >= 0 else first
    if not (kinds.is_binary(first) or kinds.is_large_binary(first)) or not all(map(kinds.is_integer, others)):
        raise Refused(str(path), "its columns are not images and labels", "`dataset=parquet` reads other sets")
    return table


class PngRows:
    """The PNGs of a file, as what decodes images in several processes wants them."""

    def __init__(self, path: Path, images: Any) -> None:
        self.path, self.images = path, images  # an array of pyarrow's: nothing is copied where a worker reads it

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"row {index} of {self.path}"

    def read(self, index: int, size: int, hashed: bool = False) -> Square:
        """The image of a row. Raises ImageError: it is no PNG of 32x32 pixels, or damaged."""
        name, row = self.name(index), self.images[index].as_py()
        width, height = (int.from_bytes(row[at : at + 4], "big") for at in (16, 20))
        if not row.startswith(PNG) or (width, height) != (SIDE, SIDE):
            raise ImageError(name, f"is no PNG of {SIDE}x{SIDE} pixels")
        return read_square_bytes(name, row, size, hashed=hashed)

    def take(self, indices: np.ndarray) -> "PngRows":
        return PngRows(self.path, self.images.take(indices))

    def digest(self) -> str:
        return ""  # nobody asks: the pixels are in memory soon
