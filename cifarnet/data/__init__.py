"""Images and labels: sources, checks, augmentation and the loader. The table of data sets is here without torch."""

import importlib
from typing import TYPE_CHECKING, Any

from cifarnet.core.caches import cache_folder
from cifarnet.data.registry import DATASETS, load, load_options

if TYPE_CHECKING:
    from cifarnet.data.dataset import AnySplit, Dataset, Split, hold_out, make_dataset
    from cifarnet.data.images.streamed import StreamedSplit
    from cifarnet.data.loader import Loader
    from cifarnet.data.sources.origin import pixels_of
    from cifarnet.data.sources.synthetic import FeatureSplit, Identities

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
    "load_options",
    "make_dataset",
    "pixels_of",
]

_HOME = dict.fromkeys(("AnySplit", "Dataset", "Split", "hold_out", "make_dataset"), "cifarnet.data.dataset")
_HOME |= {"StreamedSplit": "cifarnet.data.images.streamed", "Loader": "cifarnet.data.loader"}
_HOME |= dict.fromkeys(("FeatureSplit", "Identities"), "cifarnet.data.sources.synthetic")
_HOME |= {"pixels_of": "cifarnet.data.sources.origin"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
