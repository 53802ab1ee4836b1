"""Which images the genuine pairs fail with that score below a threshold."""

from collections.abc import Iterator

import numpy as np

from cifarnet.analysis.verification.pairs import MOST, AllPairs
from cifarnet.analysis.verification.rates import check_far
from cifarnet.core.errors import Refused
from cifarnet.core.fields import Bounds, check_bounds

BLOCK = 4_000_000  # pairs looked at together
RATES = Bounds(above=0, high=0.5)  # false match rates that can be asked for


def check_rate(far: float) -> None:
    """Raises Refused for a false match rate that is out of range."""
    check_bounds("far", far, RATES)


def check_labels(labels: np.ndarray, far: float) -> None:
    """Refuses labels [N] that leave nothing to measure, before there are scores: too few pairs for `far`, or too many."""
    check_rate(far)
    sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    total, genuine = len(labels) * (len(labels) - 1) // 2, int((sizes * (sizes - 1) // 2).sum())
    if not genuine:
        raise Refused("quality", "no class has two images, so there is no genuine pair", "take more images of a class")
    if genuine == total:
        raise Refused("quality", "all images are of one class, so there is no impostor pair", "take two classes")
    if total > MOST:
        raise Refused("quality", f"the images make {total:,} pairs; at most {MOST:,} are scored", "take fewer images")
    check_far(far, total - genuine)


def failures_by_image(pairs: AllPairs, threshold: float, qualities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The genuine pairs in which an image is the lesser one, and how many of these score below the threshold.

    A pair goes when its lesser image does: these counts are all that a curve needs. Of two equal images it is the first.

    Args:
        qualities: [Q, N], several scores of the images, higher is better.

    Returns:
        int64 [Q, N] each: pairs, failures.
    """
    found, failures = (np.zeros(qualities.shape, np.int64) for _ in range(2))
    for first, end in identities(pairs):
        members = pairs.order[first:end]
        order = np.argsort(qualities[:, members], axis=1, kind="stable")
        rank = np.argsort(order, axis=1).astype(np.int32)
        found[:, members] = len(members) - 1 - rank
        for rows, below in blocks_below(pairs, first, end, threshold):
            for one, ranks in enumerate(rank):
                lesser = ranks > ranks[rows, None]  # is the row's image the lesser one?
                failures[one, members[rows]] += np.count_nonzero(below & lesser, axis=1)
                failures[one, members] += np.count_nonzero(below & ~lesser, axis=0)
    return found, failures


def identities(pairs: AllPairs) -> Iterator[tuple[int, int]]:
    """The first place, and that after the last, of each identity."""
    first = 0
    while first < len(pairs.ends):
        yield first, int(pairs.ends[first])
        first = int(pairs.ends[first])


def blocks_below(pairs: AllPairs, first: int, end: int, threshold: float) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of one identity's n places, and bool [rows, n]: is the pair, of a row with a later place, below the threshold?"""
    count = end - first
    step = max(1, BLOCK // count)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        below = np.zeros((rows.stop - rows.start, count), bool)
        later = np.arange(count) > np.arange(rows.start, rows.stop)[:, None]
        begin, stop = (pairs.genuine_rows[first + place] for place in (rows.start, rows.stop))
        below[later] = pairs.genuine[begin:stop] < np.float32(threshold)
        yield rows, below
