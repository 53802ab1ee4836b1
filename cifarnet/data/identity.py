"""What data this is, told by its content: digests of classes, labels and images, the same wherever the files lie.

The images of a split are one number, the sum modulo 2^256 of SHA-256 over (label, as uint32 in little-endian order, then
the image's own hash) of each: no order of the images changes it, one pixel or one label does. An image's hash is that of
its size and pixels before resizing (`hash_images`). Images that stay on the disk are not opened: their names and sizes take
the pixels' place.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cifarnet.core.class_names import Numbers
from cifarnet.data.dataset import AnySplit, Split
from cifarnet.data.hashing import hash_images
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.sources.synthetic import FeatureSplit

VERSION = 2  # of what is hashed: identities of two versions say nothing of each other
SHOWN = 3  # classes named in a message


@dataclass(frozen=True)
class SplitIdentity:
    """Number of images, and digests in hex: of the labels in their order, of the images in any order."""

    images: int
    labels: str
    content: str


@dataclass(frozen=True)
class DataIdentity:
    """The data of a run: its class names (none where they are numbers), what it trains on and what it is measured on."""

    classes: tuple[str, ...]
    count: int
    train: SplitIdentity
    test: SplitIdentity

    @property
    def digest(self) -> str:
        """16 hex digits over all of it."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    def to_json(self) -> str:
        """For a file's metadata; `parse_identity` reads it."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)


def identify(classes: Sequence[str], train: AnySplit, test: AnySplit) -> DataIdentity:
    """The identity of what a run trains on, after images were held out, and of what it is measured on."""
    names = () if isinstance(classes, Numbers) else tuple(classes)
    return DataIdentity(names, len(classes), identify_split(train), identify_split(test))


def identify_split(split: AnySplit) -> SplitIdentity:
    """The identity of a split; all of its pixels are read where they are in memory."""
    if isinstance(split, FeatureSplit):  # a formula: the features follow from these
        text = f"{split.source} {split.samples if isinstance(split.samples, range) else split.samples.tolist()}"
        made = hashlib.sha256(text.encode()).hexdigest()
        return SplitIdentity(len(split), made[:16], made)
    labels = split.labels.cpu().contiguous()
    hashed = hashlib.blake2b(labels.numpy().tobytes(), digest_size=8).hexdigest()
    if isinstance(split, StreamedSplit):
        return SplitIdentity(len(split), hashed, split.source.digest())
    if not isinstance(split, Split):
        raise TypeError(f"a {type(split).__name__} has no identity")
    return SplitIdentity(len(split), hashed, content_digest(split))


def content_digest(split: Split) -> str:
    """64 hex digits over labels and images in memory (see above)."""
    hashes = hash_images(split.images) if split.hashes is None else split.hashes
    labels = split.labels.cpu().to(torch.int32).numpy().astype("<u4")
    total = 0
    for label, image in zip(labels, hashes.numpy(), strict=True):
        total += int.from_bytes(hashlib.sha256(label.tobytes() + image.tobytes()).digest(), "little")
    return f"{total % 2**256:064x}"


def parse_identity(text: str | None) -> DataIdentity | None:
    """The identity that `to_json` wrote; None where there is none, or one of another version."""
    try:
        values: Any = json.loads(text or "")
        if values.pop("version") != VERSION:
            return None
        train, test = (SplitIdentity(**values.pop(name)) for name in ("train", "test"))
        found = DataIdentity(tuple(values.pop("classes")), values.pop("count"), train, test)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = [*found.classes, train.labels, train.content, test.labels, test.content]
    numbers = [found.count, train.images, test.images]
    good = not values and all(isinstance(one, str) for one in texts) and all(type(one) is int for one in numbers)
    return found if good else None


def differences(was: DataIdentity, now: DataIdentity) -> list[str]:
    """In words, how two data sets differ; [] where they are the same."""
    found = []
    if was.classes != now.classes or was.count != now.count:
        pairs = zip(was.classes, now.classes, strict=False)
        renamed = [f"class {n} was {old} and is {new}" for n, (old, new) in enumerate(pairs) if old != new]
        more = f" and {len(renamed) - SHOWN} more" if len(renamed) > SHOWN else ""
        if was.count != now.count:
            found.append(f"it had {was.count:,} classes and has {now.count:,}")
        if renamed:
            found.append(", ".join(renamed[:SHOWN]) + more)
    for name, old, new in (("training", was.train, now.train), ("test", was.test, now.test)):
        if old.images != new.images:
            found.append(f"there were {old.images:,} {name} images and are {new.images:,}")
        elif old.labels != new.labels:
            found.append(f"the {name} images have other labels, or another order")
        elif old.content != new.content:
            found.append(f"the {name} images are others")
    return found
