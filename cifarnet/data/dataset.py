"""The shapes data takes here: a split of images in memory, and a data set of two splits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from cifarnet.core.devices import send
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.data.found import Found
from cifarnet.data.hashing import hash_images

Channels = tuple[float, float, float]  # one number each for red, green, blue
CHUNK = 4096  # images looked at together: 12 MB of 32x32 pixels, whatever the size of the set


class AnySplit(Protocol):
    """A split as the loader takes it: in memory (`Split`) or on disk (`streamed.StreamedSplit`)."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor) -> "AnySplit": ...

    def batches(self, indices: Iterable[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """uint8 [n, 3, H, W] for each int64 [n] of `indices`, decoded by `workers` processes where that is needed."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels in memory.

    Args:
        images: uint8 [N, 3, H, W], RGB.
        labels: int64 [N], class indices.
        hashes: uint8 [N, 32], of the images before they were resized (see `hash_images`); None: as those in `images`.
    """

    images: Tensor
    labels: Tensor
    hashes: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("labels", self.labels)):
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name} must be a tensor, not {type(value).__name__}; torch.as_tensor makes one of an array"
                )
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [N, 3, H, W], not {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 [{len(self.images)}], not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({plural(len(self), 'image')}, {' x '.join(map(str, self.images.shape[1:]))})"

    @cached_property
    def image_hashes(self) -> Tensor:
        """uint8 [N, 32], `hashes`, or made once when first asked for."""
        return hash_images(self.images) if self.hashes is None else self.hashes

    @property
    def known_hashes(self) -> Tensor | None:
        """`image_hashes` where they were given or have been asked for."""
        return vars(self).get("image_hashes", self.hashes)

    def hash_now(self) -> None:
        """Makes `image_hashes`, so that the parts of this split have theirs from it."""
        _ = self.image_hashes

    def subset(self, indices: Tensor) -> "Split":
        """The images at `indices` (int64 [n]), copied."""
        hashes = self.known_hashes
        images = self.images.index_select(0, indices.to(self.images.device))  # faster than images[indices]
        return Split(images, self.labels[indices], None if hashes is None else hashes[indices])

    def with_labels(self, labels: Tensor) -> "Split":
        """The same images with other labels (int64 [N])."""
        return Split(self.images, labels, self.known_hashes)

    def batches(self, indices: Iterable[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """uint8 [n, 3, H, W] on the split's device for each int64 [n] of `indices`; `workers` has no effect."""
        for index in indices:
            yield self.images[send(index, self.images.device)]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set.

    Args:
        name: as in `DATASETS`.
        classes: class names; a label is an index into them.
        train, test: the two splits.
        mean, std: of each channel (R, G, B) over the training split, of pixels in [0, 1].
        substituted: how many images of the train and of the test files are known not to be the published ones (see `origin`).
        found: where it lies; None of a set that is made, or came with a package.
    """

    name: str
    classes: Sequence[str]
    train: AnySplit
    test: AnySplit
    mean: Channels
    std: Channels
    substituted: tuple[int, ...] = (0, 0)
    found: Found | None = None

    def __repr__(self) -> str:
        sizes = f"{plural(len(self.classes), 'class')}, {len(self.train):,} train, {len(self.test):,} test"
        return f"Dataset({self.name}, {sizes})"


def make_dataset(name: str, classes: tuple[str, ...], train: Split, test: Split) -> Dataset:
    """Two splits as a data set, with mean and standard deviation measured on the training split.

    Raises:
        TypeError: other splits. ValueError: one on the meta device.
    """
    for part, split in (("train", train), ("test", test)):
        if not isinstance(split, Split):
            how = "cifarnet.data.Split(images, labels) makes one of uint8 images [N, 3, H, W] and int64 labels [N]"
            raise TypeError(f"{part} must be a cifarnet.data.Split, not {type(split).__name__}; {how}")
        if split.images.is_meta or split.labels.is_meta:
            raise ValueError(f"{part} is on the meta device, which holds no numbers; give it on the CPU")
    mean, std = channel_statistics(train.images.split(CHUNK))
    return Dataset(name, classes, train, test, mean, std)


def channel_statistics(chunks: Iterable[Tensor]) -> tuple[Channels, Channels]:
    """Mean and population standard deviation per channel of uint8 images, as fractions of 255.

    Sums of integers, so they are exact and do not depend on how the images are cut into chunks. A constant channel
    gets the standard deviation 1: normalising it then only subtracts its mean.
    """
    histogram = torch.zeros(3, 256, dtype=torch.int64)
    for images in chunks:
        for channel in range(3):
            plane = Image.fromarray(images[:, channel].flatten(1).cpu().numpy())
            histogram[channel] += torch.tensor(plane.histogram())  # seven times as fast as torch.bincount
    rows = histogram.tolist()  # Python integers do not overflow
    first = [sum(n * value for value, n in enumerate(counts)) for counts in rows]
    second = [sum(n * value * value for value, n in enumerate(counts)) for counts in rows]
    return statistics_of_sums(sum(rows[0]), first, second)


def statistics_of_sums(total: int, firsts: list[int], seconds: list[int]) -> tuple[Channels, Channels]:
    """Mean and standard deviation as in `channel_statistics`, from sums over `total` pixels.

    Args:
        firsts, seconds: of each channel, the sum of its values (0 to 255) and of their squares.
    """
    total = total or 1
    mean, std = [], []
    for first, second in zip(firsts, seconds, strict=True):
        variance = (second * total - first * first) / (total * total)
        mean.append(first / total / 255)
        std.append(variance**0.5 / 255 or 1.0)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def hold_out(
    split: AnySplit, fraction: float, seed: int, classes: Sequence[str] | None = None
) -> tuple[AnySplit, AnySplit]:
    """Split off `fraction` of each class for validation.

    Args:
        split: what to split.
        fraction: in (0, 1); of each class at least one image goes to either side.
        seed: the same seed gives the same two parts.
        classes: their names, for messages.

    Returns:
        (train, validation), each in the order of `split`.

    Raises:
        Refused: the fraction is out of range, or a class has a single image.
    """
    if not 0 < fraction < 1:
        raise Refused("val_fraction", f"{fraction} is not between 0 and 1", "0.1 holds out a tenth of each class")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique().tolist():
        members = (split.labels == label).nonzero().flatten()
        if len(members) < 2:
            name = f"the class {printable(classes[label])}" if classes else f"class {label}"
            fix = "add images of it, give a larger `subset` or a smaller `imbalance`, or leave `val_fraction` out"
            raise Refused("val_fraction", f"{name} has a single training image, which cannot be in both parts", fix)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return split.subset((~held).nonzero().flatten()), split.subset(held.nonzero().flatten())


def resize_all(images: Tensor, size: int) -> Tensor:
    """uint8 [N, 3, H, W] resized to `size` x `size`, bilinear with antialiasing; the same tensor if it fits already."""
    if images.shape[-2:] == (size, size):
        return images
    resized = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for source, target in zip(images.split(CHUNK), resized.split(CHUNK), strict=True):
        target.copy_(torch.nn.functional.interpolate(source, (size, size), mode="bilinear", antialias=True))
    return resized
