"""Image folders, `train/<class>/*` and `test/<class>/*`: in memory where they fit, else streamed from the disk."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cifarnet.data.images import ImageError, is_image_name, printable, read_image
from cifarnet.data.request import Request
from cifarnet.data.splits import AnySplit, Channels, Dataset, Split, channel_statistics
from cifarnet.errors import Failed, Refused
from cifarnet.signals import ignore_signals

MEMORY = 4 << 30  # bytes of pixels, both splits together, above which a set is streamed
NAMED = 5  # files named in a message; of more, the number is given
PIECE = 64  # images decoded between two checks of the result


def load_folder(request: Request) -> Dataset:
    """An image folder; classes are the subfolders of `train`, in the order of their names.

    Images may have any size and any format that `read_image` takes; each is squeezed into a square of the image size.
    All are decoded once at load, for the training set's mean and standard deviation and to find unreadable ones.

    Raises:
        Refused: no classes, a class without images, or images that cannot be read, by name.
    """
    root = request.data_dir
    if root is None:
        raise Refused("--data-dir", "an image folder needs it", "name the folder that holds train/ and test/")
    classes = list_classes(root / "train")
    if unknown := set(list_classes(root / "test")) ^ set(classes):
        raise Refused(printable(root), f"the classes of train and test differ: {names(sorted(unknown))}")
    train, test = (list_split(root / part, classes, request.image_size) for part in ("train", "test"))
    in_memory = (len(train) + len(test)) * 3 * request.image_size**2 <= MEMORY
    (ready_train, mean, std), (ready_test, _, _) = (measure(split, in_memory) for split in (train, test))
    return Dataset("folder", tuple(map(printable, classes)), ready_train, ready_test, mean, std)


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Images on the disk, decoded as they are asked for.

    Args:
        files: a file for each image.
        labels: int64 [N].
        image_size: height and width after decoding.
    """

    files: tuple[Path, ...]
    labels: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Tensor) -> "StreamedSplit":
        """The images at `indices` (int64 [n])."""
        return StreamedSplit(tuple(self.files[i] for i in indices.tolist()), self.labels[indices], self.image_size)

    def batches(self, indices: Iterable[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """uint8 [n, 3, H, W] for each tensor of indices, in this order for any number of worker processes.

        Raises:
            Failed: an image can no longer be read.
        """
        for images, errors in self.decode(indices, workers):
            if errors:
                raise Failed(*errors[0])
            yield images

    def decode(self, indices: Iterable[Tensor], workers: int) -> Iterator[tuple[Tensor, list[tuple[str, str]]]]:
        """The images that can be read, and (name, why) of those that cannot."""
        loader = DataLoader(
            Files(self.files, self.image_size),
            batch_sampler=[index.tolist() for index in indices],
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # else it draws from torch's global generator
        )
        try:
            for images, errors in loader:
                yield torch.from_numpy(images), errors
        except RuntimeError as error:  # torch's way to say that a worker was killed
            raise Failed(
                "image folder", f"decoding ended early ({printable(str(error))})", "try fewer --workers"
            ) from error


class Files(TorchDataset):
    """What runs in a worker: a file's pixels, or (name, why) as a value, since an exception would lose its type."""

    def __init__(self, files: tuple[Path, ...], image_size: int) -> None:
        self.files, self.image_size = files, image_size

    def __getitem__(self, index: int) -> np.ndarray | tuple[str, str]:
        try:
            return read_image(self.files[index], self.image_size)[0].numpy()
        except ImageError as error:
            return error.what, error.why


def collate(items: list[np.ndarray | tuple[str, str]]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """A batch as a numpy array: it comes through a pipe, where a tensor would need room in shared memory."""
    images = [item for item in items if isinstance(item, np.ndarray)]
    errors = [item for item in items if not isinstance(item, np.ndarray)]
    return np.stack(images) if images else np.empty((0, 3, 0, 0), np.uint8), errors


def measure(split: StreamedSplit, in_memory: bool) -> tuple[AnySplit, Channels, Channels]:
    """Decode every image once: the split (in memory if asked), its mean and its standard deviation."""
    size = split.image_size
    pixels = torch.empty(len(split) if in_memory else 0, 3, size, size, dtype=torch.uint8)
    errors: list[tuple[str, str]] = []

    def decoded() -> Iterator[Tensor]:
        workers = cores() if len(split) > 8 * PIECE else 0
        pieces = torch.arange(len(split)).split(PIECE)
        for index, (images, wrong) in zip(pieces, split.decode(pieces, workers), strict=True):
            errors.extend(wrong)
            if in_memory and not wrong:
                pixels[index] = images
            yield images

    mean, std = channel_statistics(decoded())
    if errors:
        listed = names([f"{name} ({why})" for name, why in errors])
        raise Refused("image folder", f"{len(errors)} of {len(split)} images cannot be used: {listed}", "remove them")
    return Split(pixels, split.labels) if in_memory else split, mean, std


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def list_split(folder: Path, classes: list[str], image_size: int) -> StreamedSplit:
    """The image files of each class, in the order of their names; files without an image's suffix are left out."""
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        inside = sorted(entry for entry in os.listdir(folder / name) if is_image_name(entry))
        files += [folder / name / entry for entry in inside]
        labels += [label] * len(inside)
        if not inside:
            empty.append(name)
    if empty:
        raise Refused(printable(folder), f"no images in the class {names(empty)}", "remove the folder or fill it")
    return StreamedSplit(tuple(files), torch.tensor(labels), image_size)


def names(items: list[str]) -> str:
    """The first few of `items`, and how many more there are."""
    text = ", ".join(map(printable, items[:NAMED]))
    return text + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")
