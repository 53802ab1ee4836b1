"""Signs that rates of pictures look better than they are: copies of a file, and identities that the model was trained on."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cifarnet.core.class_names import composed
from cifarnet.core.errors import plural
from cifarnet.core.plain_file import open_plain


def copies(files: Sequence[Path]) -> list[list[int]]:
    """The places in `files` that hold the same bytes, or are one file: a list for each content that is there twice or more.

    Only files of equal size are read. One that cannot be read is no copy: whoever opens the image says what it is.
    """
    sizes, contents = defaultdict(list), defaultdict(list)
    for place, file in enumerate(files):
        try:
            status = os.stat(file)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[status.st_size].append(place)
    for places in sizes.values():
        for place in places if len(places) > 1 else []:
            if content := content_of(files[place]):
                contents[content].append(place)
    return [places for places in contents.values() if len(places) > 1]


def content_of(file: Path) -> bytes | None:
    """SHA-256 of a file's bytes; None where it cannot be read."""
    try:
        with open_plain(file) as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None


def contents_of(files: Sequence[Path]) -> np.ndarray:
    """uint8 [N, 32]: SHA-256 of each file that can be read."""
    found = b"".join(filter(None, map(content_of, files)))
    return np.frombuffer(found, np.uint8).reshape(-1, 32)


def trained_on(identities: Collection[str], classes: Collection[str]) -> list[str]:
    """A remark where identities have the names of classes that a model was trained on, else none.

    Args:
        identities: "" is none.
        classes: the model's, of the training.
    """
    names = set(identities) - {""}
    shared = len(names & {composed(name) for name in classes})
    if not shared:
        return []
    have = "has the name of a class" if shared == 1 else "have names of classes"
    what = f"{shared:,} of {plural(len(names), 'identity')} {have} that the model was trained on"
    return [f"{what}: the rates of identities that it has seen say little of new ones"]
