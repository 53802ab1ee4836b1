"""Images that stay on the disk, decoded as they are asked for, by as many processes as are wanted."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cifarnet.core.errors import Failed, plural
from cifarnet.core.signals import ignore_signals
from cifarnet.data.images.decode import ImageError, printable
from cifarnet.data.images.square import Square

ImageFault = tuple[str, str]  # (name of an image, why it cannot be read)


class Readable(NamedTuple):
    """An image, uint8 [3, H, W], remarks on it, fit for the user, and its hash, where one was asked for."""

    pixels: np.ndarray
    remarks: list[str]
    hash: bytes


class ImageSource(Protocol):
    """Where images lie. Held in a few arrays, not in an object an image: workers fork it, and a fork copies what it touches."""

    def __len__(self) -> int: ...

    def read(self, index: int, size: int, hashed: bool = False) -> Square:
        """Image `index`, its hash too where `hashed`; raises ImageError."""
        ...

    def name(self, index: int) -> str:
        """The name of image `index` in a message, fit for a terminal."""
        ...

    def take(self, indices: np.ndarray) -> "ImageSource":
        """The images at `indices` (int64 [n]), in this order."""
        ...

    def digest(self) -> str:
        """Hex digits over names and order: the same for a copy of the set elsewhere. Opens no image."""
        ...


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split on the disk. Only the images that are asked for are opened.

    Args:
        source: where each image lies.
        labels: int64 [N].
        image_size: height and width after decoding.
        sums: int64 [N, 6], of each image those of its channels (see `index.Index`), where they are known.
    """

    source: ImageSource
    labels: Tensor
    image_size: int
    sums: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"StreamedSplit({plural(len(self), 'image')}, 3 x {self.image_size} x {self.image_size})"

    def subset(self, indices: Tensor) -> "StreamedSplit":
        """The images at `indices` (int64 [n])."""
        sums = None if self.sums is None else self.sums[indices]
        return StreamedSplit(self.source.take(indices.numpy()), self.labels[indices], self.image_size, sums)

    def batches(self, indices: Iterable[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """uint8 [n, 3, H, W] for each tensor of indices, in this order for any number of worker processes.

        Raises:
            Failed: an image can no longer be read.
        """
        for images, _, errors in self.decode(indices, workers):
            if errors:
                raise Failed(*errors[0])
            yield torch.from_numpy(images)

    def decode(
        self,
        indices: Iterable[Tensor],
        workers: int,
        collate: Callable[[list[Any]], Any] | None = None,
        hashed: bool = False,
    ) -> Iterator[Any]:
        """The result of `collate` (by default `stack`), run in the worker, for each tensor of indices."""
        loader = DataLoader(
            Decoder(self.source, self.image_size, hashed),
            batch_sampler=map(Tensor.tolist, indices),  # type: ignore[arg-type]  # lazily: an epoch of Python integers is large
            collate_fn=collate or stack,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # else it draws from torch's global generator
        )
        try:
            yield from loader
        except RuntimeError as error:  # torch's way to say that a worker was killed
            raise Failed("images", f"decoding ended early ({printable(str(error))})", "try fewer `workers`") from error


class Decoder(TorchDataset):
    """Runs in a worker: an image, or (name, why) as a value, since an exception would lose its type."""

    def __init__(self, source: ImageSource, image_size: int, hashed: bool) -> None:
        self.source, self.image_size, self.hashed = source, image_size, hashed

    def __getitem__(self, index: int) -> Readable | ImageFault:
        try:
            found = self.source.read(index, self.image_size, self.hashed)
            return Readable(found.pixels.numpy(), found.remarks, found.hash)
        except ImageError as error:
            return error.what, error.why


def stack(items: list[Readable | ImageFault]) -> tuple[np.ndarray, np.ndarray, list[ImageFault]]:
    """Images [k, 3, H, W] of those that can be read, which these are (bool [n]), and the others.

    Numpy arrays: they come through a pipe, where tensors would need room in shared memory.
    """
    images = [item.pixels for item in items if isinstance(item, Readable)]
    errors = [item for item in items if not isinstance(item, Readable)]
    readable = np.array([isinstance(item, Readable) for item in items])
    return np.stack(images) if images else np.empty((0, 3, 0, 0), np.uint8), readable, errors


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hash_arrays(*arrays: np.ndarray) -> str:
    """16 hex digits over the bytes of arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
