"""A labelled set -> a gallery, probes of those who are in it, and probes of those who are not."""

import numpy as np

from cifarnet.core.errors import Refused


def divide(labels: np.ndarray, images: int = 5, strangers: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A part of the identities is enrolled with a few images each; all other images are probes.

    Args:
        labels: int [N], identities.
        images: enrolled of each identity, fewer where it has not one more than that.
        strangers: the part of the identities that is not enrolled, rounded to the nearer number; one or more is enrolled.
        seed: of the choice of identities and of images.

    Returns:
        the places of the gallery's images and of the probes, int64, both ascending.

    Raises:
        Refused: no enrolled identity has a second image, for a probe.
    """
    random = np.random.default_rng(seed)
    identities = random.permutation(np.unique(labels))
    enrolled = identities[: max(1, len(identities) - round(strangers * len(identities)))]
    chosen = np.zeros(len(labels), dtype=bool)
    for identity in np.sort(enrolled):
        places = random.permutation(np.flatnonzero(labels == identity))
        chosen[places[: max(1, min(images, len(places) - 1))]] = True
    if not (~chosen & np.isin(labels, enrolled)).any():
        raise Refused("classes", "each has one image: enrolled, it leaves no probe", "take a split with more images")
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)
