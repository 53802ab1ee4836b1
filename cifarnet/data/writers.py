"""Both splits of a data set as files of a layout, and those files read back."""

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifarnet.core.plain_file import read_bytes
from cifarnet.data.dataset import Dataset, Split
from cifarnet.data.registry import load
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.cifar import SETS
from cifarnet.data.sources.origin import SUBSTITUTED
from cifarnet.storage.atomic import replacing, write_new

GROUP = 5000  # rows of a parquet file that are written together: 12 MB of PNG
EACH = 500  # images between two signs of progress


class Counter:
    """How many of `total` images are written."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def add(self, count: int = 1) -> None:
        self.done += count
        if self.progress and (self.done % EACH < count or self.done == self.total):
            self.progress(self.done, self.total)


def splits(data: Dataset) -> list[tuple[str, Split]]:
    """Name and images of each split."""
    both = (("train", data.train), ("test", data.test))
    return [(name, split) for name, split in both if isinstance(split, Split)]


def write_binary(data: Dataset, superclasses: Dataset | None, place: Path, done: Counter) -> None:
    """The official files of CIFAR: records of the label bytes, then 3072 pixels in planes of red, green and blue."""
    cifar = SETS[data.name]
    folder = place / cifar.archive.folder
    folder.mkdir()
    for (_, split), names in zip(splits(data), (cifar.train, cifar.test), strict=True):
        columns = [split.labels.numpy()[:, None]]
        if len(cifar.label_classes) == 2:
            assert superclasses is not None
            coarse = superclasses.train if names is cifar.train else superclasses.test
            columns.insert(0, coarse.labels.numpy()[:, None])
        records = np.hstack([*columns, split.images.flatten(1).numpy()]).astype(np.uint8)
        first = 0
        for name in names:
            count = cifar.archive.files[name] // cifar.record
            write_new(folder / name, records[first : first + count].tobytes())
            first += count
            done.add(count)
        if first != len(split):
            raise ValueError(f"{len(split)} images, and the official files have {first}")
    if data.found and any(data.substituted) and (data.found.path / SUBSTITUTED).is_file():
        # It names files and records of these.
        write_new(folder / SUBSTITUTED, read_bytes(data.found.path / SUBSTITUTED))


def write_images(data: Dataset, place: Path, done: Counter) -> None:
    """`{train,test}/<class>/<number>.png`, where the number is that of the image in its split."""
    for name, split in splits(data):
        folders = [place / name / label for label in data.classes]
        for folder in folders:
            folder.mkdir(parents=True)
        for index, (label, png) in enumerate(pngs(split)):
            write_new(folders[label] / f"{index:05d}.png", png)
            done.add()


def write_parquet(data: Dataset, place: Path, done: Counter) -> None:
    """`{train,test}-00000-of-00001.parquet` as the Hugging Face hub has them, class names included."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    label = {"names": list(data.classes), "_type": "ClassLabel"}
    about = {"info": {"features": {"img": {"_type": "Image"}, "label": label}}}
    schema = pa.schema([("img", image), ("label", pa.int64())], {"huggingface": json.dumps(about)})
    for name, split in splits(data):
        with replacing(place / parquet_name(name)) as file, pq.ParquetWriter(file, schema) as writer:
            rows: list[dict[str, Any]] = []
            for index, (number, png) in enumerate(pngs(split), start=1):
                rows.append({"img": {"bytes": png, "path": f"{index - 1:05d}.png"}, "label": number})
                if len(rows) == GROUP or index == len(split):
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
                done.add()


def parquet_name(split: str) -> str:
    """The file of a split, which is in one piece."""
    return f"{split}-00000-of-00001.parquet"


def pngs(split: Split) -> Iterator[tuple[int, bytes]]:
    """Label and PNG of each image."""
    for image, label in zip(split.images, split.labels.tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "png")
        yield label, buffer.getvalue()


def read_back(data: Dataset, layout: str, out: Path) -> Dataset:
    """The data set in `out`, which was written from `data`, as any user's is read."""
    if layout == "binary":
        return load(data.name, out, download=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*images from the column", UserWarning)  # which are those just written
        return load(layout, out)
