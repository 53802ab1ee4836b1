"""A model and images -> what `verification` measures: of a split, of listed pairs, of folders of identities, of two images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.identification.folders import find_pictures
from cifarnet.analysis.identification.seen import copies, trained_on
from cifarnet.analysis.open_classes import images_of, open_classes
from cifarnet.analysis.unit_embeddings import Embedder, UnitEmbeddings, embed_files, embed_parts
from cifarnet.analysis.verification.measure import Verification, check_resamples, verify_pairs
from cifarnet.analysis.verification.pair_files import PairList, identity_folders
from cifarnet.analysis.verification.pairs import all_pairs, cosines_of
from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.engine.open_split import Opened


@dataclass(frozen=True)
class Asked:
    """The measurement asked for: TAR at these FARs (None: the usual ones), resamples of the intervals, accuracy by folds too.

    Raises:
        Refused: a number of resamples that gives no interval; at once, and not when all images have been embedded.
    """

    far: Sequence[float] | None = None
    bootstrap: int = 0
    folds: bool = False

    def __post_init__(self) -> None:
        check_resamples(self.bootstrap)


@dataclass(frozen=True)
class Measured:
    """The result, what it was measured on in words, and of image files the errors (each left out) and remarks.

    images: of a split, `images_of`: words alone do not tell which classes were held out.
    """

    found: Verification
    measured_on: str
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    images: tuple[tuple[str, ...], int, int] | None = None


def verify_split(opened: Opened, classes: str | None, asked: Asked, flip: bool = False) -> Measured:
    """All pairs of an opened split; `classes`, `flip`: as `embed_classes`. Raises as it, and as `verification`."""
    parts = open_classes(opened, classes)
    embeddings = embed_parts(parts, flip)
    if not (np.bincount(embeddings.labels) > 1).any():
        fix = "take the other `split`, or measure images of your own with cifarnet verify `folder`"
        raise Refused("split", f"{opened.dataset} {opened.split} has one image of each class, so no genuine pair", fix)
    seen = set(opened.info.classes)
    inside = [name in seen for name in embeddings.classes]
    kind = "seen classes" if all(inside) else "seen and unseen classes" if any(inside) else "unseen classes"
    other = "" if opened.of_own_data else " (not the run's images)"
    words = f"{opened.dataset} {opened.split}{other}, {len(embeddings.classes):,} {kind}"
    return Measured(measure_all(embeddings, asked), words, images=images_of(parts))


def measure_all(embeddings: UnitEmbeddings, asked: Asked) -> Verification:
    """All pairs of these embeddings."""
    return verify_pairs(all_pairs(embeddings.vectors, embeddings.labels), asked.far, asked.bootstrap)


def verify_listed(embedder: Embedder, listed: PairList, name: str, asked: Asked) -> Measured:
    """The pairs of a list that is called `name`; those of a file that cannot be used are left out.

    Raises:
        Refused: folds are asked for and the list has none; else as `verification`.
    """
    if asked.folds and listed.folds is None:
        raise Refused("folds", "the pairs have no folds", "give a list with a column fold, or leave `folds` out")
    places = np.arange(len(listed.files))
    found, errors, remarks = embed_files(embedder, listed.files, places, [""])
    units = np.zeros((len(places), found.vectors.shape[1]), np.float32)
    units[found.labels] = found.vectors
    usable = np.isin(places, found.labels)
    pairs, folds = listed.scored(units, usable)
    words = f"the pairs of {printable(name)}"
    if again := listed.repeated(usable):
        remarks.append(f"{printable(name)} lists {plural(again, 'pair')} again; each line counts")
    remarks += told_of_paired_copies(listed, usable)
    remarks += trained_on({composed(listed.files[place].parent.name) for place in found.labels}, embedder.info.classes)
    result = verify_pairs(pairs, asked.far, asked.bootstrap, folds=folds if asked.folds else None)
    return Measured(result, words, errors, remarks)


def told_of_paired_copies(listed: PairList, usable: np.ndarray) -> list[str]:
    """A remark on pairs of two files that hold the same bytes; none where there are none. `usable`: bool, the images that count."""
    content = np.arange(len(listed.files))
    for places in copies(listed.files):
        content[places] = places[0]
    one, other = content[listed.places].T
    alike = np.flatnonzero((one == other) & usable[listed.places].all(axis=1))
    if not len(alike):
        return []
    different = int((~listed.same[alike]).sum())
    what = f"{plural(len(alike), 'pair')} {'is' if len(alike) == 1 else 'are'} of an image and its copy"
    what += f", {different:,} of them called different" if different else ""
    which = " and ".join(printable(listed.files[place]) for place in listed.places[alike[0]])
    return [f"{what} ({which}); remove them, else the rates say little"]


def verify_folder(embedder: Embedder, folder: Path, asked: Asked) -> Measured:
    """All pairs of the images in a folder that has a folder for each identity.

    Raises:
        Refused: as `identity_folders`, `find_pictures` and `verification`.
    """
    folders, pictures = identity_folders(folder), find_pictures(folder, "folder")
    names = sorted(set(pictures.identities) - {""})
    errors = [
        f"{printable(place)}: no image files in it; remove the folder or fill it"
        for name, place in folders.items()
        if composed(name) not in names
    ]
    if not names:
        raise Refused(printable(folder), "no image files in the folders in it", "fill them")
    places = {name: place for place, name in enumerate(names)}
    known = [(file, places[name]) for file, name in zip(pictures.files, pictures.identities, strict=True) if name]
    files, labels = zip(*known, strict=True)
    found, unusable, remarks = embed_files(embedder, files, labels, names)
    if alone := pictures.identities.count(""):
        remarks.insert(0, f"{printable(folder)}: left out: {plural(alone, 'image')} in no identity's folder")
    used = set(found.names)
    shown = {names[label] for label in found.labels}
    remarks += [
        *told_of_copies([(file, label) for file, label in known if str(file) in used]),
        *trained_on(shown, embedder.info.classes),
    ]
    words = f"{printable(folder)}, {plural(len(shown), 'identity')}"
    return Measured(measure_all(found, asked), words, errors + unusable, remarks)


def told_of_copies(pictures: Sequence[tuple[Path, int]]) -> list[str]:
    """A remark on files that hold the same bytes, of one identity and of several; none where there are none.

    Args:
        pictures: the files that can be used (those that a download left empty are no copies), each with its identity.
    """
    files, labels = [file for file, _ in pictures], [label for _, label in pictures]
    groups = copies(files)
    if not groups:
        return []
    torn = [places for places in groups if len({labels[place] for place in places}) > 1]
    again = sum(len(places) - 1 for places in groups)
    what = f"{plural(again, 'image')} {'is a copy' if again == 1 else 'are copies'} of another"
    what += f", {len(torn):,} of several identities" if torn else ""
    named = printable(files[(torn or groups)[0][-1]])
    return [f"{what} ({named}); remove them, else the rates say little"]


def score_two(embedder: Embedder, images: Sequence[Any]) -> tuple[float | None, list[str], list[str]]:
    """The score of two images, their cosine (None where one cannot be used), the errors, and the remarks."""
    found, errors, remarks = embed_files(embedder, images, [0, 0], [""])
    score = None if errors else float(cosines_of(found.vectors, np.array([[0, 1]]))[0])
    return score, errors, remarks
