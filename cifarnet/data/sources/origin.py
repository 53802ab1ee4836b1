"""Whose pixels a CIFAR-10 has: the published ones, those but for a few images, or a copy's that was compressed on its way."""

from collections.abc import Mapping
from pathlib import Path

from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import read_text
from cifarnet.data.dataset import Dataset

SUBSTITUTED = "substituted.tsv"  # beside the files: a line for each record whose pixels are not the published ones
EXACT_STD = (0.24703223, 0.24348513, 0.26158784)  # of CIFAR-10's 50,000 training images
ROUNDING = 5e-7  # what the published digits may be off by; 82 images of 50,000 from a JPEG copy change them by 3e-6
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


def pixels_of(data: Dataset) -> str:
    """The words that a figure measured on CIFAR-10 owes its pixels; of another set its name.

    "exact" only where the training images have the published contrast to the last digit and no image is known to be substituted.
    """
    if data.name != "cifar10":
        return data.name
    off = max(abs(mine - known) for mine, known in zip(data.std, EXACT_STD, strict=True))
    train, test = data.substituted
    if train + test and off < FEW:
        return f"CIFAR-10 ({test:,} of {len(data.test):,} test and {train:,} training images from a JPEG copy)"
    return "exact" if off < ROUNDING and not train + test else "JPEG copy (not pixel-exact)"
