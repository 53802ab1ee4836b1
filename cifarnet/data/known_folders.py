"""Where the user's own commands have read data: a checkpoint may come from a stranger, and names a folder of its own.

Such a folder is read without being named again only where it stands here.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from cifarnet.core.caches import cache_folder
from cifarnet.core.errors import Failed
from cifarnet.storage.atomic import write_file

_of_this_process: set[Path] = set()  # all of them, in case the cache cannot be written


def remember_folder(data_dir: str | Path) -> None:
    """Notes that data was read here at the user's word; where the cache cannot be written, for this process alone."""
    _of_this_process.add(_note(data_dir))
    with contextlib.suppress(OSError, Failed):
        note = _note(data_dir)
        if not note.exists():
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(note, os.fsencode(os.path.abspath(data_dir)) + b"\n")


def is_known(data_dir: str | Path) -> bool:
    """True where a command of this user has named the folder before."""
    note = _note(data_dir)
    return note in _of_this_process or note.exists()


def _note(data_dir: str | Path) -> Path:
    name = hashlib.blake2b(os.fsencode(os.path.abspath(data_dir)), digest_size=16).hexdigest()
    return cache_folder() / "known-folders" / name
