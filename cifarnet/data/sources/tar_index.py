"""Where the labelled images of a tar file lie: a hostile file can cost time in proportion to its size, nothing else."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import open_plain
from cifarnet.data.images.cache import arrays_path, read_arrays, write_arrays
from cifarnet.data.images.decode import printable, why_unreadable
from cifarnet.data.images.formats import SUFFIXES
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.left_out import LeftOut
from cifarnet.data.sources.tar_labels import MAX_CLASSES, count_words, parse_label

MAX_IMAGE = 256 << 20  # bytes of an image file
MAX_LABEL = 1 << 20  # bytes of a .cls or .json, and of a header that tarfile reads whole
NAME_WIDTH = 100  # bytes of a member's name that are kept
IMAGES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
SHAPES = {"offsets": (torch.int64, 1), "sizes": (torch.int64, 1), "labels": (torch.int64, 1), "names": (torch.uint8, 2)}
SHAPES |= {"notes": (torch.uint8, 1)}
UNPACK = "or unpack it where its folders are the classes"
DOTTED = "a key ends at the first dot of its name, so a name with more dots is another suffix of it"


@dataclass(frozen=True, eq=False)
class Shard:
    """The samples of a tar file.

    Args:
        path: the file.
        stamp: its size and time of change when it was listed.
        offsets, sizes: int64 [n], bytes, where each image's file lies.
        labels: int64 [n]: class numbers, or -1 - k for the class named `words[k]`.
        names: bytes of a fixed width [n], the images' names, cut where they are long.
        words: names of classes, where labels are text.
        left: the members that belong to no sample.
    """

    path: Path
    stamp: str
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    words: tuple[str, ...] = ()
    left: LeftOut = field(default_factory=LeftOut)


@dataclass
class Sample:
    """The members of one key so far: the image's name, offset and size, and the label."""

    key: str
    image: tuple[str, int, int] | None = None
    label: int | str | None = None
    suffixes: set[str] = field(default_factory=set)


def open_shard(path: Path) -> tuple[int, str]:
    """A descriptor of a plain file, and its stamp: what it must still be when an image in it is read."""
    with open_plain(path) as opened:
        status = os.fstat(opened.fileno())
        return os.dup(opened.fileno()), f"{status.st_size} {status.st_mtime_ns}"


def read_shard(path: Path, count: int = 1, number: int = 0, progress: ProgressCallback | None = None) -> Shard:
    """The samples of a shard, from the user's cache, or listed now and kept there.

    Args:
        count, number: of how many shards it is which: for `progress`.

    Raises:
        Refused: it cannot be read, is damaged or compressed, or a sample in it has no label.
    """
    try:
        file, stamp = open_shard(path)
    except OSError as error:
        raise Refused(printable(path), why_unreadable(error), "name .tar files") from error
    place = arrays_path(f"shard/{os.path.realpath(path)}")
    with os.fdopen(file, "rb") as stream:
        size = os.fstat(file).st_size
        known = read_arrays(place, f"shard {stamp}", SHAPES)
        if known is None or not fits(known, size):
            if progress:
                progress(number, count)
            arrays = list_samples(path, stream, size)
            write_arrays(place, f"shard {stamp}", arrays)
        else:
            arrays = {name: tensor.numpy() for name, tensor in known.items()}
    arrays["names"] = np.ascontiguousarray(arrays["names"]).view(f"S{NAME_WIDTH}").reshape(-1)
    words, left = json.loads(bytes(arrays.pop("notes")))
    return Shard(path, stamp, **arrays, words=tuple(words), left=LeftOut({tuple(kind): n for *kind, n in left}))


def fits(arrays: dict[str, Any], size: int) -> bool:
    """Could arrays from the cache be those of a file of `size` bytes?"""
    offsets, sizes, labels, called, notes = (arrays[name] for name in SHAPES)
    if called.shape != (len(offsets), NAME_WIDTH) or not len(offsets) == len(sizes) == len(labels) > 0:
        return False
    inside = (offsets >= 0) & (offsets <= size) & (sizes >= 0) & (sizes <= MAX_IMAGE) & (offsets + sizes <= size)
    words = count_words(bytes(notes))
    return words is not None and bool((inside & (labels >= -words) & (labels < MAX_CLASSES)).all())


