"""Folders of pictures: a folder an identity, or pictures of nobody known side by side."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.data.images.decode import find_images

PARTS = {"train", "test", "val"}  # the parts of a data set, which are no identities
SHAPE = "give a folder that holds a folder of images for each identity"


@dataclass(frozen=True)
class Pictures:
    """Image files, and the identity of each; "" where it is not known."""

    folder: Path
    files: list[Path]
    identities: list[str]

    def counts(self, enrolled: Collection[str]) -> tuple[int, int]:
        """How many show one of these identities, and how many another one."""
        mated = sum(name in enrolled for name in self.identities)
        return mated, sum(name != "" for name in self.identities) - mated


def find_pictures(folder: Path, what: str) -> Pictures:
    """The images in and below a folder; the identity of each is the name of the folder (or of the link to one) in it that holds it.

    Args:
        folder: for probes one image as well, of nobody known.
        what: the argument that names the folder, for messages.

    Raises:
        Refused: there is no such folder, it holds no image, or the parts of a data set.
    """
    if what == "probes" and folder.is_file():
        return Pictures(folder.parent, [folder], [""])
    if not folder.is_dir():
        place, fix = (
            ("folder", SHAPE) if what == "gallery" else ("image or folder", "give an image, or a folder of images")
        )
        why = f"is no {place}" if folder.exists() else f"there is no such {place}"
        raise Refused(what, f"{printable(folder)}: {why}", fix)
    files = find_images([folder], recursive=True, linked=True)
    parts = [file.relative_to(folder).parts for file in files]
    found = Pictures(folder, files, [composed(names[0]) if len(names) > 1 else "" for names in parts])
    names = set(found.identities)
    if names <= PARTS:
        fix = f"name one of them: {printable(folder / sorted(names)[0])}"
        raise Refused(what, f"{printable(folder)} holds the parts of a data set, no identities", fix)
    return found


def find_identities(folder: Path) -> Pictures:
    """The images of a gallery. Raises Refused as `find_pictures`, and where an image or a folder stands alone."""
    found = find_pictures(folder, "gallery")
    if alone := found.identities.count(""):
        why = f"{printable(folder)}: {plural(alone, 'image')} in no identity's folder"
        raise Refused("gallery", why, "put each into a folder with the identity's name")
    inside = {composed(path.name) for path in folder.iterdir() if path.is_dir()}
    if empty := sorted(name for name in inside - set(found.identities) if not name.startswith(".")):
        why = f"{printable(folder)}: no images of {printable(empty[0])}"
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise Refused("gallery", why + more, "remove the folder or fill it")
    return found
