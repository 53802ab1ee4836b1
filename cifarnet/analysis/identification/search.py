"""1:N search: probes against a gallery in blocks, so that no matrix of all scores is ever in memory.

Candidates are found in float32, a block at a time. What decides, the scores of the best few and every comparison with the
mate's score, is computed again in float64, a pair at a time: equal templates score exactly the same, and the result does not
depend on how the blocks fall.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifarnet.analysis.identification.templates import Templates, unit_rows
from cifarnet.core.errors import Refused

PROBES, CELLS = 1024, 1 << 22  # of a block: probes, and scores at the most, 16 MB
PAIRS = 1 << 21  # numbers in float64 at a time
# Candidates kept beyond those asked for: rounding in float32 may have changed places among so many. Where more lie closer
# together than float32 can tell, which of them are listed is left to chance; ranks, which count all of them, are exact.
SPARE = 8

NOT_ENROLLED = -1


@dataclass(frozen=True, eq=False)
class Searches:
    """The answers of a gallery to N probes.

    Args:
        candidates: int64 [N, k], the identities that score best, best first; of equal ones the first in the gallery (see `SPARE`).
        scores: float64 [N, k], theirs, cosines.
        mates: int64 [N], the identity that a probe shows; -1 where it is not enrolled, or not known.
        mate_scores: float64 [N], its score; NaN where there is none.
        ranks: int64 [N], 1 + the others that score at least as much as the mate (a tie is lost); 0 where there is none.
    """

    candidates: np.ndarray
    scores: np.ndarray
    mates: np.ndarray
    mate_scores: np.ndarray
    ranks: np.ndarray


def search(probes: Any, templates: Templates, mates: Any = None, top: int = 5) -> Searches:
    """The best `top` identities for each probe, and the rank of its own.

    Args:
        probes: embeddings [N, D], of any length but zero.
        templates: what is enrolled.
        mates: int [N], the identity of each probe, -1 for one that is not enrolled; None: no probe's is known.
        top: candidates of a probe; all of them where fewer are enrolled.

    Raises:
        Refused: embeddings without a direction, of another size than the templates, or mates that are not in the gallery.
    """
    unit = unit_rows(probes)
    mates = np.full(len(unit), NOT_ENROLLED) if mates is None else np.asarray(mates, dtype=np.int64)
    if unit.shape[1] != templates.vectors.shape[1]:
        sizes = f"the probes have {unit.shape[1]:,} numbers, the templates {templates.vectors.shape[1]:,}"
        raise Refused("the embeddings", sizes, "take both from one model")
    if mates.shape != (len(unit),) or (len(mates) and not NOT_ENROLLED <= mates.min() <= mates.max() < len(templates)):
        raise Refused(
            "the mates", "they are not identities of the gallery, one a probe", "give -1 for one that is not there"
        )
    exact = Exact(unit, templates)
    known = np.flatnonzero(mates != NOT_ENROLLED)
    own = np.full(len(unit), np.nan)
    own[known] = exact.scores(known, mates[known])
    ranks = np.where(mates == NOT_ENROLLED, 0, 1)
    best = Best(len(unit), min(top + SPARE, len(templates)))
    for first, begin, scores in blocks(unit, templates):
        part = slice(begin, begin + len(scores))
        best.take(begin, scores, first)
        ranks[part] += better(exact, begin, scores, first, mates[part], own[part])
    candidates, scores = best.sorted(exact)
    return Searches(candidates[:, :top], scores[:, :top], mates, own, ranks)


def blocks(unit: np.ndarray, templates: Templates) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first identity, first probe, scores float32 [probes, identities]) of each block."""
    starts, first = templates.starts, 0
    while first < len(templates):
        # At least one identity, however many rows it has; then as many as leave room for all probes of a block.
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + CELLS // PROBES, side="right")) - 1)
        vectors = templates.vectors[starts[first] : starts[last]].T
        step = max(1, min(PROBES, CELLS // vectors.shape[1]))
        for begin in range(0, len(unit), step):
            scores = unit[begin : begin + step] @ vectors
            if scores.shape[1] > last - first:
                scores = np.maximum.reduceat(scores, starts[first:last] - starts[first], axis=1)
            yield first, begin, scores
        first = last


class Exact:
    """Scores of single pairs in float64. `error`: how far a float32 score may lie from it (Higham 2002, eq. 3.7)."""

    def __init__(self, unit: np.ndarray, templates: Templates) -> None:
        self.unit, self.templates = unit, templates
        self.error = 1.01 * (unit.shape[1] + 8) * 2.0**-24

    def scores(self, probes: np.ndarray, identities: np.ndarray) -> np.ndarray:
        """float64 [n] of n pairs of a probe and an identity."""
        starts, found = self.templates.starts, np.empty(len(probes))
        lengths = starts[identities + 1] - starts[identities]
        step = max(1, PAIRS // (self.unit.shape[1] * int(lengths.max(initial=1))))
        for begin in range(0, len(probes), step):
            part = slice(begin, begin + step)
            ends = lengths[part].cumsum()
            heads = ends - lengths[part]
            rows = np.arange(ends[-1]) + np.repeat(starts[identities[part]] - heads, lengths[part])
            products = self.templates.vectors[rows] * np.repeat(self.unit[probes[part]], lengths[part], axis=0).astype(
                float
            )
            found[part] = np.maximum.reduceat(products.sum(axis=1), heads)
        return found


def better(exact: Exact, begin: int, scores: np.ndarray, first: int, mates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How many others of a block [n, m] score at least as much as the mate [n], whose score is `own` [n] (NaN: none)."""
    level = np.where(np.isnan(own), np.inf, own)[:, None]
    high, low = (level + exact.error).astype(np.float32), (level - exact.error).astype(np.float32)
    count = np.count_nonzero(scores > high, axis=1)
    probes, columns = np.nonzero((scores >= low) & (scores <= high))
    others = columns + first != mates[probes]
    probes, columns = probes[others], columns[others]
    as_good = exact.scores(probes + begin, columns + first) >= own[probes]
    return count + np.bincount(probes[as_good], minlength=len(scores))


class Best:
    """The `kept` best identities of each of N probes so far: int64 and float32 [N, kept], best first."""

    def __init__(self, probes: int, kept: int) -> None:
        self.identities = np.full((probes, kept), NOT_ENROLLED)
        self.scores = np.full((probes, kept), -np.inf, dtype=np.float32)
        self.kept = kept

    def take(self, begin: int, scores: np.ndarray, first: int) -> None:
        """Puts in what is better of a block [n, m] that begins with this probe and this identity."""
        part = slice(begin, begin + len(scores))
        if self.identities[part, -1].min(initial=0) == NOT_ENROLLED and self.kept < scores.shape[1]:
            columns = np.argpartition(scores, -self.kept, axis=1)[:, -self.kept :].ravel()
            probes = np.repeat(np.arange(len(scores)), self.kept)
        else:
            probes, columns = np.nonzero(scores > self.scores[part, -1:])
        all_probes = np.concatenate([np.repeat(np.arange(len(scores)), self.kept), probes])
        all_scores = np.concatenate([self.scores[part].ravel(), scores[probes, columns]])
        identities = np.concatenate([self.identities[part].ravel(), columns + first])
        order = np.lexsort((-all_scores, all_probes))
        heads = np.searchsorted(all_probes[order], np.arange(len(scores)))
        chosen = order[heads[:, None] + np.arange(self.kept)]
        self.identities[part], self.scores[part] = identities[chosen], all_scores[chosen]

    def sorted(self, exact: Exact) -> tuple[np.ndarray, np.ndarray]:
        """Identities and float64 scores [N, kept], by these; of equal ones the first in the gallery comes first."""
        probes = np.repeat(np.arange(len(self.identities)), self.kept)
        scores = exact.scores(probes, self.identities.ravel()).reshape(self.identities.shape)
        order = np.lexsort((self.identities, -scores), axis=1)
        return np.take_along_axis(self.identities, order, axis=1), np.take_along_axis(scores, order, axis=1)
