"""Folders looked at from outside: what lies in one, and what that can be. Opens no image, needs no torch."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cifarnet.core.errors import plural, printable
from cifarnet.data.images.formats import is_image_name

TRAIN, TEST, VAL = "train", "test", "val"
ROLES = {"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST, "val": VAL, "valid": VAL, "validation": VAL}
TABLES, PARQUET, SHARD = (".csv", ".tsv"), (".parquet", ".pq"), (".tar",)
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
CIFAR = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz",
                "data_batch_1.bin", "data_batch_1"),
    "cifar100": ("cifar-100-binary", "cifar-100-python", "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
}  # fmt: skip
MOST = 2000  # entries of a folder that are looked at for an image


@dataclass(frozen=True)
class Seen:
    """Names in a folder, sorted; hidden ones are left out."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Files with the suffix of an image."""
        return sum(map(is_image_name, self.files))

    def ending(self, suffixes: tuple[str, ...]) -> list[str]:
        """The files with one of these suffixes."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def in_words(self) -> str:
        """ "12 .png, 3 .txt and the folders a, b", fit for a terminal."""
        suffixes = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in self.files)
        parts = [f"{count:,} {printable(suffix)[:20]}" for suffix, count in suffixes.most_common(3)]
        if rest := len(self.files) - sum(count for _, count in suffixes.most_common(3)):
            parts.append(plural(rest, "other file"))
        if self.folders:
            more = ", …" if len(self.folders) > 3 else ""
            named = ", ".join(printable(name) for name in self.folders[:3])
            parts.append(f"{plural(len(self.folders), 'folder')} ({named}{more})")
        return ", ".join(parts) or "nothing"


def role_of(name: str) -> str | None:
    """TRAIN, TEST or VAL, where this is one of the usual names, in whatever case."""
    return ROLES.get(name.lower())


def look(folder: str | os.PathLike[str]) -> Seen:
    """The contents of a folder, without the folders of training runs, which hold figures. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    found = [(name, inside) for name, inside in found if not (inside and is_of_runs(Path(folder, name)))]
    return Seen(*(tuple(sorted(name for name, is_folder in found if is_folder is kind)) for kind in (True, False)))


def is_of_runs(folder: Path) -> bool:
    """Is it a training run's folder, or the folder `runs` that holds them?"""
    if folder.name == "runs":
        with contextlib.suppress(OSError):
            return any(is_of_runs(place) for place in folder.iterdir() if place.is_dir())
        return False
    locked, begun = ((folder / name).exists() for name in (".lock", "config.json"))
    return locked and (begun or not holds_images(folder, depth=0))


def find_root(given: Path) -> Path:
    """The folder itself, or the one in it where nothing else of use is there: an archive's own folder, unpacked.

    Raises:
        OSError: it cannot be read.
    """
    folder = given
    for _ in range(2):
        seen = look(folder)
        useful = seen.images or seen.ending((*TABLES, *PARQUET, *SHARD, *ARCHIVES))
        if len(seen.folders) != 1 or useful or role_of(seen.folders[0]):
            return folder
        if not look(folder / seen.folders[0]).folders:
            return folder
        folder = folder / seen.folders[0]
    return folder


def split_folders(root: Path) -> dict[str, list[str]]:
    """The folders of `root` by their part, {"train": ["Training"]}: those that hold class folders, or all of them.

    A class may be called `train`: it then stands beside classes of other names, and holds images and no folders.
    """
    seen = look(root)
    found: dict[str, list[str]] = {}
    for name in seen.folders:
        if role := role_of(name):
            found.setdefault(role, []).append(name)
    named = [name for names in found.values() for name in names]
    others = [name for name in seen.folders if name not in named]
    if others and len(named) == 1 and not look(root / named[0]).folders and holds_images(root / others[0]):
        return {}
    return found


def holds_images(folder: Path, depth: int = 1) -> bool:
    """Is there an image among the first entries of a folder, or of a folder in it?"""
    inside = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MOST), entries, strict=False):
                if entry.is_dir(follow_symlinks=False):
                    inside.append(folder / entry.name)
                elif is_image_name(entry.name):
                    return True
    except OSError:
        return False
    return depth > 0 and any(holds_images(place, depth - 1) for place in sorted(inside)[:3])


def parquet_files(folder: Path, depth: int = 3) -> list[Path]:
    """The parquet files in and below a folder, sorted; links to folders are not followed."""
    found, inside = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inside.append(folder / entry.name)
            elif entry.name.lower().endswith(PARQUET):
                found.append(folder / entry.name)
    return sorted(found + [path for place in inside if depth for path in parquet_files(place, depth - 1)])


def guess_dataset(data_dir: str | os.PathLike[str]) -> str | None:
    """The data set that `data_dir` is, by what lies there: folder, csv, parquet, webdataset, cifar10, cifar100; else None."""
    path = Path(data_dir)
    name = path.name.lower()
    try:
        if not path.is_dir():
            return of_file(name) if path.is_file() or "{" in name else None
        if found := cifar_of_names([name, *look(path).folders, *look(path).files]):
            return found
        root = find_root(path)
        seen = look(root)
        if seen.ending(SHARD):
            return "webdataset"
        parts = split_folders(root)
        trained = [root / name for name in parts.get(TRAIN, [])]
        if any(look(folder).folders and holds_images(folder) for folder in trained):
            return "folder"
        if not parts and sum(holds_images(root / name) for name in seen.folders[:MOST]) > 1:
            return "folder"
        if seen.ending(TABLES) and (seen.images or any(holds_images(root / name) for name in seen.folders)):
            return "csv"
        return "parquet" if parquet_files(root) else None
    except OSError:
        return None


def cifar_of_names(names: Iterable[str]) -> str | None:
    """The CIFAR whose files or folders are among these names."""
    return next((dataset for dataset, known in CIFAR.items() if set(known) & set(names)), None)


def of_file(name: str) -> str | None:
    """The kind of a file of this name, or of a pattern of names; None for one of no known kind."""
    kinds = {"csv": TABLES, "parquet": PARQUET, "webdataset": SHARD}
    exact = cifar_of_names([re.sub(r"\.\d+$", "", name)])
    return exact or next((dataset for dataset, suffixes in kinds.items() if name.endswith(suffixes)), None)
