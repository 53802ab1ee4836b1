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

KAGGLE = ("trainLabels.csv", "sampleSubmission.csv")
PICTURES = (".png", ".jpg", ".jpeg")


def sources(cifar: Cifar, request: Request) -> Iterator[Source]:
    """The places that hold the set, the best first; one is searched only when the ones before did not do.

    Raises:
        Refused: the place that was named is not there, holds another set, only a part of this one or a damaged archive.
    """
    if request.data_dir is not None:
        if not request.data_dir.exists():
            raise Refused(f"`data_dir={request.data_dir}`", "there is no such folder or archive")
        place = Path(os.path.abspath(request.data_dir))
        if source := look(cifar, place):
            yield source
        refuse_other_sets(cifar, place)
    if source := look(cifar, cache_folder()):
        yield source
    for owner, place in other_tools(cifar):
        source = None
        try:
            source = look(cifar, place)
        except (Refused, OSError):  # incomplete or damaged: the other tool's affair
            continue
        if source:
            yield replace(source, owner=owner)


def searched(cifar: Cifar, request: Request) -> list[Path]:
    """Where `sources` has looked, for a message."""
    named = [] if request.data_dir is None else [request.data_dir]
    return [*named, cache_folder(), *dict.fromkeys(place for _, place in other_tools(cifar))]


def look(cifar: Cifar, place: Path) -> Source | None:
    """The set in `place`: an archive, one of the files, a folder of files, or one that holds such a folder or an archive.

    Raises:
        Refused: a part of it is missing, or an archive is damaged.
    """
    if not place.is_dir():
        beside = {*cifar.archive.files, *cifar.batches}
        if place.name in beside or place.suffix == ".parquet":
            return look(cifar, place.parent)
        return look_for_archive(cifar, place) if os.path.lexists(place) else None
    incomplete: list[Refused] = []
    folders = [place / cifar.archive.folder, place / cifar.python.folder, place]
    inside = only_folder(place)
    if inside and inside not in folders:
        folders += [inside / cifar.archive.folder, inside / cifar.python.folder, inside]
    for folder in folders:
        if source := look_for_files(cifar, folder, incomplete):
            return source
    for folder in (place, *([inside] if inside else [])):
        for name in (*archive_names(cifar.archive), *archive_names(cifar.python)):
            if (folder / name).is_file() and (source := look_for_archive(cifar, folder / name)):
                return source
        if source := look_for_parquet(cifar, folder):
            return source
    if incomplete:
        raise incomplete[0]
    return None


def only_folder(place: Path) -> Path | None:
    """The one folder in `place`, as unpacking leaves it; None where there are none or several."""
    try:
        with os.scandir(place) as entries:
            folders = [Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return None
    return folders[0] if len(folders) == 1 else None


def other_tools(cifar: Cifar) -> Iterator[tuple[str, Path]]:
    """Whose cache may hold the set, and where that is."""
    home, folder = Path(os.path.expanduser("~")), cifar.python.folder
    keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
    yield "Keras", keras / f"{folder}-target"
    yield "Keras", keras
    yield "torchvision", Path.cwd() / "data"
    yield "torchvision", home / "data"
    owner, name = cifar.parquet[0].split("/")
    for hub in hubs(home):
        for repository in (f"datasets--{owner}--{name}", f"datasets--{name}"):
            snapshots = hub / repository / "snapshots"
            if snapshots.is_dir():
                yield from (("the Hugging Face hub", one) for one in sorted(snapshots.iterdir()))


def hubs(home: Path) -> list[Path]:
    """Where the Hugging Face hub's client keeps what it fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface"
    return [Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or cache) / "hub")]


def refuse_other_sets(cifar: Cifar, place: Path) -> None:
    """Refuses a place that was named and plainly holds something else, rather than to go on with data from elsewhere."""
    if not place.is_dir():
        other = next((one for one in SETS.values() if place.name in (one.archive.name, one.python.name)), None)
        why = f"this is {other.title}, not {cifar.title}" if other else f"is no archive of {cifar.title}"
        fix = f"`data_dir` takes {cifar.archive.name}, {cifar.python.name}, or a folder that holds one or its files"
        raise Refused(str(place), why, fix)
    if any((place / name).exists() for name in KAGGLE) or (place / "train" / "1.png").exists():
        why = (
            "this is Kaggle's CIFAR-10, whose test images are altered, hidden among 290,000 others, and have no labels"
        )
        fix = f"they are never taken as a test set: fetch {cifar.archive.url} and name it with `data_dir`"
        raise Refused(str(place), why, fix)
    classes = cifar.label_classes[-1]
    for folder in (place, place / "train"):
        if folder.is_dir() and sum((folder / name).is_dir() for name in classes) > len(classes) // 2:
            raise Refused(str(place), "this is a folder of images", "`dataset=folder` reads it")
