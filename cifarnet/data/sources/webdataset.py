"""WebDataset shards: tar files of samples, `<key>.jpg` beside `<key>.cls`, read by position and never unpacked.

An index of each tar says where its images lie. So every image is reached directly, and shuffling, resuming within an
epoch and sharing among ranks are exact, as for any other set; the package's own reader streams, and could promise none.
"""

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import read_text
from cifarnet.data.dataset import Dataset
from cifarnet.data.images.cache import arrays_path, held
from cifarnet.data.images.decode import ImageError, printable, read_image_bytes, why_unreadable
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.streamed import StreamedSplit, hash_arrays
from cifarnet.data.request import Request
from cifarnet.data.sources.tar_index import Shard, open_shard, read_shard

CLASSES = "classes.txt"
MOST_SHARDS = 100_000  # that a pattern may stand for
TEST_EACH = 10  # where no shard is a test shard: every tenth image of each class is a test image
VALIDATION = {"val", "valid", "validation"}


def load_shards(request: Request) -> Dataset:
    """WebDataset tar shards on this machine: a folder of them, or a pattern with braces.

    A sample is an image (`.jpg`, `.png`, …) with its label: `.cls`, a class number in digits, or `.json`, an object
    with the number as `label`. Class names are the lines of `classes.txt` beside the first shard, else the numbers.
    Shards whose names hold the word `test` (else `val`) are the test set, those with `train` (else all others) the
    training set; without any such word every tenth image of each class is a test image, in the order of the shards.

    A shard that changed in size or time of change is listed and decoded anew.

    Raises:
        Refused: the webdataset package is absent, no shards, a tar that is damaged or compressed, samples without
            label, labels that are no classes, or images that cannot be read, by name.
    """
    paths = find_shards(request.data_dir)
    with held(arrays_path(f"shards/{os.path.realpath(paths[0])}"), request.progress):
        shards = [read_shard(path, len(paths), number, request.progress) for number, path in enumerate(paths)]
    members, labels, keys = join(shards)
    classes = read_classes(paths[0].parent) or number_classes(labels)
    train, test = divide([shard.path for shard in shards], members.shard_of, labels)
    check_labels(members, labels, classes, train)
    whole = StreamedSplit(members, torch.from_numpy(labels), request.image_size)
    subject = "\0".join(os.path.realpath(path) for path in paths)
    listing = Listing("webdataset", classes, whole, keys, train, test, subject)
    return indexed_dataset(listing, request.progress)


@dataclass(frozen=True, eq=False)
class Members:
    """Images within tar files.

    Args:
        shards: the files.
        shard_of: int32 [N], an index into them.
        offsets, sizes: int64 [N], bytes.
        names: bytes of a fixed width [N], of the members, cut where they are long: for messages.
    """

    shards: tuple[Shard, ...]
    shard_of: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, index: int) -> str:
        """`shard.tar/key.jpg`, fit for a terminal."""
        return printable(os.path.join(self.shards[self.shard_of[index]].path, os.fsdecode(self.names[index])))

    def read(self, index: int, size: int) -> tuple[Tensor, list[str]]:
        """Image `index` as uint8 [3, size, size], and remarks; raises ImageError, also where the tar is no longer what was listed."""
        shard = self.shards[self.shard_of[index]]
        try:
            file, stamp = open_shard(shard.path)
            try:
                if stamp != shard.stamp:
                    raise ImageError(printable(shard.path), "was changed since the start", "start again")
                data = os.pread(file, int(self.sizes[index]), int(self.offsets[index]))
            finally:
                os.close(file)
        except OSError as error:
            raise ImageError(printable(shard.path), why_unreadable(error)) from error
        return read_image_bytes(self.name(index), data, size)

    def take(self, indices: np.ndarray) -> "Members":
        """The images at `indices`."""
        return Members(
            self.shards, self.shard_of[indices], self.offsets[indices], self.sizes[indices], self.names[indices]
        )

    def digest(self) -> str:
        """Hex digits over names, places and sizes, wherever the shards are."""
        return hash_arrays(self.shard_of, self.offsets, self.sizes, self.names)


def join(shards: list[Shard]) -> tuple[Members, np.ndarray, np.ndarray]:
    """The images of all shards in their order, with labels and keys (int64 [N] both)."""
    shard_of = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.offsets) for shard in shards])
    offsets, sizes, labels, called = (
        np.concatenate([getattr(shard, part) for shard in shards]) for part in ("offsets", "sizes", "labels", "names")
    )
    bases = [
        hashlib.blake2b(f"{os.path.realpath(shard.path)}\0{shard.stamp}".encode("utf-8", "surrogateescape")).digest()
        for shard in shards
    ]
    base = np.frombuffer(b"".join(digest[:8] for digest in bases), dtype=np.int64)
    keys = base[shard_of] ^ (offsets * np.int64(0x9E3779B97F4A7C1))  # an odd factor: within a shard no two are equal
    return Members(tuple(shards), shard_of, offsets, sizes, called), labels, keys


