"""The draws of a bootstrap: how often each identity, and each image within its identity, is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

GROUP = 1_000  # resamples that are weighed together: 80 MB of float32 weights for 10,000 images
FEWEST = 20  # identities; of fewer the images within them are drawn, and the identities stay


@dataclass(frozen=True)
class Draws:
    """Weights of R resamples of N images of C identities.

    A genuine pair (i, j) weighs w * m_i * m_j, an impostor pair w_a * w_b * m_i * m_j. An identity drawn twice counts its
    genuine pairs twice, and its two copies make no pairs with each other: no pair is scored twice, none with itself.

    Args:
        labels: int64 [N], 0 to C - 1.
        identities: int16 [R, C], how often each identity is drawn (w); images: int16 [R, N], each image (m).
    """

    labels: np.ndarray
    identities: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.identities)

    def of_images(self, resample: int) -> np.ndarray:
        """int64 [N]: m of one resample."""
        return self.images[resample].astype(np.int64)

    def of_both(self, resample: int) -> np.ndarray:
        """int64 [N]: w * m of one resample."""
        return self.identities[resample].astype(np.int64)[self.labels] * self.images[resample]


def draw(labels: np.ndarray, resamples: int, seed: int, *, identities: bool, images: bool) -> Iterator[Draws]:
    """Draws with replacement, in groups: as many identities as there are, and of each as many images as it has.

    Args:
        labels: int64 [N], 0 to C - 1.
        identities, images: draw these; else each stands once.
    """
    generator = np.random.default_rng(seed)
    for first in range(0, resamples, GROUP):
        yield draw_group(labels, min(GROUP, resamples - first), generator, identities=identities, images=images)


def draw_group(
    labels: np.ndarray, resamples: int, generator: np.random.Generator, *, identities: bool, images: bool
) -> Draws:
    """The next resamples of a generator; see `draw`."""
    count, size = int(labels.max()) + 1, len(labels)
    drawn_identities = np.ones((resamples, count), np.int16)
    drawn_images = np.ones((resamples, size), np.int16)
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=count)
    starts = (np.cumsum(sizes) - sizes)[labels[order]]  # of each place, where its identity begins
    widths = sizes[labels[order]]
    for resample in range(resamples):
        if identities:
            chosen = generator.integers(0, count, count)
            drawn_identities[resample] = np.bincount(chosen, minlength=count)
        if images:
            chosen = starts + (generator.random(size) * widths).astype(np.int64)
            drawn_images[resample, order] = np.bincount(chosen, minlength=size)
    return Draws(labels, drawn_identities, drawn_images)
