"""An index of images, kept between two starts: that they can be read, their sums, and their pixels where these fit.

A second start decodes nothing; after a change it decodes the images that are new. An image is known by its key, a
hash of its name, size and time of change: the index holds no names, so nothing in it can point anywhere.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.data.dataset import AnySplit, Channels, Dataset, Split, statistics_of_sums
from cifarnet.data.found import Found
from cifarnet.data.hashing import LENGTH
from cifarnet.data.images.cache import arrays_path, held, read_arrays, write_arrays
from cifarnet.data.images.decode import printable
from cifarnet.data.images.first_reading import Remarks, decode_all
from cifarnet.data.images.repeats import say_repeats
from cifarnet.data.images.streamed import ImageFault, StreamedSplit
from cifarnet.data.request import ProgressCallback

MEMORY = 4 << 30  # bytes of pixels, both splits together, above which a set is streamed
NAMED = 5  # files named in a message; of more, the number is given
SHAPES = {"keys": (torch.int64, 1), "sums": (torch.int64, 2), "pixels": (torch.uint8, 4), "hashes": (torch.uint8, 2)}
STAMP = "images"


@dataclass(frozen=True, eq=False)
class Index:
    """N images that can be read.

    Args:
        keys: int64 [N].
        sums: int64 [N, 6]: of R, G, B the sum of the values (0 to 255), then of their squares.
        pixels: uint8 [N, 3, H, W], or [0, 3, H, W] where they are not kept.
        hashes: uint8 [N, 32], of the images before they were resized; where pixels are not kept after it, since a hash of large images
            takes half as long again as decoding them.
    """

    keys: Tensor
    sums: Tensor
    pixels: Tensor
    hashes: Tensor

    def covers(self, keys: Tensor, in_memory: bool) -> bool:
        """True where these are the images, in this order."""
        return torch.equal(self.keys, keys) and (not in_memory or len(self.pixels) == len(keys))


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a data set on the disk, listed and not yet opened.

    Args:
        name, classes: of the data set.
        whole: the images of both splits.
        keys: int64 [N], what each is known by.
        train, test: int64, which images belong to a split.
        subject: what the index is about: the real path.
        found: where it lies, and what there is left out.
    """

    name: str
    classes: tuple[str, ...]
    whole: StreamedSplit
    keys: np.ndarray
    train: Tensor
    test: Tensor
    subject: str
    found: Found | None = None


def indexed_dataset(listing: Listing, progress: ProgressCallback | None = None) -> Dataset:
    """A data set of images on the disk: in memory where they fit, else streamed.

    Images that the index does not know yet are decoded once; then it is said which are there twice. Of several processes
    that start together one does that.

    Args:
        progress: told how many of the unknown images are decoded.

    Raises:
        Refused: images that cannot be read, by name.
    """
    whole, size = listing.whole, listing.whole.image_size
    in_memory = len(whole) * 3 * size**2 <= MEMORY
    path = arrays_path(f"{STAMP}/{size}/{listing.subject}")
    index = look_through(whole, torch.from_numpy(listing.keys), path, in_memory, progress)
    what = str(listing.found.path) if listing.found else listing.name
    say_repeats(what, whole, listing.keys, index.hashes.numpy(), listing.train, listing.test)
    mean, std = statistics(index.sums[listing.train], size)
    images: AnySplit = Split(index.pixels, whole.labels, index.hashes) if in_memory else replace(whole, sums=index.sums)
    train, test = part_of(images, listing.train), part_of(images, listing.test)
    return Dataset(listing.name, listing.classes, train, test, mean, std, found=listing.found)


def part_of(whole: AnySplit, indices: Tensor) -> AnySplit:
    """The split at `indices`; a run of neighbours in memory is not copied."""
    first, last = int(indices[0]), int(indices[-1]) + 1
    if isinstance(whole, Split) and last - first == len(indices):
        hashes = None if whole.hashes is None else whole.hashes[first:last]
        return Split(whole.images[first:last], whole.labels[first:last], hashes)
    return whole.subset(indices)


