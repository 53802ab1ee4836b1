"""Where CIFAR is looked for: the folder or archive that was named, the program's cache, then what other tools have fetched."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cifarnet.core.errors import Refused
from cifarnet.data.request import Request, cache_folder
from cifarnet.data.sources.cifar_layouts import Source, archive_names, look_for_archive, look_for_files
from cifarnet.data.sources.cifar_parquet import look_for_parquet
from cifarnet.data.sources.cifar_sets import SETS, Cifar

KERAS, TORCHVISION, HUB = "Keras", "torchvision", "the Hugging Face hub"


def sources(cifar: Cifar, request: Request) -> Iterator[Source]:
    """The places that hold the set, the best first; one is searched only when those before it did not do.

    Raises:
        Refused: the place that was named is not there, holds another set, only a part of this one or a damaged archive.
    """
    if request.data_dir is not None:
        if not os.path.exists(request.data_dir):
            raise Refused(f"`data_dir={request.data_dir}`", "there is no such folder or archive")
        place = Path(os.path.abspath(request.data_dir))
        if source := look(cifar, place):
            yield source
        refuse_another_set(cifar, place)
    if source := look(cifar, cache_folder()):
        yield source
    for owner, root in other_tools():
        for place in places_in(cifar, owner, root):
            try:
                source = look(cifar, place)
            except Refused:  # incomplete or damaged: the other tool's affair
                continue
            if source:
                yield replace(source, owner=owner)


def searched(request: Request) -> list[Path]:
    """Where `sources` looks, for a message."""
    named = [] if request.data_dir is None else [request.data_dir]
    return [*named, cache_folder(), *(root for _, root in other_tools())]


def look(cifar: Cifar, place: Path) -> Source | None:
    """The set in `place`: an archive, one of the files, a folder of files, or one that holds such a folder or an archive.

    Raises:
        Refused: a part of it is missing, or an archive is damaged.
    """
    if not os.path.isdir(place):
        if place.name in {*cifar.archive.files, *cifar.batches} or place.suffix == ".parquet":
            return look(cifar, place.parent)
        return look_for_archive(cifar, place) if os.path.lexists(place) else None
    incomplete: list[Refused] = []
    places = [place, *only_folder(place)]
    for folder in (place / cifar.archive.folder, place / cifar.python.folder, *places):
        if source := look_for_files(cifar, folder, incomplete):
            return source
    for folder in places:
        for name in (*archive_names(cifar.archive), *archive_names(cifar.python)):
            if os.path.isfile(folder / name) and (source := look_for_archive(cifar, folder / name)):
                return source
        if source := look_for_parquet(cifar, folder):
            return source
    if incomplete:
        raise incomplete[0]
    return None


def only_folder(place: Path) -> list[Path]:
    """The one folder in `place`, as unpacking may leave it, and the one in that; none where there are several."""
    found: list[Path] = []
    while len(found) < 2:
        folders = [path for path in listed(found[-1] if found else place) if os.path.isdir(path)]
        if len(folders) != 1:
            break
        found += folders
    return found


def listed(folder: Path) -> list[Path]:
    """The entries of a folder, by name, without hidden ones; none where it cannot be read."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError:
        return []


def other_tools() -> list[tuple[str, Path]]:
    """Tools that fetch CIFAR, and where each keeps it."""
    home, environment = Path(os.path.expanduser("~")), os.environ.get
    hub = Path(environment("HF_HOME") or Path(environment("XDG_CACHE_HOME") or home / ".cache") / "huggingface") / "hub"
    return [
        (KERAS, Path(environment("KERAS_HOME") or home / ".keras") / "datasets"),
        (TORCHVISION, Path(os.path.abspath("data"))),
        (TORCHVISION, home / "data"),
        (HUB, Path(environment("HF_HUB_CACHE") or hub)),
    ]


def places_in(cifar: Cifar, owner: str, root: Path) -> list[Path]:
    """The folders of a tool's cache that may hold this set."""
    if owner == KERAS:
        return [root / f"{cifar.python.folder}-target", root]
    if owner == TORCHVISION:
        return [root]
    repository = "datasets--" + cifar.parquet[0].replace("/", "--")
    return listed(root / repository / "snapshots")


def refuse_another_set(cifar: Cifar, place: Path) -> None:
    """Refuses a place that was named and plainly holds something else, rather than to go on with data from elsewhere."""
    if not os.path.isdir(place):
        other = next((one for one in SETS.values() if place.name in (one.archive.name, one.python.name)), None)
        why = f"this is {other.title}, not {cifar.title}" if other else f"is no archive of {cifar.title}"
        fix = f"`data_dir` takes {cifar.archive.name}, {cifar.python.name}, or a folder that holds one or its files"
        raise Refused(str(place), why, fix)
    if os.path.exists(place / "trainLabels.csv") or os.path.exists(place / "train" / "1.png"):
        why = (
            "this is Kaggle's CIFAR-10, whose test images are altered, hidden among 290,000 others, and have no labels"
        )
        fix = f"they are never taken as a test set: fetch {cifar.archive.url} and name it with `data_dir`"
        raise Refused(str(place), why, fix)
    classes = cifar.label_classes[-1]
    for folder in (place, place / "train"):
        if sum(os.path.isdir(folder / name) for name in classes) > len(classes) // 2:
            raise Refused(str(place), "this is a folder of images", "`dataset=folder` reads it")
