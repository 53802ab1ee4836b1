"""Image folders, `train/<class>/*` and `test/<class>/*`: in memory where they fit, else streamed from the disk."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.data.dataset import Dataset
from cifarnet.data.images.decode import is_image_name, printable, read_image
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.streamed import StreamedSplit, hash_arrays
from cifarnet.data.request import Request


def load_folder(request: Request) -> Dataset:
    """An image folder; classes are the subfolders of `train`, in the order of their names.

    Images may have any size and any format that `read_image` takes; each is squeezed into a square of the image size.
    The first start decodes all of them, for the training set's mean and standard deviation and to find unreadable
    ones, and leaves an index in the user's cache (index.py). Each start lists the folder anew. An image that was added,
    removed, renamed, or changed in its size or its time of change is noticed, and it alone is decoded. Not noticed is
    new content of the same size under the same time (which a program has to set on purpose).

    Raises:
        Refused: no classes, a class without images, or images that cannot be read, by name.
    """
    root = request.data_dir
    if root is None:
        raise Refused("data_dir", "an image folder needs it", "name the folder that holds train/ and test/")
    classes = list_classes(root / "train")
    if unknown := set(list_classes(root / "test")) ^ set(classes):
        raise Refused(printable(root), f"the classes of train and test differ: {names(sorted(unknown))}")
    folders = [root / part / name for part in ("train", "test") for name in classes]
    files, keys = list_files(root, folders)
    whole = StreamedSplit(files, torch.from_numpy(files.folder_of % len(classes)).long(), request.image_size)
    trained = int((files.folder_of < len(classes)).sum())
    train, test = torch.arange(len(files)).tensor_split([trained])
    listing = Listing("folder", tuple(map(printable, classes)), whole, keys, train, test, os.path.realpath(root))
    return indexed_dataset(listing, request.progress)


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

    def read(self, index: int, size: int) -> tuple[Tensor, list[str]]:
        """Image `index` as uint8 [3, size, size], and remarks; raises ImageError."""
        return read_image(os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index])), size)

    def take(self, indices: np.ndarray) -> "Files":
        """The files at `indices`."""
        return Files(self.folders, self.folder_of[indices], self.names[indices], self.sizes[indices])

    def digest(self) -> str:
        """Hex digits over name, folder and size of each, wherever the folders are."""
        return hash_arrays(self.folder_of, self.names, self.sizes)


def list_classes(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones are left out."""
    try:
        found = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise Refused(
            printable(folder),
            f"cannot be read ({error.strerror})",
            "an image folder holds train/<class>/* and test/<class>/*",
        ) from error
    if len(found) < 2:
        raise Refused(printable(folder), f"{len(found) or 'no'} class folder in it", "put each class in its own folder")
    return found


def list_files(root: Path, folders: list[Path]) -> tuple[Files, np.ndarray]:
    """The image files of each folder in the order of their names, and their keys; what has no image's suffix is left out.

    Raises:
        Refused: a folder holds no image or cannot be read.
    """
    inside, keys, sizes, empty = [], [], [], []
    for folder in folders:
        found = list_folder(folder, os.fsencode(folder.relative_to(root)))
        inside.append(np.array([name for name, _, _ in found], dtype=bytes))
        keys.append(np.frombuffer(b"".join(key for _, key, _ in found), dtype=np.int64))
        sizes.append(np.array([size for _, _, size in found], dtype=np.int64))
        if not found:
            empty.append(folder)
    if empty:
        where, classes = empty[0].parent, names([folder.name for folder in empty if folder.parent == empty[0].parent])
        raise Refused(printable(where), f"no images in the class {classes}", "remove the folder or fill it")
    folder_of = np.repeat(np.arange(len(folders), dtype=np.int32), [len(part) for part in inside])
    files = Files(tuple(map(str, folders)), folder_of, np.concatenate(inside), np.concatenate(sizes))
    return files, np.concatenate(keys)


def list_folder(folder: Path, place: bytes) -> list[tuple[bytes, bytes, int]]:
    """Name, key (8 bytes) and size of each image file, sorted. The key hashes `place`, name, size and time of change."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image_name(entry.name):
                    name = os.fsencode(entry.name)
                    size, stamp = stamp_of(entry)
                    text = b"%b/%b\0%b" % (place, name, stamp)
                    found.append((name, hashlib.blake2b(text, digest_size=8).digest(), size))
    except OSError as error:
        raise Refused(printable(folder), f"cannot be read ({error.strerror})", "check its permissions") from error
    return sorted(found)


def stamp_of(entry: os.DirEntry[str]) -> tuple[int, bytes]:
    """Size, and size with time of change in nanoseconds; of a link those of the file it leads to."""
    try:
        status = entry.stat()
    except FileNotFoundError:  # a link into nothing: `read_image` names it
        return -1, b"missing"
    return status.st_size, b"%d %d" % (status.st_size, status.st_mtime_ns)
