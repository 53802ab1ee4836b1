"""Where a data set was found, and how far its images are known to be the published ones."""

from dataclasses import dataclass
from pathlib import Path

from cifarnet.core.errors import plural

EXACT, UNVERIFIED, DIFFERS = "exact", "unverified", "differs"


def patched(images: int) -> str:
    """The status of a set of which so many images are known not to be the published ones."""
    return f"patched: {plural(images, 'image')}"


@dataclass(frozen=True)
class Found:
    """A data set on the disk.

    Args:
        layout: in words: "official binary", "Python batches", "parquet", "image folder", "CSV", "tar shards".
        path: the folder, the archive or the file.
        status: EXACT (a published checksum was seen), `patched`, DIFFERS (a published file with another checksum), UNVERIFIED.
        left_out: files that are no part of the set, by reason: {"no image's suffix": 3}.
    """

    layout: str
    path: Path
    status: str = UNVERIFIED
    left_out: tuple[tuple[str, int], ...] = ()