def statistics(sums: Tensor, size: int) -> tuple[Channels, Channels]:
    """Mean and standard deviation of images of `size` x `size` pixels from their sums [N, 6]."""
    total = sums.sum(0).tolist()
    return statistics_of_sums(len(sums) * size**2, total[:3], total[3:])


def look_through(
    whole: StreamedSplit, keys: Tensor, path: Path, in_memory: bool, progress: ProgressCallback | None = None
) -> Index:
    """The index of exactly these images: from the cache, and by decoding those that are not in it.

    Raises:
        Refused: images that cannot be read, by name. Those that can are in the cache by then.
    """
    known = read_index(path, whole.image_size)
    if known and known.covers(keys, in_memory):
        return known
    with held(path, progress):
        known = read_index(path, whole.image_size)  # another process may have been here first
        if known and known.covers(keys, in_memory):
            return known
        index, readable, errors = complete(known, whole, keys, in_memory, progress)
        kept = index if not errors else Index(*(part[readable[: len(part)]] for part in parts_of(index)))
        write_arrays(path, STAMP, {name: part.numpy() for name, part in zip(SHAPES, parts_of(kept), strict=True)})
    if errors:
        listed = names([f"{name} ({why})" for name, why in errors])
        raise Refused("images", f"{len(errors):,} of {len(whole):,} cannot be used: {listed}", "remove them")
    return index


def parts_of(index: Index) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tensors in the order of `SHAPES`."""
    return index.keys, index.sums, index.pixels, index.hashes


def read_index(path: Path, size: int) -> Index | None:
    """The index in the cache, if it is whole and could be true."""
    arrays = read_arrays(path, STAMP, SHAPES)
    if arrays is None:
        return None
    index = Index(**arrays)
    count, area = len(index.keys), size**2
    if index.hashes.shape != (count, LENGTH):
        return None
    first, second = index.sums.split(3, dim=1) if index.sums.shape == (count, 6) else (None, None)
    if first is None or second is None or index.pixels.shape not in ((count, 3, size, size), (0, 3, size, size)):
        return None
    if first.lt(0).any() or second.lt(0).any() or first.gt(255 * area).any() or second.gt(255 * first).any():
        return None
    return None if first.square().gt(second * area).any() else index  # a variance is not negative


def complete(
    known: Index | None, whole: StreamedSplit, keys: Tensor, in_memory: bool, progress: ProgressCallback | None
) -> tuple[Index, Tensor, list[ImageFault]]:
    """The index of `whole`, with the images that `known` lacks decoded; bool [N], which can be read; why the others cannot."""
    size, count = whole.image_size, len(whole)
    sums = torch.zeros(count, 6, dtype=torch.int64)
    pixels = torch.empty(count if in_memory else 0, 3, size, size, dtype=torch.uint8)
    hashes = torch.empty(count, LENGTH, dtype=torch.uint8)
    readable = torch.zeros(count, dtype=torch.bool)
    if known and len(known.keys) and in_memory == (len(known.pixels) > 0):  # the others' hashes are of another kind
        order = known.keys.argsort()
        place = torch.searchsorted(known.keys[order], keys).clamp_(max=len(order) - 1)
        source = order[place]
        readable = known.keys[source] == keys
        sums[readable], hashes[readable] = known.sums[source[readable]], known.hashes[source[readable]]
        if in_memory:
            pixels[readable] = known.pixels[source[readable]]

    errors: list[ImageFault] = []
    remarks = Remarks()
    missing = (~readable).nonzero().flatten()
    for index, found in decode_all(whole, missing, in_memory, progress):
        good = index[torch.from_numpy(found.readable)]
        readable[good] = True
        sums[good], hashes[good] = torch.from_numpy(found.sums), torch.from_numpy(found.hashes)
        if in_memory and len(good):
            pixels[good] = torch.from_numpy(found.pixels)
        errors += found.errors
        remarks.pass_on(found.remarks)
    remarks.end()
    return Index(keys, sums, pixels, hashes), readable, errors


def names(items: list[str]) -> str:
    """The first few of `items`, and how many more there are."""
    text = ", ".join(map(printable, items[:NAMED]))
    return text + (f" and {len(items) - NAMED:,} more" if len(items) > NAMED else "")
