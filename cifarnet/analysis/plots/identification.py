"""Identification: how often the mate is among the first r (CMC), and at rank one above the threshold (DIR over FPIR)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.identification.rates import OpenSet, Point
from cifarnet.analysis.plots.style import FAINT, LINES, PAGE, drawing, plain_powers, whole_numbers
from cifarnet.analysis.plots.text import headline, height_of
from cifarnet.core.errors import plural

ROOM = 1.2  # factor of FPIR between the edges of the axis and what is drawn next to them


def draw(cmc: np.ndarray, rates: OpenSet, points: Sequence[Point], path: Path, title: str = "") -> Path:
    """Draws the CMC, and beside it DIR over FPIR where there are non-mated searches.

    Args:
        cmc: [k], the part of the mated searches with their mate at rank 1 … k.
        rates: of the searches, mated ones among them.
        points: what is marked.
        path: PNG, SVG or PDF.

    Raises:
        Failed: the file cannot be written.
    """
    both = len(rates.non_mated) > 0
    with drawing(path, PAGE if both else PAGE / 2, 2.6 + height_of(title)) as figure:
        left, *right = figure.subplots(1, 1 + both, squeeze=False)[0]
        draw_cmc(left, cmc, len(rates.mated))
        if both:
            draw_rates(right[0], rates, points)
        if title:
            headline(figure, title)
    return path


def numbers(cmc: np.ndarray, rates: OpenSet, points: Sequence[Point]) -> dict[str, Any]:
    """The numbers that are drawn: the CMC, the curve by ascending threshold, and the points with a finite one."""
    found: dict[str, Any] = {"mated_searches": len(rates.mated), "non_mated_searches": len(rates.non_mated), "cmc": cmc}
    if len(rates.non_mated):
        thresholds, fpir, detected = rates.curve()
        found["curve"] = {"threshold": thresholds[:-1], "fpir": fpir[:-1], "dir": detected[:-1]}
    records = [point.to_dict() for point in points if math.isfinite(point.threshold)]
    found["points"] = {
        name: [record[name] for record in records] for name in ("fpir_asked", "threshold", "fpir", "dir")
    }
    return found


def draw_cmc(axes: Any, cmc: np.ndarray, searches: int) -> None:
    """The CMC in percent."""
    axes.plot(np.arange(1, len(cmc) + 1), 100 * cmc, color=LINES[0], marker="o", markersize=3, clip_on=False)
    low = 100 * float(cmc[0])
    axes.set_ylim(max(0.0, low - max(2.0, (100 - low) / 4)), 100)
    axes.set_xlim(0.5, len(cmc) + 0.5)
    whole_numbers(axes.xaxis)
    axes.set_title(f"CMC of {plural(searches, 'mated search')}")
    axes.set_xlabel("rank")
    axes.set_ylabel("mate at this rank or better (%)")


def draw_rates(axes: Any, rates: OpenSet, points: Sequence[Point]) -> None:
    """DIR over FPIR in percent; FPIR logarithmic from left of the least that the searches can tell, one of them."""
    _, fpir, detected = rates.curve()
    least, seen = 1 / len(rates.non_mated), fpir > 0
    axes.step(100 * fpir[seen], 100 * detected[seen], color=LINES[1], where="pre")
    axes.set_xscale("log")
    # Room on both sides: a dotted line on the edge is not seen, and the first threshold's is often at the least FPIR.
    axes.set_xlim(min(100 * least, 50) / ROOM, 100 * ROOM)
    axes.set_ylim(0, 102)
    plain_powers(axes.xaxis)
    for point in points:
        place = 100 * max(point.fpir, least), 100 * point.dir
        axes.plot(*place, color=LINES[1], marker="o", markersize=4, clip_on=False)
        axes.axvline(place[0], color=FAINT, linewidth=0.6, linestyle=":")
        text = f"τ = {point.threshold:.3f}".replace("-", "−")
        beside = (5, -10 if point.dir > 0.1 else 5)
        axes.annotate(text, place, beside, textcoords="offset points", fontsize=7, annotation_clip=False)
    axes.set_title(f"DIR at FPIR, {plural(len(rates.non_mated), 'non-mated search')}")
    axes.set_xlabel("FPIR (%)" + ("   (dotted: at the threshold τ)" if points else ""))
    axes.set_ylabel("DIR (%): mate first and above τ")
