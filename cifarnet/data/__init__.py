"""Images and labels: sources, checks, augmentation and the loader."""

from collections.abc import Callable
from pathlib import Path

from cifarnet.core.config import SYNTHETIC
from cifarnet.core.errors import Refused
from cifarnet.data.dataset import AnySplit, Dataset, Split, hold_out
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.loader import Loader
from cifarnet.data.request import Progress, Request, cache_folder
from cifarnet.data.sources.cifar import load_cifar10, load_cifar100
from cifarnet.data.sources.digits import load_digits
from cifarnet.data.sources.folder import load_folder
from cifarnet.data.sources.origin import pixels_of
from cifarnet.data.sources.synthetic import FeatureSplit, Identities, load_identities
from cifarnet.data.sources.webdataset import load_shards

DATASETS: dict[str, Callable[[Request], Dataset]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "digits": load_digits,
    "folder": load_folder,
    "webdataset": load_shards,
    SYNTHETIC: lambda request: load_identities(request.identities),
}

__all__ = [
    "DATASETS",
    "AnySplit",
    "Dataset",
    "FeatureSplit",
    "Identities",
    "Loader",
    "Split",
    "StreamedSplit",
    "cache_folder",
    "hold_out",
    "load",
    "pixels_of",
]


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 32,
    coarse: bool = False,
    download: bool = True,
    progress: Progress | None = None,
    identities: Identities | None = None,
) -> Dataset:
    """Load a data set, into memory where it fits.

    Args:
        name: a key of `DATASETS`.
        data_dir: where to look before the user's cache; the folder itself for `folder`; a folder or a pattern for
            `webdataset`.
        image_size: height and width in pixels; images of another size are resized with antialiasing.
        coarse: the 20 superclasses of CIFAR-100.
        download: fetch CIFAR from its official address when it is not on this machine.
        progress: called with (done so far, in all) during a download and the first reading of an image set.
        identities: what synthetic-identities makes.

    Returns:
        both splits as uint8 images (of synthetic-identities as fp32 features) and int64 labels, with the mean and standard deviation of the training split.

    Raises:
        Refused: unknown name, data missing, damaged or unreadable.
        Failed: a download was cut short.
    """
    if name not in DATASETS:
        raise Refused("--dataset", f"there is no {name!r}", f"choose one of {', '.join(DATASETS)}")
    if coarse and name != "cifar100":
        raise Refused("coarse labels", f"{name} has none", "only cifar100 has them")
    if image_size < 1:
        raise Refused("--image-size", f"{image_size} is not a number of pixels", "give 1 or more")
    folder = Path(data_dir) if data_dir is not None else None
    return DATASETS[name](Request(folder, image_size, coarse, download, progress, identities))
