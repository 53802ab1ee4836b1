"""Images and labels: sources, checks, augmentation and the loader."""

from cifarnet.data.dataset import AnySplit, Dataset, Split, hold_out
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.loader import Loader
from cifarnet.data.registry import DATASETS, load, load_options
from cifarnet.data.request import cache_folder
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
    "pixels_of",
]
