"""The data sets: one row each. Importing the table does not import torch; a set's file is loaded on first use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.known import unknown
from cifarnet.data.request import ProgressCallback, Request

if TYPE_CHECKING:
    from cifarnet.data.dataset import Dataset


@dataclass(frozen=True)
class DatasetRow:
    """A row: the "module:function" that reads the set, and its name in titles.

    options: fields of the configuration that not every set takes; from_files: it is read from files of the user's, which
    may take a while the first time; takes_folder: `data_dir` says where to look.
    """

    loader: str
    title: str
    options: tuple[str, ...] = ()
    from_files: bool = False
    takes_folder: bool = True


SOURCES = "cifarnet.data.sources"
COLUMNS = ("image_column", "label_column")
DATASETS: dict[str, DatasetRow] = {
    "cifar10": DatasetRow(f"{SOURCES}.cifar:load_cifar10", "CIFAR-10"),
    "cifar100": DatasetRow(f"{SOURCES}.cifar:load_cifar100", "CIFAR-100", options=("coarse",)),
    "digits": DatasetRow(f"{SOURCES}.digits:load_digits", "digits", takes_folder=False),
    "folder": DatasetRow(f"{SOURCES}.folder:load_folder", "image folder", from_files=True),
    "csv": DatasetRow(f"{SOURCES}.csv_table:load_csv", "CSV of images", options=COLUMNS, from_files=True),
    "parquet": DatasetRow(f"{SOURCES}.parquet:load_parquet", "parquet of images", options=COLUMNS, from_files=True),
    "webdataset": DatasetRow(f"{SOURCES}.webdataset:load_shards", "webdataset", from_files=True),
    SYNTHETIC: DatasetRow(
        f"{SOURCES}.synthetic:load_identities", SYNTHETIC, options=("classes", "dim", "spread"), takes_folder=False
    ),
}


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 32,
    seed: int = 0,
    download: bool = True,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> "Dataset":
    """Load a data set, into memory where it fits.

    Args:
        name: a key of `DATASETS`.
        data_dir: where to look before the user's cache; the folder itself for `folder`; the file or its folder for `csv` and
            `parquet`; a folder or a pattern for `webdataset`.
        image_size: height and width in pixels; images of another size are resized with antialiasing.
        seed: of a set that is made up.
        download: fetch CIFAR, from a mirror or its official address, when it is not on this machine.
        progress: called with (done so far, in all) during a download and the first reading of an image set.
        options: those of the set's row: coarse (CIFAR-100's 20 superclasses); image_column, label_column (of a CSV or
            parquet, None: guessed); classes, dim, spread.

    Returns:
        both splits as uint8 images (of synthetic-identities as fp32 features) and int64 labels, with the mean and standard
        deviation of the training split.

    Raises:
        Refused: unknown name, data missing, damaged or unreadable, an option that the set does not have.
        Failed: a download was cut short.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    for option, value in options.items():
        if value and option not in DATASETS[name].options:
            raise Refused(option, f"{name} has no such option", "leave it out")
    if data_dir is not None and not DATASETS[name].takes_folder:
        raise Refused(
            "data_dir", f"{name} is read from no files", "leave it out, or name the `dataset` that lies there"
        )
    if image_size < 1:
        raise Refused("image_size", f"{image_size} is not a number of pixels", "give 1 or more")
    folder = Path(data_dir) if data_dir is not None else None
    reader: Callable[[Request], Dataset] = resolve_name(DATASETS[name].loader)
    from cifarnet.core.torch_settings import own_modes  # here, since it imports torch

    with own_modes():
        return reader(Request(folder, image_size, seed, download, progress, options))


def load_options(config: TrainConfig, name: str | None = None) -> dict[str, Any]:
    """The keywords of `load` that `config` decides, for its own data set or for that of `name`."""
    row = DATASETS.get(name or config.dataset)
    own = {option: getattr(config, option) for option in row.options} if row else {}
    return {"image_size": config.image_size, "seed": config.seed, **own}


def options_of_some() -> dict[str, tuple[str, ...]]:
    """The options that not every data set takes, each with those that do."""
    names = dict.fromkeys(name for row in DATASETS.values() for name in row.options)
    return {name: tuple(own for own, row in DATASETS.items() if name in row.options) for name in names}
