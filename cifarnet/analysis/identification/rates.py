"""Open-set identification rates in the terms of ISO/IEC 19795-1: FPIR, DIR, FNIR, and the CMC of the closed set."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cifarnet.analysis.identification.search import NOT_ENROLLED, Searches
from cifarnet.analysis.verification.rates import hardly_known, supports
from cifarnet.core.errors import Refused, plural

FPIR = (0.01, 0.1)  # what is given where none is asked for
RANKS = 20  # of the CMC


@dataclass(frozen=True)
class Point:
    """DIR at one FPIR.

    asked: the FPIR that was asked for; threshold: the least observed score that meets it, inf where none does;
    fpir: the one achieved, never above it; dir: then, NaN without mated searches; few: fewer than 30 false positives
    are allowed.
    """

    asked: float
    threshold: float
    fpir: float
    dir: float
    few: bool

    @property
    def fnir(self) -> float:
        """False-negative identification rate, 1 − DIR."""
        return 1 - self.dir

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; None for a threshold of infinity, and for a DIR that is not defined."""
        threshold = self.threshold if math.isfinite(self.threshold) else None
        found, missed = (None, None) if math.isnan(self.dir) else (self.dir, self.fnir)
        rates = {"fpir_asked": self.asked, "threshold": threshold, "fpir": self.fpir, "dir": found, "fnir": missed}
        return rates | {"fewer_than_30": self.few}


@dataclass(frozen=True, eq=False)
class OpenSet:
    """Searches of people who are enrolled and of people who are not.

    Args:
        non_mated: float [n], the top score of each search whose identity is not enrolled.
        mated: float [m], the top score of each search whose identity is.
        first: bool [m], whether the mate alone has that score. A tie is no hit.
    """

    non_mated: np.ndarray
    mated: np.ndarray
    first: np.ndarray

    def __post_init__(self) -> None:
        for name, values in (("non-mated scores", self.non_mated), ("mated scores", self.mated)):
            if not np.isfinite(values).all():
                raise Refused(name, "some are not finite", "look at the embeddings")

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The observed scores without repetition, then those of non-mated searches and of hits, all ascending."""
        return (
            np.unique(np.concatenate([self.non_mated, self.mated])),
            np.sort(self.non_mated),
            np.sort(self.mated[self.first]),
        )

    def fpir(self, threshold: Any) -> Any:
        """Non-mated searches with a top score of at least `threshold` (a number or an array), as a part of all of them."""
        self.need("non_mated")
        return at_least(self._sorted[1], threshold) / len(self.non_mated)

    def dir(self, threshold: Any) -> Any:
        """Mated searches whose first candidate is the mate and scores at least `threshold`, as a part of all of them."""
        self.need("mated")
        return at_least(self._sorted[2], threshold) / len(self.mated)

    def at(self, asked: float) -> Point:
        """DIR at the FPIR `asked`.

        The threshold is the least score, observed as the top of a search of either kind, with FPIR(threshold) ≤ asked.

        Raises:
            Refused: there are fewer non-mated searches than 1 / asked, or none.
        """
        self.need("non_mated")
        check_fpir(asked, len(self.non_mated))
        observed = self._sorted[0]
        # FPIR falls from left to right: what meets it is a tail.
        place = int(np.count_nonzero(self.fpir(observed) > asked))
        threshold = float(observed[place]) if place < len(observed) else float("inf")
        few = hardly_known(asked, len(self.non_mated))
        found = float(self.dir(threshold)) if len(self.mated) else float("nan")
        return Point(asked, threshold, float(self.fpir(threshold)), found, few)

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thresholds (the observed scores, ascending, then infinity), FPIR and DIR, float64 each."""
        thresholds = np.append(self._sorted[0], np.inf)
        return thresholds, self.fpir(thresholds), self.dir(thresholds)

    def need(self, *kinds: str) -> None:
        """Raises Refused where there are no searches of one of the kinds."""
        words = {
            "non_mated": ("non-mated", "whose identity is not enrolled"),
            "mated": ("mated", "whose identity is enrolled"),
        }
        for kind in kinds:
            if not len(getattr(self, kind)):
                name, which = words[kind]
                raise Refused("probes", f"there is no {name} search", f"give some images {which}")


def check_fpir(asked: float, non_mated: int) -> None:
    """Refuses an FPIR that is no rate, or less than one search of `non_mated`, which are one or more."""
    if not 0 < asked <= 1:
        raise Refused("fpir", f"{asked:g} is no rate", "give numbers above 0, to 1")
    if not supports(asked, non_mated):
        needed = plural(math.ceil(1 / asked), "probe")
        why = f"{asked:g} needs {needed} of identities that are not enrolled, and there are {non_mated:,}"
        raise Refused("fpir", why, f"ask for {rounded_up(1 / non_mated):g} or more")


def rounded_up(rate: float) -> float:
    """The next larger number of three digits."""
    step = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return math.ceil(rate / step) * step


def at_least(ascending: np.ndarray, threshold: Any) -> Any:
    """How many of the values are as large as the threshold, or as each of several."""
    return len(ascending) - np.searchsorted(ascending, threshold, side="left")


def open_set(searches: Searches, known: Any = None) -> OpenSet:
    """The numbers of searches that open-set rates need. `known`: bool [N], the probes whose identity is known (None: all)."""
    top = searches.scores[:, 0]
    mated = searches.mates != NOT_ENROLLED
    other = ~mated if known is None else ~mated & np.asarray(known, dtype=bool)
    first = searches.ranks[mated] == 1
    return OpenSet(top[other], np.where(first, searches.mate_scores[mated], top[mated]), first)


def cmc(ranks: Any, identities: int, top: int = RANKS) -> np.ndarray:
    """Cumulative match characteristic, closed set: the part of the mated searches with their mate at rank r or better.

    Args:
        ranks: int [N]; those below 1 are of searches without a mate, and left out.
        identities: in the gallery.

    Returns:
        float64 [k] for r = 1 … k, k the lesser of `top` and `identities`.

    Raises:
        Refused: no search has a mate.
    """
    ranks = np.asarray(ranks)
    ranks = np.sort(ranks[ranks > 0])
    if not len(ranks):
        raise Refused("probes", "there is no mated search", "give some images whose identity is enrolled")
    return np.searchsorted(ranks, np.arange(1, min(top, identities) + 1), side="right") / len(ranks)
