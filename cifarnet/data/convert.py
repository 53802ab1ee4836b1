"""A data set written in another layout: the official binary files, an image folder, or parquet; whole or not at all."""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cifarnet.core.errors import Failed, Refused, printable
from cifarnet.core.known import unknown
from cifarnet.data.registry import DATASETS
from cifarnet.data.request import ProgressCallback
from cifarnet.storage.atomic import FULL, fill_folder
from cifarnet.storage.new_folder import new_folder, sweep_folders

if TYPE_CHECKING:
    from cifarnet.data.dataset import Dataset

LAYOUTS = ("binary", "folder", "parquet")
CIFAR = ("cifar10", "cifar100")  # the sets that have an official binary layout
IMAGES = (*CIFAR, "digits")  # the sets whose images are in memory as they were published
NO_PARQUET = 'parquet files need pyarrow: pip install "cifarnet[parquet]"'


def check_conversion(name: str, layout: str, out: Path) -> None:
    """Raises Refused where `convert` could not do it; nothing is read yet."""
    if layout not in LAYOUTS:
        raise unknown("convert", layout, LAYOUTS)
    if name not in IMAGES:
        why = "its files are your own" if name in DATASETS and DATASETS[name].from_files else "it has no images"
        raise Refused(f"`convert={layout}`", f"{name} is not converted: {why}", f"choose from {', '.join(IMAGES)}")
    if layout == "binary" and name not in CIFAR:
        raise Refused("`convert=binary`", f"{name} has no official binary layout", "choose folder or parquet")
    if layout == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise Refused("`convert=parquet`", "pyarrow is not installed", NO_PARQUET)
    check_empty(out)


def check_empty(out: Path) -> None:
    """Raises Refused where `out` is there and is no empty folder, or could not be made; what a killed process left in it goes."""
    try:
        if os.path.isdir(out):
            sweep_folders(out)
        holds = next(iter(os.listdir(out)), None)
        if holds is not None:
            raise Refused(str(out), f"is not empty: {printable(holds)} is in it", "name an empty folder, or a new one")
        place = out
    except FileNotFoundError as error:
        if os.path.lexists(out):
            raise Refused(str(out), "is a link into nothing", "name an empty folder, or a new one") from error
        place = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    except OSError as error:
        why = "is not a folder" if isinstance(error, NotADirectoryError) else f"cannot be read ({error.strerror})"
        raise Refused(str(out), why, "name an empty folder, or a new one") from error
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise Refused(str(out), f"{place} cannot be written", "name another folder")


def convert(
    data: "Dataset",
    layout: str,
    out: Path,
    superclasses: "Dataset | None" = None,
    progress: ProgressCallback | None = None,
) -> "Dataset":
    """Write both splits into the folder `out`, read them back, and compare.

    Args:
        data: one of `IMAGES`, in memory.
        layout: binary (`<out>/cifar-10-batches-bin/*.bin`), folder (`<out>/{train,test}/<class>/<number>.png`, numbered in the
            order of the split) or parquet (`<out>/{train,test}-00000-of-00001.parquet` with columns `img`, PNG bytes and
            path, and `label`).
        out: empty or absent.
        superclasses: CIFAR-100 with its coarse labels, in the same order; its binary layout has both.
        progress: called with (images written, images in all).

    Returns:
        the data set that was read back from `out`.

    Raises:
        Refused: as `check_conversion`.
        Failed: it cannot be written, and nothing is left of it; or what was read back differs.
    """
    from cifarnet.data import writers  # which load torch

    check_conversion(data.name, layout, out)
    try:
        place = out if out.exists() else out.parent
        place.mkdir(parents=True, exist_ok=True)
        with new_folder(place) as folder:
            done = writers.Counter(len(data.train) + len(data.test), progress)
            if layout == "binary":
                writers.write_binary(data, superclasses, folder, done)
            elif layout == "folder":
                writers.write_images(data, folder, done)
            else:
                writers.write_parquet(data, folder, done)
            fill_folder(folder, out)
    except OSError as error:
        fix = (
            "free some space, or choose another disk with `out`"
            if error.errno in FULL
            else "choose another place with `out`"
        )
        raise Failed(str(out), f"cannot be written ({error.strerror or error})", fix) from error
    return check_written(data, layout, out)


def check_written(data: "Dataset", layout: str, out: Path) -> "Dataset":
    """Reads `out` again. Raises Failed where it is not the data set that was written: other images, labels or classes."""
    import torch

    from cifarnet.data.identity import identity_of
    from cifarnet.data.shaping import relabelled
    from cifarnet.data.writers import read_back

    written = read_back(data, layout, out)
    order = sorted(data.classes)  # an image folder has its classes in the order of their names
    renumbered = layout == "folder" and order != list(data.classes)
    numbers = torch.tensor([order.index(name) for name in data.classes] if renumbered else range(len(data.classes)))
    train, test = (relabelled(split, numbers[split.labels]) for split in (data.train, data.test))
    before = identity_of(order if renumbered else data.classes, train, test)
    after = identity_of(written.classes, written.train, written.test)
    for name in ("train", "test"):
        if getattr(before, name).content != getattr(after, name).content or before.classes != after.classes:
            raise Failed(
                str(out), f"its {name} images are not those that were written", "the disk may be damaged: remove it"
            )
    return written
