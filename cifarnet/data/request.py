"""A request for a data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifarnet.core.caches import cache_folder as cache_folder

# (done so far, in all): bytes of a download, images that are read for the first time
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """How a data set is to be loaded.

    Args:
        data_dir: where to look first, or None.
        image_size: height and width of the images in pixels.
        seed: of what is made up.
        download: fetch what is not on this machine.
        progress: told about a download, or about the first reading of many images.
        options: those of the set's row, by name.
    """

    data_dir: Path | None = None
    image_size: int = 32
    seed: int = 0
    download: bool = True
    progress: ProgressCallback | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
