"""Whose pixels a CIFAR-10 has: the published ones, those but for a few images, or a copy's that was compressed on its way."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cifarnet.core.errors import Failed, Refused
from cifarnet.core.plain_file import read_text
from cifarnet.data.dataset import Dataset, Split
from cifarnet.data.found import DIFFERS, EXACT
from cifarnet.data.identity import VERSION, identity_of_split
from cifarnet.data.request import cache_folder
from cifarnet.storage.atomic import write_file

SUBSTITUTED = "substituted.tsv"  # beside the files: a line for each record whose pixels are not the published ones
EXACT_STD = (0.24703223, 0.24348513, 0.26158784)  # of CIFAR-10's 50,000 training images
LISTED = "training images from a JPEG copy)"  # the end of the words on a set of which a few images are listed
FEW = 1e-5  # what a few substituted images change; re-encoding all of them lowers the deviation by 2e-3


def count_substituted(folder: Path, *splits: Mapping[str, int]) -> tuple[int, ...]:
    """How many records of each split `substituted.tsv` in `folder` names; all zero where no such file is there.

    Args:
        splits: of each split the names of its files, and how many records each has.

    Raises:
        Refused: it is there and is not a list of records, `file<TAB>record<TAB>…` under a line of headings.
    """
    path = folder / SUBSTITUTED
    if not path.is_symlink() and not path.exists():
        return (0,) * len(splits)
    records = {name: count for split in splits for name, count in split.items()}
    found: set[tuple[str, int]] = set()
    for number, line in enumerate(read_lines(path)[1:], start=2):
        name, record, *_ = [*line.split("\t"), "", ""]
        if not record.isdecimal() or len(record) > 9 or int(record) >= records.get(name, 0):
            raise Refused(str(path), f"line {number} names no record of these files", "unpack the data again")
        found.add((name, int(record)))
    return tuple(sum(name in split for name, _ in found) for split in splits)


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file. Raises Refused: it is not one, or cannot be read."""
    try:
        return read_text(path).splitlines()
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})", "unpack the data again") from error


def known_exact(name: str) -> str:
    """The content of the set of this name, as `digest` gives it, whose published checksum was once seen; "" where none was."""
    try:
        return read_text(note_of(name), ceiling=1 << 10).strip()
    except OSError:
        return ""


def note_exact(name: str, content: str) -> None:
    """Notes the content of a set whose published checksum was seen; where the cache cannot be written nothing is noted."""
    with contextlib.suppress(OSError, Failed):
        note = note_of(name)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(note, content.encode() + b"\n")


def digest(*splits: Split) -> str:
    """The content of the splits, whatever the order of their images."""
    return " ".join(identity_of_split(split).content for split in splits)


def note_of(name: str) -> Path:
    return cache_folder() / "exact" / f"{name}-{VERSION}.txt"


def has_exact_contrast(std: Sequence[float]) -> bool:
    """Is this the standard deviation of CIFAR-10's training images, all of them or all but a few? That of re-encoded ones is lower."""
    return max(abs(mine - known) for mine, known in zip(std, EXACT_STD, strict=True)) < FEW


def says_published(words: str) -> bool:
    """Do these words of `pixels_of` mean the published pixels of CIFAR-10, all of them or all but a listed few?"""
    return words == EXACT or words.endswith(LISTED)


def pixels_of(data: Dataset) -> str:
    """The words that a figure measured on CIFAR-10 owes its pixels; of another set its name.

    "exact" only where a published checksum was seen, or the content is that of a set whose checksum was.
    """
    if data.name != "cifar10":
        return data.name
    status = data.found.status if data.found else ""
    train, test = data.substituted
    if status == EXACT:
        return EXACT
    if not has_exact_contrast(data.std):
        return "JPEG copy (not pixel-exact)"
    if train + test:
        return f"CIFAR-10 ({test:,} of {len(data.test):,} test and {train:,} {LISTED}"
    return "CIFAR-10 (not the published files)" if status == DIFFERS else "CIFAR-10 (files not verified)"
