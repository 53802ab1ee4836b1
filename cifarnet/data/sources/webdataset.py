"""WebDataset shards: tar files of samples, `<key>.jpg` beside `<key>.cls`, read by position and never unpacked.

An index of each tar says where its images lie. So every image is reached directly, and shuffling, resuming within an
epoch and sharing among ranks are exact, as for any other set; the package's own reader streams, and could promise none.
"""

import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import read_text
from cifarnet.core.warn import warn
from cifarnet.data.dataset import Dataset
from cifarnet.data.found import Found
from cifarnet.data.images.cache import arrays_path, held
from cifarnet.data.images.decode import printable
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.request import Request
from cifarnet.data.sources.left_out import LeftOut
from cifarnet.data.sources.members import Members, join
from cifarnet.data.sources.splits import check_trained, parts_by_name
from cifarnet.data.sources.tar_index import read_shard

CLASSES = "classes.txt"
MOST_SHARDS = 100_000  # that a pattern may stand for
TEST_EACH = 10  # where no shard is a test shard: every tenth image of each class is a test image


def load_shards(request: Request) -> Dataset:
    """WebDataset tar shards on this machine: a folder of them, or a pattern with braces.

    A sample is an image (`.jpg`, `.png`, …) with its label: `.cls`, a class number in digits or a class name, or
    `.json`, an object with one of these as `label`. Class names are the lines of `classes.txt` beside the first shard,
    else the numbers, or the names in their order.
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
    named = read_classes(paths[0].parent)
    if (labels < 0).any():
        labels, named = label_by_name(members, labels, named)
    classes = named or number_classes(labels)
    train, test = divide([shard.path for shard in shards], members.shard_of, labels)
    check_labels(members, labels, classes)
    check_trained("webdataset", classes, labels, train, "labels count from 0 without gaps")
    left = LeftOut()
    for shard in shards:
        left.update(shard.left)
    left.say(printable(str(request.data_dir)))
    whole = StreamedSplit(members, torch.from_numpy(labels), request.image_size)
    subject = "\0".join(os.path.realpath(path) for path in paths)
    found = Found("tar shards", request.data_dir or paths[0].parent, left_out=left.as_pairs())
    listing = Listing("webdataset", tuple(map(printable, classes)), whole, keys, train, test, subject, found)
    return indexed_dataset(listing, request.progress)


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


def divide(paths: list[Path], shard_of: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """The numbers of the training images and of the test images, int64 each, in order.

    Raises:
        Refused: one of them would be empty.
    """
    parts = parts_by_name([path.stem for path in paths])
    if parts.left:
        warn(f"shards that are not used: {names([paths[n].name for n in parts.left])}")
    if parts.test:
        train, test = np.isin(shard_of, parts.train), np.isin(shard_of, parts.test)
    else:
        warn(f"no test shards: every {TEST_EACH}th image of each class is a test image")
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
    classes = tuple(printable(composed(line.strip())) for line in lines)
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        why = "does not hold two or more class names, all different"
        raise Refused(printable(path), why, "it holds a class name a line, the first for label 0")
    return classes


def number_classes(labels: np.ndarray) -> tuple[str, ...]:
    """`0`, `1`, …: the classes where nobody names them; no more than there are images, whatever a hostile label says."""
    count = int(labels.max()) + 1
    if count > len(labels):
        why = f"labels go up to {count - 1:,}, and there {'is' if len(labels) == 1 else 'are'} {plural(len(labels), 'image')}"
        raise Refused("webdataset", why, "labels count from 0 without gaps")
    return tuple(map(str, range(count)))


def label_by_name(
    members: Members, labels: np.ndarray, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers for labels that are text, and the classes: those given, else the labels in order.

    Raises:
        Refused: some labels are numbers, or one is not among the classes.
    """
    if (labels >= 0).any():
        number, text = (members.name(int(kind.argmax())) for kind in (labels >= 0, labels < 0))
        raise Refused(
            text, f"has a class name as its label, and {number} a number", "give all images the one or the other"
        )
    called = classes or tuple(sorted({composed(word) for shard in members.shards for word in shard.words}))
    place = {word: number for number, word in enumerate(called)}
    parts, start = [], 0
    for shard in members.shards:
        own = labels[start : start + len(shard.labels)]
        start += len(own)
        known = np.array([place.get(composed(word), -1) for word in shard.words], dtype=np.int64)
        if (known < 0).any():
            word = printable(shard.words[int((known < 0).argmax())])
            raise Refused(printable(shard.path), f"has the label {word}, which is not in {CLASSES}", "add it there")
        parts.append(known[-1 - own])
    return np.concatenate(parts), called


def check_labels(members: Members, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raises Refused where a label is no class."""
    wrong = (labels >= len(classes)).nonzero()[0]
    if len(wrong):
        first = f"{members.name(int(wrong[0]))} has label {labels[wrong[0]]}"
        raise Refused(first, f"there are {len(classes):,} classes, counted from 0", f"check the labels and {CLASSES}")
