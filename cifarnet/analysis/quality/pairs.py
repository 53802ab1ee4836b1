"""All pairs of a set of images: the threshold at a false match rate, and each image's genuine pairs that fall below it.

Scores are cosines, computed in float64 and kept in float32, so that equal pairs have equal scores. No N x N matrix is held.
Shapes: N images, D dimensions, P and I the numbers of genuine and impostor pairs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cifarnet.core.errors import Refused
from cifarnet.core.fields import Bounds, check_bounds

BLOCK = 4_000_000  # scores held at a time
RATES = Bounds(above=0, high=0.5)  # false match rates that can be asked for


@dataclass(frozen=True)
class Threshold:
    """`value` is the smallest observed score at which no more than `asked` of the impostor pairs match; inf: there is none.

    achieved: the part of the `impostor` pairs that match at it; genuine: the number of genuine pairs.
    """

    value: float
    asked: float
    achieved: float
    genuine: int
    impostor: int


def count_pairs(labels: np.ndarray) -> tuple[int, int]:
    """The numbers of genuine and of impostor pairs among images with these labels [N]."""
    sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    genuine = int((sizes * (sizes - 1) // 2).sum())
    return genuine, len(labels) * (len(labels) - 1) // 2 - genuine


def check_rate(far: float) -> None:
    """Raises Refused for a false match rate that is out of range."""
    check_bounds("far", far, RATES)


def check_pairs(labels: np.ndarray, far: float) -> tuple[int, int]:
    """`count_pairs`, where a threshold at the false match rate `far` can be found among them.

    Raises:
        Refused: no genuine or no impostor pair, or too few of these for `far`.
    """
    check_rate(far)
    genuine, impostor = count_pairs(labels)
    if not genuine:
        raise Refused(
            "pairs", "no class has two images here, so there is no genuine pair", "take more images of a class"
        )
    if not impostor:
        raise Refused(
            "pairs", "all images are of one class, so there is no impostor pair", "take images of two classes"
        )
    if far * impostor < 1:
        why = f"{far:g} needs {math.ceil(1 / far):,} impostor pairs, and there are {impostor:,}"
        raise Refused("far", why, f"give {least_far(impostor)} or more, or take more images")
    return genuine, impostor


def least_far(impostor: int) -> str:
    """The least false match rate that so many impostor pairs support, rounded up to two digits."""
    digits = 1 - math.floor(math.log10(1 / impostor))
    return f"{math.ceil(10**digits / impostor) / 10**digits:g}"


def find_threshold(embeddings: np.ndarray, labels: np.ndarray, far: float) -> Threshold:
    """The threshold over all pairs of unit embeddings [N, D] with labels [N].

    Raises:
        Refused: as `check_pairs`; an embedding that is not finite.
    """
    genuine, impostor = check_pairs(labels, far)
    embeddings = finite(embeddings)
    allowed = int(far * impostor) + 1
    while allowed / impostor > far:
        allowed -= 1
    highest = np.empty(0, np.float32)  # of the impostor scores: those allowed, and the next
    for rows, scores in upper_blocks(embeddings):
        other = labels[rows, None] != labels[None, rows.start :]
        found = scores[np.triu(other, 1)]
        if len(highest) > allowed:
            found = found[found > highest.min()]
        highest = np.concatenate([highest, found])
        if len(highest) > allowed + 1:
            highest = np.partition(highest, -(allowed + 1))[-(allowed + 1) :]
    barrier = highest.min() if len(highest) > allowed else -np.inf
    above = highest[highest > barrier].min(initial=np.inf)
    for members in classes_of(labels):
        for _, scores in upper_blocks(embeddings[members]):
            scores = scores[np.triu(np.ones(scores.shape, bool), 1)]
            above = min(above, scores[scores > barrier].min(initial=np.inf))
    achieved = int((highest >= above).sum()) / impostor
    return Threshold(float(above), far, achieved, genuine, impostor)


def failures_by_image(
    embeddings: np.ndarray, labels: np.ndarray, threshold: float, qualities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The genuine pairs in which an image is the lesser one, and how many of these score below the threshold.

    A pair goes when its lesser image does: these counts are all that a curve needs. Of two equal images the first is taken.

    Args:
        qualities: [Q, N], several scores of the images.

    Returns:
        int64 [Q, N] each: pairs, failures.
    """
    embeddings = finite(embeddings)
    pairs, failures = (np.zeros(qualities.shape, np.int64) for _ in range(2))
    for members in classes_of(labels):
        order = np.argsort(qualities[:, members], axis=1, kind="stable")
        rank = np.argsort(order, axis=1).astype(np.int32)
        pairs[:, members] = len(members) - 1 - rank
        chosen = embeddings[members]
        step = max(1, BLOCK // len(members))
        for start in range(0, len(members), step):
            rows = slice(start, start + step)
            below = (chosen[rows] @ chosen.T).astype(np.float32) < threshold
            for one, ranks in enumerate(rank):
                failures[one, members[rows]] = np.count_nonzero(below & (ranks > ranks[rows, None]), axis=1)
    return pairs, failures


def classes_of(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of the images of each class that there is."""
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label)


def upper_blocks(embeddings: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """All scores in blocks: rows [a, b), and the scores [b - a, N - a] of these with themselves and all later images."""
    count = len(embeddings)
    start = 0
    while start < count:
        rows = slice(start, min(count, start + max(1, BLOCK // (count - start))))
        yield rows, (embeddings[rows] @ embeddings[start:].T).astype(np.float32)
        start = rows.stop


def finite(embeddings: np.ndarray) -> np.ndarray:
    """float64 embeddings. Raises Refused for numbers that are not finite."""
    bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if bad:
        raise Refused("embeddings", f"{bad:,} of {len(embeddings):,} are not finite", "leave these images out")
    return embeddings.astype(np.float64)
