"""What the runs of a regime say of each loss against cross-entropy: paired differences, their intervals, and Holm's p."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from margins_plan import METHODS, Measure, Regime

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.significance import Interval, student_interval

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]  # the JSON of a regime's runs, by method and number of the seed
SURE = 0.05  # a corrected p below it
LEAST = 3  # seeds of which an interval is given
TINY = 1e-9  # points: what rounding leaves of no difference


@dataclass(frozen=True)
class Difference:
    """By how many points a method is better than cross-entropy, seed by seed (draw by draw).

    values: by the number of the seed, of those that both have; interval: of their mean, Student's of 95%; p: of the two-sided
    paired t test; holm: corrected for all methods of the regime, run or not. None of fewer than three seeds, or where all
    differences are alike: there is no spread to compare with.
    """

    method: str
    values: dict[int, float]
    interval: Interval | None = None
    p: float | None = None
    holm: float | None = None

    @property
    def better(self) -> bool:
        """Does the whole interval lie above 0?"""
        return self.interval is not None and self.interval.low > 0

    @property
    def worse(self) -> bool:
        """Does the whole interval lie below 0?"""
        return self.interval is not None and self.interval.high < 0

    @property
    def sure(self) -> bool:
        """Is it another than cross-entropy also after the correction?"""
        return self.holm is not None and self.holm < SURE


def differences(regime: Regime, measure: Measure, results: Results) -> list[Difference]:
    """Each method of a regime but cross-entropy, in the plan's order; points are percentage points, more is better."""
    found = []
    for method in regime.methods:
        if method == "ce":
            continue
        values = paired(measure, results.get("ce", {}), results.get(method, {}))
        points = list(values.values())
        tested = len(points) >= LEAST and max(points) - min(points) > TINY
        found.append(
            Difference(method, values, *((student_interval(points), paired_p(points)) if tested else (None, None)))
        )
    corrected = holm([1.0 if one.p is None else one.p for one in found])  # a loss that is to come counts from the start
    return [replace(one, holm=None if one.p is None else p) for one, p in zip(found, corrected, strict=True)]


def paired(measure: Measure, plain: Mapping[int, Any], other: Mapping[int, Any]) -> dict[int, float]:
    """Points by which `other` is better than `plain`, of each seed that both have."""
    sign = -100.0 if measure.less_is_better else 100.0
    both = sorted(plain.keys() & other.keys())
    found = {n: sign * (other[n]["measures"][measure.name] - plain[n]["measures"][measure.name]) for n in both}
    if not all(math.isfinite(value) for value in found.values()):
        raise ValueError(f"{measure.name} is not finite in some run: {found}")
    return found


def paired_p(values: Sequence[float]) -> float:
    """The two-sided p of the paired t test that the mean difference is 0, of two differences or more that are not all alike."""
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values (Holm 1979), in the order given. Where those below 0.05 are taken for real, one of these
    is found by chance in at most 5% of cases: one of a measure of a regime here, and there are fourteen of these.

    The k-th smallest of n is multiplied by n - k + 1, is at least the one before it, and at most 1.
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def verdict(regime: Regime, results: Results) -> str:
    """What a finished regime says of margins, in sentences."""
    found = [(measure, one) for measure in regime.measures for one in differences(regime, measure, results)]
    margins = [(measure, one) for measure, one in found if METHODS[one.method].margin]
    better = [said(measure, one) for measure, one in margins if one.better]
    worse = [said(measure, one) for measure, one in margins if one.worse]
    count = f"{regime.seeds} {regime.unit}s"
    lines = [
        f"Better than cross-entropy, with the whole interval above 0: {'; '.join(better)}."
        if better
        else f"**No margin's interval lies above 0: as far as {count} can tell, no margin pays here.**"
    ]
    lines += [f"Worse, with the whole interval below 0: {'; '.join(worse)}."] if worse else []
    others = [
        f"{said(measure, one)} ({'better' if one.better else 'worse'})"
        for measure, one in found
        if not METHODS[one.method].margin and (one.better or one.worse)
    ]
    return " ".join(lines + ([f"Without a margin: {'; '.join(others)}."] if others else []))


def short_verdict(regime: Regime, results: Results) -> str:
    """The same in a few words: "no", or which margins pay, by which measure; "perhaps" where that is not sure after the correction."""
    better: dict[str, list[str]] = {}
    for measure in regime.measures:
        for one in differences(regime, measure, results):
            if METHODS[one.method].margin and one.better:
                better.setdefault(f"`{one.method}`", []).append(("" if one.sure else "perhaps ") + measure.words)
    return "; ".join(f"{name} ({', '.join(words)})" for name, words in better.items()) or "no"


def said(measure: Measure, one: Difference) -> str:
    """A difference in words: "arcface, EER, +1.20 (0.30 to 2.10; Holm's p 0.03)"."""
    assert one.interval is not None and one.holm is not None
    interval = f"{one.interval.mean:+.2f} ({one.interval.low:+.2f} to {one.interval.high:+.2f}"
    doubt = "" if one.sure else ", not sure after the correction"
    return f"`{one.method}`, {measure.words}, {interval}; Holm's p {p_words(one.holm)}{doubt})"


def p_words(p: float | None) -> str:
    """A p value for a table."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
