"""CIFAR-10 and CIFAR-100 from the official binary files: found, checked byte for byte, and read. Never a pickle."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import open_plain
from cifarnet.data.dataset import Dataset, Split, make_dataset, resize_all
from cifarnet.data.request import Request, cache_folder
from cifarnet.data.sources import archive
from cifarnet.data.sources.archive import Archive
from cifarnet.data.sources.cifar_names import CIFAR10, CIFAR100_COARSE, CIFAR100_FINE
from cifarnet.data.sources.origin import count_substituted

PIXELS = 3 * 32 * 32
OFFICIAL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Cifar:
    """One of the two sets: its archive and the layout of a record, `labels` then 3072 pixels (R, G, B planes).

    Args:
        title: as its authors write it.
        archive: the official binary archive.
        train, test: the files of the two splits.
        label_classes: class names of each label byte, in the order of the bytes.
        pickles: names that the Python version goes by, which is not read.
    """

    title: str
    archive: Archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_classes: tuple[tuple[str, ...], ...]
    pickles: tuple[str, ...]

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return len(self.label_classes) + PIXELS


SETS = {
    "cifar10": Cifar(
        title="CIFAR-10",
        archive=Archive(
            url=OFFICIAL + "cifar-10-binary.tar.gz",
            size=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            folder="cifar-10-batches-bin",
            files={f"data_batch_{i}.bin": 30_730_000 for i in range(1, 6)} | {"test_batch.bin": 30_730_000},
        ),
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        label_classes=(CIFAR10,),
        pickles=("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"),
    ),
    "cifar100": Cifar(
        title="CIFAR-100",
        archive=Archive(
            url=OFFICIAL + "cifar-100-binary.tar.gz",
            size=168_513_733,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            folder="cifar-100-binary",
            files={"train.bin": 153_700_000, "test.bin": 30_740_000},
        ),
        train=("train.bin",),
        test=("test.bin",),
        label_classes=(CIFAR100_COARSE, CIFAR100_FINE),
        pickles=("cifar-100-python", "cifar-100-python.tar.gz"),
    ),
}


def load_cifar10(request: Request) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 images of 10 classes (A. Krizhevsky, Learning Multiple Layers of Features, 2009)."""
    return load("cifar10", request)


def load_cifar100(request: Request) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 images of 100 classes in 20 superclasses (A. Krizhevsky, 2009)."""
    return load("cifar100", request)


def load(name: str, request: Request) -> Dataset:
    """Find the files, else download them; check and read them.

    Raises:
        Refused: missing, of the wrong size or checksum, or with a label out of range.
        Failed: the download was cut short.
    """
    cifar = SETS[name]
    source = find(cifar, request)
    column = 0 if request.options.get("coarse") else len(cifar.label_classes) - 1
    splits = cifar.train, cifar.test
    train, test = (read_split(cifar, files, source.read, column, request.image_size) for files in splits)
    dataset = make_dataset(name, cifar.label_classes[column], train, test)
    if source.folder is None:
        return dataset
    records = ({file: cifar.archive.files[file] // cifar.record for file in files} for files in splits)
    return replace(dataset, substituted=count_substituted(source.folder, *records))


Reader = Callable[[str], tuple[str, bytes]]  # file name -> (what to call it in a message, its bytes)


@dataclass(frozen=True)
class Source:
    """Where a set was found: what reads its files, and the folder that they lie in, None where that is an archive."""

    read: Reader
    folder: Path | None = None


def find(cifar: Cifar, request: Request) -> Source:
    """Look in the data dir, then in the cache; download into the cache what is in neither."""
    looked_in = [cache_folder()]
    if request.data_dir is not None:
        if not request.data_dir.is_dir():
            raise Refused(f"`data_dir={request.data_dir}`", "there is no such folder")
        looked_in.insert(0, request.data_dir)
    for folder in looked_in:
        if source := look(cifar, folder):
            return source
    for folder in looked_in:
        for pickle in cifar.pickles:
            if (folder / pickle).exists() or folder.name == pickle:
                raise Refused(
                    str(folder if folder.name == pickle else folder / pickle),
                    f"this is the Python version of {cifar.title}, a pickle, and unpickling runs code from the file",
                    f"fetch the binary version with `curl -LO {cifar.archive.url}` and name its folder with `data_dir`",
                )
    archive.obtain([cifar.archive], cifar.title, looked_in, request.download, request.progress)
    source = look(cifar, cache_folder())
    assert source is not None
    return source


def look(cifar: Cifar, folder: Path) -> Source | None:
    """The files in `folder`: loose, in their own subfolder, or in the archive. None when it has none."""
    files = cifar.archive.files
    for place in (folder / cifar.archive.folder, folder):
        missing = [name for name in files if not os.path.lexists(place / name)]
        if len(missing) < len(files):
            if missing:
                raise Refused(str(place), f"{', '.join(missing)} missing", "unpack the archive again")
            return Source(lambda name, place=place: (str(place / name), read_file(place / name, files[name])), place)  # type: ignore[misc]
    path = folder / cifar.archive.name
    if path.exists():
        contents = archive.read(path, cifar.archive)
        return Source(lambda name: (f"{name} in {path}", contents[name]))
    return None


def read_file(path: Path, size: int) -> bytes:
    """A file's bytes, once its size is as it should be."""
    try:
        with open_plain(path) as file:
            actual = os.fstat(file.fileno()).st_size
            if actual == size:
                return file.read(size)
        raise Refused(str(path), f"it has {plural(actual, 'byte')}, not {size:,}", "unpack the archive again")
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})") from error


def read_split(cifar: Cifar, files: tuple[str, ...], read: Reader, column: int, image_size: int) -> Split:
    """The records of `files`, every label byte checked."""
    images, labels = [], []
    for name in files:
        title, data = read(name)
        records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, cifar.record).copy())
        for byte, classes in enumerate(cifar.label_classes):
            check_labels(title, records[:, byte], len(classes))
        labels.append(records[:, column].to(torch.int64))
        images.append(records[:, len(cifar.label_classes) :].reshape(-1, 3, 32, 32))
    return Split(resize_all(torch.cat(images), image_size), torch.cat(labels))


def check_labels(title: str, labels: Tensor, classes: int) -> None:
    """Refuse a label that names no class, by file and record (counted from 0)."""
    wrong = (labels >= classes).nonzero().flatten()
    if len(wrong):
        record = int(wrong[0])
        raise Refused(
            title,
            f"record {record} has the label {int(labels[record])}, above {classes - 1}",
            "the file is damaged: unpack the archive again",
        )