class Bounded:
    """A file whose single reads are small: tarfile reads some headers whole, however large they say they are."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.tell, self.seek, self._read = stream.tell, stream.seek, stream.read

    def read(self, size: int = -1) -> bytes:
        """Raises tarfile.ReadError for more than MAX_LABEL bytes."""
        if not 0 <= size <= MAX_LABEL:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)


def list_samples(path: Path, stream: Any, size: int) -> dict[str, np.ndarray]:
    """Offsets, sizes, labels, names (uint8 [n, NAME_WIDTH]) and notes (words, left out) of the images in an open tar file."""
    from webdataset.tariterators import base_plus_ext  # what is a key and what a suffix: the package's rule

    samples: list[Sample] = []
    left = LeftOut()
    for member in members(path, stream, size, left):
        key, suffix = base_plus_ext(member.name)
        if key is None:
            left.add_file(os.path.basename(member.name))
            continue
        if "__" in (key[:2], key[-2:]):  # the package's own notes, as __info__.json
            continue
        if not samples or samples[-1].key != key:
            check_sample(path, samples, left)
            samples.append(Sample(key))
        take_member(path, stream.fileno(), samples[-1], suffix.lower(), member, left)
    check_sample(path, samples, left)
    found = [(s.image, s.label) for s in samples if s.image is not None and s.label is not None]
    if not found:
        seen = f" (left out: {left.in_words()})" if left else ""
        dotted = f"; {DOTTED}" if any(kind.count(".") > 1 for _, kind in left) else ""
        fix = f"a sample is an image and its label, 0001.jpg and 0001.cls{dotted}; {UNPACK}"
        raise Refused(printable(path), f"no samples in it{seen}", fix)
    called = np.array([os.fsencode(image[0])[-NAME_WIDTH:] for image, _ in found], dtype=f"S{NAME_WIDTH}")
    words = sorted({label for _, label in found if isinstance(label, str)})
    number = {word: -1 - place for place, word in enumerate(words)}
    notes = json.dumps([words, [(*kind, count) for kind, count in left.items()]]).encode()
    return {
        "offsets": np.array([image[1] for image, _ in found], dtype=np.int64),
        "sizes": np.array([image[2] for image, _ in found], dtype=np.int64),
        "labels": np.array([number[label] if isinstance(label, str) else label for _, label in found], dtype=np.int64),
        "names": called.view(np.uint8).reshape(len(found), NAME_WIDTH),
        "notes": np.frombuffer(notes, np.uint8),
    }


def members(path: Path, stream: Any, size: int, left: LeftOut) -> Iterator[tarfile.TarInfo]:
    """The plain files in a tar, each within it; a tar that does not reach its end mark is refused."""
    fix = "write the shard again"
    if path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst"):
        raise Refused(printable(path), "is compressed, so no image in it can be reached directly", "decompress it")
    try:
        with tarfile.open(fileobj=Bounded(stream), mode="r:") as tar:  # type: ignore[call-overload]
            while member := tar.next():
                tar.members.clear()  # else it keeps all that it has read  # type: ignore[attr-defined]
                if member.size < 0:  # would lead back, and round in a circle
                    raise tarfile.ReadError("a size below zero")
                if member.offset_data + member.size > size:
                    raise Refused(printable(path), "is cut short", fix)
                if member.isreg() and not member.issparse():
                    yield member
                elif not member.isdir():
                    left["links and other things that are no plain files", ""] += 1
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise Refused(printable(path), f"is not a tar file, or is damaged ({printable(str(error))})", fix) from error
    if os.pread(stream.fileno(), tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
        raise Refused(printable(path), f"is damaged or cut short at byte {end:,}", fix)


def take_member(path: Path, file: int, sample: Sample, suffix: str, member: tarfile.TarInfo, left: LeftOut) -> None:
    """Notes what a member says of its sample; a `.cls` goes before a `.json`."""
    name = printable(os.path.join(path, member.name))
    if suffix in sample.suffixes:
        raise Refused(name, "stands twice in its sample", f"write the shard again ({DOTTED})")
    sample.suffixes.add(suffix)
    if suffix in IMAGES and sample.image is None:
        if member.size > MAX_IMAGE:
            raise Refused(name, f"has {member.size:,} bytes, more than {MAX_IMAGE:,}", "make it smaller")
        sample.image = member.name, member.offset_data, member.size
    elif suffix in IMAGES:
        left["second images of their sample", ""] += 1
    elif suffix == "cls" or (suffix == "json" and "cls" not in sample.suffixes):
        if member.size > MAX_LABEL:
            raise Refused(name, f"has {member.size:,} bytes, too many for a label", "write the class number alone")
        label = parse_label(os.pread(file, member.size, member.offset_data), suffix)
        if label is None and suffix == "cls":
            raise Refused(
                name, "is no class number and no class name", "write digits, 0 for the first class, or a name"
            )
        sample.label = label
    elif suffix != "json":
        left["no images and no labels", f".{printable(suffix)[:20]}"] += 1


def check_sample(path: Path, samples: list[Sample], left: LeftOut) -> None:
    """Raises Refused where the last sample has an image without a label."""
    if not samples:
        return
    last = samples[-1]
    if last.image is not None and last.label is None:
        name, key = printable(os.path.join(path, last.image[0])), printable(last.key)
        dotted = f" ({DOTTED})" if any("." in suffix for suffix in last.suffixes) else ""
        fix = f'add {key}.cls with the class number or name, or .json with "label"{dotted}; {UNPACK}'
        raise Refused(name, "has no label", fix)
    if last.image is None and last.suffixes & {"cls", "json"}:
        left["labels without an image", ""] += 1
