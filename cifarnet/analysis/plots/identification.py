"""Identification: how often the mate is among the first r (CMC), and at rank one above the threshold (DIR over FPIR)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.style import FAINT, LINES, PAGE, drawing, plain_powers
from cifarnet.analysis.plots.text import headline

WRITTEN = 4  # thresholds written into the figure


def draw(
    cmc: Any,
    path: Path,
    title: str = "",
    curve: tuple[Any, Any] | None = None,
    points: Sequence[tuple[float, float, float]] = (),
    searches: tuple[int, int] = (0, 0),
) -> Path:
    """Draws the CMC, and beside it DIR over FPIR where there are non-mated searches.

    Args:
        cmc: [k], the part of the mated searches with their mate at rank 1 … k.
        curve: FPIR and DIR [T] each, in the order of ascending thresholds.
        points: FPIR, DIR and threshold of what is marked.
        searches: mated and non-mated ones.

    Raises:
        Failed: the file cannot be written.
    """
    with drawing(path, PAGE if curve else PAGE / 2, 2.7) as figure:
        left, *right = figure.subplots(1, 2 if curve else 1, squeeze=False)[0]
        draw_cmc(left, np.asarray(cmc), searches[0])
        if curve:
            draw_rates(right[0], np.asarray(curve[0]), np.asarray(curve[1]), points, searches[1])
        if title:
            headline(figure, title)
    return path


def draw_cmc(axes: Any, cmc: np.ndarray, searches: int) -> None:
    """The CMC in percent."""
    axes.plot(np.arange(1, len(cmc) + 1), 100 * cmc, color=LINES[0], marker="o", markersize=3, clip_on=False)
    low = 100 * float(cmc[0])
    axes.set_ylim(max(0.0, low - max(2.0, (100 - low) / 4)), 100)
    axes.set_xlim(0.5, len(cmc) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"CMC of {searches:,} mated searches")
    axes.set_xlabel("rank")
    axes.set_ylabel("mate at this rank or better (%)")


def draw_rates(
    axes: Any, fpir: np.ndarray, dir_: np.ndarray, points: Sequence[tuple[float, float, float]], searches: int
) -> None:
    """DIR over FPIR in percent; FPIR logarithmic from the least that the searches can tell, one of them."""
    least = 100 / searches
    seen = fpir > 0
    axes.step(100 * fpir[seen], 100 * dir_[seen], color=LINES[1], where="post")
    axes.set_xscale("log")
    axes.set_xlim(least, 100)
    axes.set_ylim(0, 102)
    plain_powers(axes.xaxis)
    for index, (asked, rate, threshold) in enumerate(points[:WRITTEN]):
        axes.plot([100 * asked], [100 * rate], color=LINES[1], marker="o", markersize=4, clip_on=False)
        axes.axvline(100 * asked, color=FAINT, linewidth=0.6, linestyle=":")
        place = (5, -9 - 9 * (index % 2))
        axes.annotate(f"τ = {threshold:.3f}", (100 * asked, 100 * rate), place, textcoords="offset points", fontsize=7)
    axes.set_title(f"DIR at FPIR, {searches:,} non-mated searches")
    axes.set_xlabel("FPIR (%)")
    axes.set_ylabel("DIR (%): mate first and above τ")