def find_shards(pattern: Path | None) -> list[Path]:
    """The files that a folder or a pattern with braces stands for.

    Raises:
        Refused: no pattern, an address in its place, the package is absent, a shard is missing.
    """
    if pattern is None:
        raise Refused(
            "data_dir", "webdataset needs it", "name a folder of .tar files or a pattern 'shards-{000..099}.tar'"
        )
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise Refused(
            "`dataset=webdataset`", "the webdataset package is not installed", 'pip install "cifarnet[webdataset]"'
        ) from error
    text = str(pattern)
    if re.match(r"pipe:|\w+:/|-$", text) or "::" in text:
        raise Refused("data_dir", f"{printable(text)} is not on this machine", "name .tar files that are")
    if count_names(text) > MOST_SHARDS:
        raise Refused(printable(text), f"names more than {MOST_SHARDS:,} shards", "check the braces")
    try:
        paths = sorted(pattern.glob("*.tar")) if pattern.is_dir() else [Path(name) for name in expand_urls(text)]
    except (OSError, ValueError) as error:
        raise Refused(printable(text), f"cannot be read ({printable(str(error))})", "check the braces") from error
    if not paths:
        raise Refused(printable(text), "no .tar files in it", "name a folder of shards or a pattern with braces")
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        why = f"{len(missing):,} of {plural(len(paths), 'shard')} are not there: {names(missing)}"
        fix = "name a folder of .tar files, or a pattern with braces that names those which are there"
        raise Refused(printable(text), "there is no such file" if missing == [text] else why, fix)
    return paths


def count_names(pattern: str) -> int:
    """How many names the braces of a pattern stand for, or more: `{000..099}` for 100, `{a,b}` for 2, one after another."""
    count = 1
    for inside in re.findall(r"{([^{}]*)}", pattern):
        span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
        endless = not span and ".." in inside
        count *= MOST_SHARDS + 1 if endless else int(span[2]) - int(span[1]) + 1 if span else inside.count(",") + 1
    return count


def words_of(path: Path) -> set[str]:
    """`train`, `test`, …: the words of a file's name, in small letters."""
    return set(re.findall(r"[a-z]+", path.stem.lower()))


def divide(paths: list[Path], shard_of: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """The numbers of the training images and of the test images, int64 each, in order.

    Raises:
        Refused: one of them would be empty.
    """
    words = [words_of(path) for path in paths]
    tested = [n for n, found in enumerate(words) if "test" in found]
    held = [n for n, found in enumerate(words) if found & VALIDATION]
    others = [n for n in range(len(paths)) if n not in {*tested, *held}]
    trained = [n for n, found in enumerate(words) if "train" in found and n in others] or others
    tested = tested or held
    if left := sorted({*range(len(paths))} - {*tested, *trained}):
        warnings.warn(f"shards that are not used: {names([paths[n].name for n in left])}", stacklevel=2)
    if tested:
        train, test = np.isin(shard_of, trained), np.isin(shard_of, tested)
    else:
        warnings.warn(f"no test shards: every {TEST_EACH}th image of each class is a test image", stacklevel=2)
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], labels[order])
        test = np.empty(len(labels), dtype=bool)
        test[order] = (np.arange(len(labels)) - starts) % TEST_EACH == TEST_EACH - 1
        train = ~test
    for part, chosen in (("training", train), ("test", test)):
        if not chosen.any():
            raise Refused("webdataset", f"there are no {part} images", "see `dataset=webdataset` in the README")
    return torch.from_numpy(train.nonzero()[0]), torch.from_numpy(test.nonzero()[0])


def read_classes(folder: Path) -> tuple[str, ...] | None:
    """The lines of classes.txt in `folder`, or None where there is none."""
    path = folder / CLASSES
    try:
        lines = read_text(path).rstrip().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(printable(path), f"cannot be read ({error.strerror})", "it holds a class name a line") from error
    classes = tuple(printable(line.strip()) for line in lines)
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        why = "does not hold two or more class names, all different"
        raise Refused(printable(path), why, "it holds a class name a line, the first for label 0")
    return classes


def number_classes(labels: np.ndarray) -> tuple[str, ...]:
    """`0`, `1`, …: the classes where nobody names them; no more than there are images, whatever a hostile label says."""
    count = int(labels.max()) + 1
    if count > len(labels):
        why = f"labels go up to {count - 1:,}, and there are {len(labels):,} images"
        raise Refused("webdataset", why, "labels count from 0 without gaps")
    return tuple(map(str, range(count)))


def check_labels(members: Members, labels: np.ndarray, classes: tuple[str, ...], train: Tensor) -> None:
    """Raises Refused where a label is no class, or a class has no training image."""
    wrong = (labels >= len(classes)).nonzero()[0]
    if len(wrong):
        first = f"{members.name(int(wrong[0]))} has label {labels[wrong[0]]}"
        raise Refused(first, f"there are {len(classes):,} classes, counted from 0", f"check the labels and {CLASSES}")
    if len(classes) < 2:
        raise Refused("webdataset", "all images have one label", "give each class its number")
    empty = (np.bincount(labels[train.numpy()], minlength=len(classes)) == 0).nonzero()[0]
    if len(empty):
        why = f"no training images of {names([classes[n] for n in empty])}"
        raise Refused("webdataset", why, "labels count from 0 without gaps")
