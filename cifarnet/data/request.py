"""What a user asks of a data set, and where data is kept."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cifarnet.data.sources.synthetic import Identities

# (done so far, in all): bytes of a download, images that are read for the first time
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """How a data set is to be loaded.

    Args:
        data_dir: where to look first, or None.
        image_size: height and width of the images in pixels.
        coarse: CIFAR-100's 20 superclasses in place of its 100 classes.
        download: fetch what is not on this machine.
        progress: told about a download, or about the first reading of many images.
        identities: what the synthetic ones are.
    """

    data_dir: Path | None = None
    image_size: int = 32
    coarse: bool = False
    download: bool = True
    progress: Progress | None = None
    identities: Identities | None = None


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/cifarnet`, by default `~/.cache/cifarnet`. A relative `XDG_CACHE_HOME` is ignored."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cifarnet"
