"""The identity of data, told by its content: digests of classes, labels and images, the same wherever the files lie.

The images of a split are one number, the sum modulo 2^256 of SHA-256 over (label, as uint32 in little-endian order, then
the image's own hash) of each: no order of the images changes it, one pixel or one label does. An image's hash is that of
its size and pixels before resizing (`hash_images`). Images that stay on the disk are not opened: names and sizes, in the
order in which they are listed, take the pixels' place.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cifarnet.core.class_names import Numbers, composed, without_joiners
from cifarnet.core.errors import plural
from cifarnet.data.dataset import AnySplit, Split
from cifarnet.data.hashing import sum_of_hashes
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.sources.synthetic import FeatureSplit

VERSION = 2  # of what is hashed: identities of two versions say nothing of each other
SHOWN = 3  # classes named in a message


@dataclass(frozen=True)
class SplitIdentity:
    """Number of images, and digests in hex: of labels and of images in their order, and of both together in any order."""

    images: int
    labels: str
    order: str
    content: str

    def same_images(self, other: "SplitIdentity") -> bool:
        """Are these the same images with the same labels, in whatever order?"""
        return (self.images, self.content) == (other.images, other.content)


@dataclass(frozen=True)
class DataIdentity:
    """The data of a run: its class names (none where they are numbers), what it trains on and what it is measured on.

    source: the digest of the data set that these were taken from, as it was loaded; "" where it is not known.
    """

    classes: tuple[str, ...]
    count: int
    train: SplitIdentity
    test: SplitIdentity
    source: str

    @property
    def digest(self) -> str:
        """16 hex digits over classes and content, the same in any order of the images."""
        parts = [[part.images, part.content] for part in (self.train, self.test)]
        return _digest(json.dumps([VERSION, self.classes, self.count, parts]).encode())

    @property
    def digest_in_order(self) -> str:
        """16 hex digits over all of it, the order of the images too."""
        return _digest(self.to_json().encode())

    @property
    def digests(self) -> str:
        """The digest, and of what data set this is a part, if it is: "0123456789abcdef of fedcba9876543210"."""
        return self.digest + (f" of {self.source}" if self.source not in ("", self.digest) else "")

    def to_json(self) -> str:
        """For a file's metadata; `parse_identity` reads it."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)


def identity_of(
    classes: Sequence[str], train: AnySplit, test: AnySplit, source: DataIdentity | None = None
) -> DataIdentity:
    """The identity of what a run trains on, after images were held out, and of what it is measured on.

    Args:
        source: that of the data set that these are parts of; None where they are the set itself.
    """
    names = () if isinstance(classes, Numbers) else tuple(map(without_joiners, classes))
    found = DataIdentity(names, len(classes), identity_of_split(train), identity_of_split(test), source="")
    return replace(found, source=(source or found).digest)


def identity_of_split(split: AnySplit) -> SplitIdentity:
    """The identity of a split; all of its pixels are read where they are in memory, once."""
    if isinstance(split, FeatureSplit):  # a formula: the features follow from these
        text = f"{split.source} {split.samples if isinstance(split.samples, range) else split.samples.tolist()}"
        made = hashlib.sha256(text.encode()).hexdigest()
        return SplitIdentity(len(split), made[:16], made[:16], made)
    labels = split.labels.cpu().contiguous()
    numbers = labels.numpy().tobytes()
    if isinstance(split, StreamedSplit):
        files = split.source.digest()
        content = hashlib.sha256(numbers + files.encode()).hexdigest()
        return SplitIdentity(len(split), _digest(numbers), files, content)
    if not isinstance(split, Split):
        raise TypeError(f"a {type(split).__name__} has no identity")
    hashes = split.image_hashes
    return SplitIdentity(len(split), _digest(numbers), _digest(hashes.numpy().tobytes()), sum_of_hashes(labels, hashes))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def parse_identity(text: str | None) -> DataIdentity | None:
    """The identity that `to_json` wrote; None where there is none, or one of another version.

    Its class names are composed. Of names that were written in the other form the source's digest, which is over them, says nothing.
    """
    try:
        values: Any = json.loads(text or "")
        if values.pop("version") != VERSION:
            return None
        train, test = (SplitIdentity(**values.pop(name)) for name in ("train", "test"))
        found = DataIdentity(tuple(values.pop("classes")), values.pop("count"), train, test, values.pop("source"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = [*found.classes, found.source]
    texts += [text for part in (train, test) for text in (part.labels, part.order, part.content)]
    numbers = [found.count, train.images, test.images]
    good = not values and all(isinstance(one, str) for one in texts) and all(type(one) is int for one in numbers)
    if not good:
        return None
    names = tuple(map(composed, found.classes))
    return found if names == found.classes else replace(found, classes=names, source="")


def differences(was: DataIdentity, now: DataIdentity) -> list[str]:
    """In words, how two data sets differ; [] where they are the same, in the same order."""
    found = _class_differences(was, now)
    for name, old, new in (("training", was.train, now.train), ("test", was.test, now.test)):
        if old.images != new.images:
            was_one, is_one = ("was" if old.images == 1 else "were"), ("is" if new.images == 1 else "are")
            found.append(f"there {was_one} {plural(old.images, f'{name} image')} and {is_one} {new.images:,}")
        elif old.same_images(new):
            if old != new:
                found.append(f"the {name} images are in another order")
        elif old.labels != new.labels:
            found.append(f"the {name} images have other labels, or another order")
        else:
            found.append(f"the {name} images are others")
    if not found and was.source and was.source != now.source:
        found.append(f"they were taken from the data set {was.source} and now from {now.source}")
    return found


def _class_differences(was: DataIdentity, now: DataIdentity) -> list[str]:
    changed = [f"it had {plural(was.count, 'class')} and has {now.count:,}"] if was.count != now.count else []
    pairs = zip(was.classes, now.classes, strict=False)
    renamed = [f"class {n} was {old} and is {new}" for n, (old, new) in enumerate(pairs) if old != new]
    if renamed:
        more = f" and {len(renamed) - SHOWN} more" if len(renamed) > SHOWN else ""
        changed.append(", ".join(renamed[:SHOWN]) + more)
    elif not changed and was.classes != now.classes:
        changed.append("its classes are called by numbers, or no longer so")
    return changed
