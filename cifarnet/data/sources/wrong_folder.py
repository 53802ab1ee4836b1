"""A folder that is no image folder: what was seen in it, and what to do with that."""

from pathlib import Path

from cifarnet.core.errors import Refused, plural, printable
from cifarnet.data.images.formats import is_image_name
from cifarnet.data.images.index import names
from cifarnet.data.sources.layouts import (
    ARCHIVES,
    PARQUET,
    SHARD,
    TABLES,
    TEST,
    TRAIN,
    VAL,
    Seen,
    cifar_of_names,
    look,
    role_of,
)

SHAPE = "an image folder holds train/<class>/* and test/<class>/*, or <class>/*"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def refuse_shape(folder: Path, error: OSError | None = None) -> Refused:
    """The error for a folder without class folders, or for what cannot be read as a folder."""
    what = printable(folder)
    if folder.is_file():
        return Refused(what, "is a file, not a folder", of_file(folder))
    try:
        seen = look(folder)
        above = look(folder.parent) if role_of(folder.name) in (TRAIN, TEST, VAL) else Seen()
    except OSError as new:
        return Refused(what, f"cannot be read ({(error or new).strerror})", SHAPE)
    count = f"{plural(len(seen.folders), 'class folder') if seen.folders else 'no class folder'} in it"
    if dataset := cifar_of_names(seen.folders + seen.files):
        return Refused(what, f"holds the files of {TITLES[dataset]}", f"use `dataset={dataset}`")
    places = [(folder, seen), (folder.parent, above)]
    for place, inside in places:  # a list of labels beside the images, as Kaggle has it
        if tables := inside.ending(TABLES):
            why = f"{count}, but {plural(seen.images, 'image')} and the list {printable(tables[0])}"
            return Refused(what, why, f"read it with `dataset=csv` and `data_dir={printable(place / best(tables))}`")
    if seen.ending(PARQUET):
        return Refused(what, f"{count}, but parquet files", "use `dataset=parquet`")
    if seen.ending(SHARD):
        return Refused(what, f"{count}, but .tar files", "use `dataset=webdataset`, or unpack them")
    if packed := seen.ending(ARCHIVES):
        return Refused(
            what, f"{count}, but the archive {printable(packed[0])}", "unpack it, and name the folder it makes"
        )
    if len(seen.folders) == 1 and not seen.files:
        why = f"holds a single class, {printable(seen.folders[0])}"
        return Refused(what, why, f"two are the fewest: {SHAPE}")
    if seen.images:
        why = f"{count}, but {plural(seen.images, 'image')}"
        return Refused(
            what, why, "put each class in its own folder, or list images and labels in a CSV (`dataset=csv`)"
        )
    return Refused(what, f"{count}; it holds {seen.in_words()}", f"put each class in its own folder: {SHAPE}")


def refuse_unlike(root: Path, alone: dict[str, set[str]]) -> Refused:
    """The error for parts whose classes differ; `alone`: by part the classes that only it has."""
    why = "; ".join(f"only {printable(part)} has {names(sorted(found))}" for part, found in alone.items() if found)
    return Refused(
        printable(root), f"its parts have not the same classes: {why}", "remove them, or add what is missing"
    )


def best(tables: list[str]) -> str:
    """Of several lists that of the training images."""
    return next((name for name in tables if "train" in name.lower()), tables[0])


def of_file(path: Path) -> str:
    """The advice for a file that was given in the place of a folder."""
    name = path.name.lower()
    for suffixes, fix in ((TABLES, "`dataset=csv`"), (PARQUET, "`dataset=parquet`"), (SHARD, "`dataset=webdataset`")):
        if name.endswith(suffixes):
            return f"use {fix}"
    if name.endswith(ARCHIVES):
        return "unpack it, and name the folder it makes"
    return "name the folder that holds its class" if is_image_name(name) else SHAPE
