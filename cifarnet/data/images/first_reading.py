"""The first reading of images on the disk: each is decoded once, by all cores, in small pieces."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cifarnet.core.errors import plural
from cifarnet.core.warn import warn
from cifarnet.data.hashing import LENGTH, hash_picture
from cifarnet.data.images.streamed import ImageFault, Readable, StreamedSplit, cores, stack
from cifarnet.data.request import ProgressCallback

PIECE = 64  # images decoded between two looks at the result
SAID = 5  # remarks; of more, the number is given


class Decoded(NamedTuple):
    """n images after decoding, k of which can be read. Numpy arrays, as in `stack`.

    Args:
        pixels: uint8 [k, 3, H, W], or [0, 3, H, W] where they are not kept.
        readable: bool [n].
        sums: int64 [k, 6], as in `Index`.
        errors: the n - k others.
        remarks: on images that can be read.
        hashes: uint8 [k, 32], as in `Index`.
    """

    pixels: np.ndarray
    readable: np.ndarray
    sums: np.ndarray
    errors: list[ImageFault]
    remarks: list[str]
    hashes: np.ndarray


def decode_all(
    whole: StreamedSplit, indices: Tensor, keep: bool, progress: ProgressCallback | None
) -> Iterator[tuple[Tensor, Decoded]]:
    """The images at `indices`, a piece at a time: int64 [n], and these images; pixels only where they are to be kept."""
    pieces, done = indices.split(PIECE), 0
    workers = cores() if len(indices) > 8 * PIECE else 0
    decoded = whole.decode(pieces, workers, functools.partial(sum_up, keep=keep), hashed=keep) if len(indices) else ()
    for index, found in zip(pieces, decoded, strict=False):
        done += len(index)
        if progress:
            progress(done, len(indices))
        yield index, found


def sum_up(items: list[Readable | ImageFault], keep: bool) -> Decoded:
    """Images stacked, with their sums; in a worker, so that those which are not kept need not come through its pipe."""
    images, readable, errors = stack(items)
    first = images.sum((2, 3), dtype=np.int64)
    second = np.square(images, dtype=np.uint32).sum((2, 3), dtype=np.int64)
    sums = np.concatenate([first, second], axis=1)
    remarks = [remark for item in items if isinstance(item, Readable) for remark in item.remarks]
    found = [item for item in items if isinstance(item, Readable)]
    hashes = bytearray().join(item.hash if keep else hash_picture(item.pixels) for item in found)
    kept = images if keep else images[:0]
    return Decoded(kept, readable, sums, errors, remarks, np.frombuffer(hashes, np.uint8).reshape(-1, LENGTH))


class Remarks:
    """Remarks on images as warnings: the first few, then only how many more there are."""

    def __init__(self) -> None:
        self.count = 0

    def pass_on(self, remarks: list[str]) -> None:
        for remark in remarks[: max(SAID - self.count, 0)]:
            warn(remark)
        self.count += len(remarks)

    def end(self) -> None:
        if self.count > SAID:
            warn(f"images: {plural(self.count - SAID, 'more such remark')}; `cifarnet predict --recursive` says all")
