"""CIFAR-10 and CIFAR-100: found in the layouts that people have them in, checked, and read. Nothing in a file is ever run."""

import os
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.core.warn import warn
from cifarnet.data.dataset import Dataset, Split, make_dataset, resize_all
from cifarnet.data.found import DIFFERS, EXACT, UNVERIFIED, Found, patched
from cifarnet.data.request import Request, cache_folder
from cifarnet.data.sources.cifar_layouts import AGAIN, PYTHON, Source, batch_name, files_of
from cifarnet.data.sources.cifar_places import look, searched, sources
from cifarnet.data.sources.cifar_sets import OFFICIAL as OFFICIAL
from cifarnet.data.sources.cifar_sets import SETS, Cifar
from cifarnet.data.sources.fetch_archive import fetch_archive
from cifarnet.data.sources.origin import count_substituted, digest, known_exact, note_exact
from cifarnet.storage.new_folder import sweep_folders

SIDE = 32  # pixels


def load_cifar10(request: Request) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 images of 10 classes (A. Krizhevsky, Learning Multiple Layers of Features, 2009)."""
    return load("cifar10", request)


def load_cifar100(request: Request) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 images of 100 classes in 20 superclasses (A. Krizhevsky, 2009)."""
    return load("cifar100", request)


def load(name: str, request: Request) -> Dataset:
    """Find the files, else download them; check and read them.

    Raises:
        Refused: missing, of the wrong size, damaged, with a label out of range, or what is no plain data.
        Failed: the download was cut short.
    """
    cifar = SETS[name]
    with suppress(OSError):  # there may be no cache, or one that cannot be listed
        sweep_folders(cache_folder())
    for source in sources(cifar, request):
        try:
            data = read(name, source, request)
        except Refused as error:
            if not source.owner:
                raise
            warn(f"{error}; left alone, as it is {source.owner}'s")
            continue
        say_where(cifar, source, request)
        return data
    return read(name, obtain(cifar, request), request, fetched=True)


def say_where(cifar: Cifar, source: Source, request: Request) -> None:
    """A warning where the files lie in another place than one would think."""
    where = str(source.path) + (f", in the cache of {source.owner}" if source.owner else "")
    if request.data_dir is not None and not source.path.is_relative_to(os.path.abspath(request.data_dir)):
        if os.path.isdir(request.data_dir):  # else it is a file, and its folder is read
            warn(f"{cifar.title} is not in {request.data_dir}: it is read from {where}")
    elif source.owner:
        warn(f"{cifar.title} is read from {where}")


def find(cifar: Cifar, request: Request) -> Source:
    """The first place that holds the set; it is downloaded into the cache where there is none.

    Raises:
        Refused, Failed: as `load`; files are not read yet, but for an archive.
    """
    return next(sources(cifar, request), None) or obtain(cifar, request)


def obtain(cifar: Cifar, request: Request) -> Source:
    """The set, downloaded: mirrors have the Python batches."""
    archives = [cifar.python, cifar.archive]
    fetch_archive(archives, cifar.title, searched(request), request.download, request.progress)
    source = look(cifar, cache_folder())
    assert source is not None
    return source


def read(name: str, source: Source, request: Request, fetched: bool = False) -> Dataset:
    """The data set in a place that was found; `fetched`: its archive was checked a moment ago."""
    cifar = SETS[name]
    column = 0 if request.options.get("coarse") else len(cifar.label_classes) - 1
    states: list[str] = []
    splits = [read_split(cifar, source, split, column, states) for split in ("train", "test")]
    status = EXACT if fetched or set(states) == {EXACT} else DIFFERS if DIFFERS in states else UNVERIFIED
    substituted: tuple[int, ...] = (0, 0)
    if status != EXACT and source.path.is_dir():
        substituted = count_substituted(source.path, *(names_of(cifar, split) for split in ("train", "test")))
    if any(substituted):
        status = patched(sum(substituted))
    elif (known := known_exact(note := f"{name}-{column}")) == "" and status == EXACT:
        note_exact(note, digest(*splits))
    elif known and status != EXACT:
        status = EXACT if digest(*splits) == known else status
    say_doubt(cifar, source, status)
    train, test = (resized(split, request.image_size) for split in splits)
    data = make_dataset(name, cifar.label_classes[column], train, test)
    return replace(data, substituted=substituted, found=Found(source.layout, source.path, status))


def say_doubt(cifar: Cifar, source: Source, status: str) -> None:
    """A warning where the files have the names of published ones and are not those."""
    if status == DIFFERS:
        why = f"has the name and size of what was published as {cifar.title}, but not its checksum; it is used as it is"
        warn(f"{source.path}: {why}")
    elif source.layout == PYTHON and status == UNVERIFIED:
        warn(f"{source.path}: Python layout, not the published files of {cifar.title}")


def names_of(cifar: Cifar, split: str) -> dict[str, int]:
    """The files of a split, by the names of binary files and of Python batches, and how many images each has."""
    files = files_of(cifar, split)
    counts = {file: cifar.count(file) for file in files}
    return counts | {batch_name(file): count for file, count in counts.items()}


def read_split(cifar: Cifar, source: Source, split: str, column: int, states: list[str]) -> Split:
    """The records of a split, every label checked; the status of each file is added to `states`."""
    total = cifar.count(*files_of(cifar, split))
    images, labels = torch.empty(total, 3, SIDE, SIDE, dtype=torch.uint8), torch.empty(total, dtype=torch.int64)
    done = 0
    for records in source.read(split):
        end = done + len(records.labels)
        for byte, classes in enumerate(cifar.label_classes):
            check_labels(records.title, torch.from_numpy(records.labels[:, byte].astype("int64")), len(classes))
        images[done:end].numpy().reshape(end - done, -1)[:] = records.pixels
        labels[done:end].numpy()[:] = records.labels[:, column]
        states.append(records.status)
        done = end
    return Split(images, labels)


def resized(split: Split, size: int) -> Split:
    """The images in another size, which keep the hashes that they had."""
    return split if size == SIDE else Split(resize_all(split.images, size), split.labels, split.image_hashes)


def check_labels(title: str, labels: Tensor, classes: int) -> None:
    """Refuse a label that names no class, by file and record (counted from 0)."""
    wrong = (labels >= classes).nonzero().flatten()
    if len(wrong):
        record = int(wrong[0])
        raise Refused(
            title,
            f"record {record} has the label {int(labels[record])}, above {classes - 1}",
            f"the file is damaged: {AGAIN}",
        )
