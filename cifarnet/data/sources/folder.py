"""Image folders, `train/<class>/*` and `test/<class>/*` or `<class>/*`: in memory where they fit, else streamed from the disk."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused
from cifarnet.core.warn import warn
from cifarnet.data.dataset import Dataset
from cifarnet.data.found import Found
from cifarnet.data.images.decode import Square, printable, read_square
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.listing import walk
from cifarnet.data.images.streamed import StreamedSplit, hash_arrays
from cifarnet.data.request import Request
from cifarnet.data.sources.layouts import TEST, TRAIN, VAL, cifar_of_names, find_root, holds_images, look, split_folders
from cifarnet.data.sources.left_out import LeftOut
from cifarnet.data.sources.splits import stratified
from cifarnet.data.sources.wrong_folder import SHAPE, refuse_shape, refuse_unlike


def load_folder(request: Request) -> Dataset:
    """An image folder; classes are the subfolders of `train`, in the order of their names.

    The parts have any of the usual names; where no test part is there, one is made (`stratified`). All images in and
    below a class's folder are its images, in the order in which torchvision's ImageFolder takes them; hidden ones and
    links to folders are left out.

    Images may have any size and any format that `read_square` takes; each is squeezed into a square of the image size.
    The first start decodes all of them, for the training set's mean and standard deviation and to find unreadable
    ones, and leaves an index in the user's cache (index.py). Each start lists the folder anew. An image that was added,
    removed, renamed, or changed in its size or its time of change is noticed, and it alone is decoded. Not noticed is
    new content of the same size under the same time (which a program has to set on purpose).

    Raises:
        Refused: no classes, a class without images, or images that cannot be read, by name.
    """
    if request.data_dir is None:
        raise Refused("data_dir", "an image folder needs it", "name the folder that holds train/ and test/")
    root, trained, tested = find_parts(request.data_dir)
    classes = list_classes(trained)
    parts = [(trained, classes)]
    if tested:
        parts.append((tested, theirs := list_classes(tested)))
        if theirs.keys() != classes.keys():
            alone = {trained.name: classes.keys() - theirs.keys(), tested.name: theirs.keys() - classes.keys()}
            raise refuse_unlike(root, alone)
    left = LeftOut()
    files, keys, labels, starts = list_files(root, parts, left)
    what = printable(root)
    left.say(what)
    if tested:
        train, test = torch.arange(len(files)).tensor_split([starts[1]])
    else:
        train, test = stratified(what, list(classes), labels, relative_names(files, trained))
    whole = StreamedSplit(files, torch.from_numpy(labels), request.image_size)
    found = Found("image folder", root, left_out=left.as_pairs())
    listing = Listing("folder", tuple(map(printable, classes)), whole, keys, train, test, os.path.realpath(root), found)
    return indexed_dataset(listing, request.progress)


def find_parts(given: Path) -> tuple[Path, Path, Path | None]:
    """The folder that holds the parts, the one of training, and that of testing, None where there is none.

    Raises:
        Refused: it cannot be read, or holds nothing of this kind.
    """
    try:
        root = find_root(given)
        parts = split_folders(root)
    except OSError as error:
        raise refuse_shape(given, error) from error
    if root != given:
        warn(f"{printable(given)}: the images are taken from {printable(root.relative_to(given))}/ in it")
    for found in parts.values():
        if len(found) > 1:
            raise Refused(printable(root), f"the folders {names(found)} have the same meaning", "leave one of them")
    trained, *others = (parts.get(role, [None])[0] for role in (TRAIN, TEST, VAL))
    tested = others[0] or others[1]
    if trained is None and tested is None:
        if len(look(root).folders) < 2 or cifar_of_names(look(root).folders):
            raise refuse_shape(root)
        return root, root, None
    if trained is None:
        raise Refused(printable(root), f"there is the folder {tested} and none for training", SHAPE)
    beside = sorted(name for name in set(look(root).folders) - {trained, tested} if holds_images(root / name))
    if beside:
        used = f"{trained} and {tested}" if tested else trained
        warn(f"{printable(root)}: left out: {names(beside)} (the set is {used})")
    return root, root / trained, root / tested if tested else None


@dataclass(frozen=True, eq=False)
class Files:
    """Image files in folders.

    Args:
        folders: the folders.
        folder_of: int32 [N], an index into them.
        names: bytes of a fixed width [N], names in the folder.
        sizes: int64 [N], bytes of each file.
    """

    folders: tuple[str, ...]
    folder_of: np.ndarray
    names: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """The file of image `index`."""
        return os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index]))

    def name(self, index: int) -> str:
        """The same, fit for a terminal."""
        return printable(self.path(index))

    def read(self, index: int, size: int, hashed: bool = False) -> Square:
        """Image `index`, its hash too where `hashed`; raises ImageError."""
        return read_square(self.path(index), size, hashed=hashed)

    def take(self, indices: np.ndarray) -> "Files":
        """The files at `indices`."""
        return Files(self.folders, self.folder_of[indices], self.names[indices], self.sizes[indices])

    def digest(self) -> str:
        """Hex digits over name, folder and size of each, wherever the folders are."""
        return hash_arrays(self.folder_of, self.names, self.sizes)


Classes = dict[str, list[str]]  # of each class, in the order of their names, its folders


def list_classes(folder: Path) -> Classes:
    """The class folders by their names in one Unicode form; of a class whose name is there in two, both. Without hidden ones."""
    found: Classes = {}
    try:
        for name in sorted(look(folder).folders, key=composed):
            found.setdefault(composed(name), []).append(name)
    except OSError as error:
        raise refuse_shape(folder, error) from error
    if len(found) < 2:
        raise refuse_shape(folder)
    return found


def list_files(
    root: Path, parts: list[tuple[Path, Classes]], left: LeftOut
) -> tuple[Files, np.ndarray, np.ndarray, list[int]]:
    """The image files of each part, class by class.

    Args:
        root: what keys count from.
        parts: folders, each with its class folders.
        left: counts what is no image.

    Returns:
        the files; int64 [N] keys; int64 [N] labels; where each part starts.

    Raises:
        Refused: a class holds no image, or a folder cannot be read.
    """
    folders, inside, keys, sizes, labels, starts, total = [], [], [], [], [], [], 0
    for part, classes in parts:
        starts.append(total)
        empty, before = [], left.total()
        for label, (name, called) in enumerate(classes.items()):
            count = 0
            for folder, found in sorted(one for place in called for one in list_below(root, part / place, left)):
                folders.append(folder)
                inside.append(np.array([file for file, _, _ in found], dtype=bytes))
                keys.append(b"".join(key for _, key, _ in found))
                sizes.append(np.array([size for _, _, size in found], dtype=np.int64))
                count += len(found)
            labels.append(np.full(count, label, dtype=np.int64))
            total += count
            if not count:
                empty.append(name)
        if empty:
            seen = f" (left out: {left.in_words()})" if left.total() > before else ""
            why = f"no images in the class {names(empty)}{seen}"
            raise Refused(printable(part), why, "remove the folder or fill it")
    folder_of = np.repeat(np.arange(len(folders), dtype=np.int32), [len(found) for found in inside])
    files = Files(tuple(folders), folder_of, np.concatenate(inside), np.concatenate(sizes))
    return files, np.frombuffer(bytearray().join(keys), dtype=np.int64), np.concatenate(labels), starts


Entry = tuple[bytes, bytes, int]  # name, key (8 bytes) and size of an image file


def list_below(root: Path, folder: Path, left: LeftOut) -> Iterator[tuple[str, list[Entry]]]:
    """The image files in a folder and in those below it, a folder at a time; links to folders are not followed."""
    for place, files in walk(folder, left):
        if files:
            yield place, sorted(entry_of(os.fsencode(os.path.relpath(place, root)), file) for file in files)


def entry_of(place: bytes, file: os.DirEntry[str]) -> Entry:
    """An image file; `place` goes into its key."""
    name, (size, stamp) = os.fsencode(file.name), stamp_of(file)
    return name, key_of(place, name, stamp), size


def stamp_of(entry: os.DirEntry[str] | str) -> tuple[int, bytes]:
    """Size, and size with time of change in nanoseconds; of a link those of the file it leads to. -1 where there is no file."""
    try:
        status = os.stat(entry) if isinstance(entry, str) else entry.stat()
    except FileNotFoundError:  # a link into nothing: `read_square` names it
        return -1, b"missing"
    return status.st_size, b"%d %d" % (status.st_size, status.st_mtime_ns)


def key_of(place: bytes, name: bytes, stamp: bytes) -> bytes:
    """8 bytes that a file is known by: its folder, its name, and its size and time of change."""
    return hashlib.blake2b(b"%b/%b\0%b" % (place, name, stamp), digest_size=8).digest()


def relative_names(files: Files, part: Path) -> Iterator[bytes]:
    """`cat/1.png` of each file below `part`: the same wherever the folder is."""
    places = [os.path.relpath(folder, part) for folder in files.folders]
    return (
        os.fsencode(composed(f"{places[folder]}/{os.fsdecode(name)}"))
        for folder, name in zip(files.folder_of, files.names.tolist(), strict=True)
    )
