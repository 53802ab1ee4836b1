"""Verification: DET curves on normal-deviate axes, and the distributions of both kinds of scores with the thresholds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from cifarnet.analysis.plots.legend import ROW, columns_of
from cifarnet.analysis.plots.style import COLUMN, INK, PAGE, drawing, line_colours
from cifarnet.analysis.plots.text import headline, short_names, shorten
from cifarnet.analysis.verification.rates import OperatingPoint, Rates
from cifarnet.core.errors import plural

TICKS = (1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
GENUINE, IMPOSTOR = "#3f90da", "#e76300"
LINE = 0.14  # inches that a further line of a name takes in the legend
ABOVE = 0.13  # of the highest bar: how far the name of a threshold stands above that before, more than its own height
BINS = 120


def draw_det(curves: Mapping[str, Rates], path: Path, title: str = "") -> Path:
    """Draws the DET curve of each run, whose name may have several lines. Raises Failed where the file cannot be written."""
    with drawing(path, COLUMN, COLUMN * 0.98) as figure:
        axes = figure.subplots()
        det_axes(axes, curves)
        if any(curves):  # below the axes: curves of models near chance pass through any corner
            handles, names = axes.get_legend_handles_labels()
            columns = columns_of([max(name.split("\n"), key=len) for name in names], COLUMN, 2)
            more = max(name.count("\n") for name in names)
            figure.set_figheight(figure.get_figheight() + (ROW + LINE * more) * -(-len(names) // columns))
            figure.legend(handles, names, loc="outside lower left", ncols=columns)
        if title:
            headline(figure, title)
    return path


def draw_scores(
    genuine: np.ndarray, impostor: np.ndarray, points: Sequence[OperatingPoint], path: Path, title: str = ""
) -> Path:
    """Draws the histograms of sorted genuine and impostor scores. Raises Failed where the file cannot be written."""
    with drawing(path, COLUMN * 1.3, 2.5) as figure:
        score_axes(figure.subplots(), genuine, impostor, points)
        if title:
            headline(figure, title)
    return path


def draw_both(
    curve: Rates,
    genuine: np.ndarray,
    impostor: np.ndarray,
    points: Sequence[OperatingPoint],
    path: Path,
    title: str = "",
) -> Path:
    """Draws a run's DET curve beside the histograms of its scores. Raises Failed where the file cannot be written."""
    with drawing(path, PAGE, 3.1) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        det_axes(left, {"": curve})
        score_axes(right, genuine, impostor, points)
        if title:
            headline(figure, title)
    return path


def det_axes(axes: Any, curves: Mapping[str, Rates]) -> None:
    """FNMR over FMR, both on the axis of normal deviates; the diagonal is where both are equal."""
    least, most, drawn = 0.5, 0.6, False
    names = in_key(list(curves))
    for name, curve, colour in zip(names, curves.values(), line_colours(len(curves)), strict=True):
        inside = (curve.fmr > 0) & (curve.fmr < 1) & (curve.fnmr > 0) & (curve.fnmr < 1)
        fmr, fnmr = curve.fmr[inside], curve.fnmr[inside]
        if len(fmr):
            least = min(least, float(fmr.min()), float(fnmr.min()))
            most, drawn = max(most, float(fnmr.max())), True
        label = name + ("" if len(fmr) else " (no errors)")
        axes.plot(ndtri(fmr), ndtri(fnmr), color=colour, label=label)
    if not drawn:
        axes.text(0.5, 0.6, "no errors at any threshold", ha="center", transform=axes.transAxes)
    low, high = ndtri(max(least, 1e-6)) - 0.1, ndtri(min(most, 0.995)) + 0.1
    ticks: list[float] = []
    for tick in reversed(TICKS):  # none so close to the next that their names touch
        if low <= ndtri(tick) <= high and (not ticks or ndtri(ticks[-1]) - ndtri(tick) > (high - low) / 8):
            ticks.append(tick)
    written = [f"{100 * tick:g}%" for tick in ticks]
    axes.plot([low, 0], [low, 0], color=INK, linestyle=":", linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xticks(ndtri(ticks), written)
    axes.set_yticks(ndtri(ticks), written)
    axes.set_aspect("equal")
    axes.set_xlabel("FMR: impostor pairs accepted (FAR)")
    axes.set_ylabel("FNMR: genuine pairs rejected")
    axes.set_title("DET   (dotted: both errors equal)")


def in_key(names: Sequence[str]) -> list[str]:
    """The curves' names, short enough for the legend and still apart; what follows a last colon stays whole, as in "run: EER 3%"."""
    firsts = [name.split("\n")[0] for name in names]
    rests = ["".join(first.rpartition(": ")[1:]) if ": " in first else "" for first in firsts]
    runs = [first.removesuffix(rest) for first, rest in zip(firsts, rests, strict=True)]
    runs = short_names(runs, 22 if any(rests) else 28)
    more = ["".join("\n" + shorten(line, 36) for line in name.split("\n")[1:]) for name in names]
    return ["".join(parts) for parts in zip(runs, rests, more, strict=True)]


def score_axes(axes: Any, genuine: np.ndarray, impostor: np.ndarray, points: Sequence[OperatingPoint]) -> None:
    """Both distributions, each of area one, and a line at each threshold."""
    edges, densities = densities_of(genuine, impostor)
    for name, colour in (("impostor", IMPOSTOR), ("genuine", GENUINE)):
        count = len(impostor if name == "impostor" else genuine)
        axes.stairs(
            densities[name], edges, fill=True, color=colour, alpha=0.6, label=f"{name}: {plural(count, 'pair')}"
        )
    top = max(float(density.max()) for density in densities.values())
    shown = sorted((one.threshold, one.far) for one in points if np.isfinite(one.threshold))
    for number, (threshold, rate) in enumerate(shown):  # each line ends at its name, which stands above those before
        height = top * (1.05 + ABOVE * min(number, 5))
        axes.plot([threshold, threshold], [0, height], color=INK, linestyle="--", linewidth=0.8)
        axes.text(threshold, height, f"{100 * rate:g}% ", ha="right", va="top", fontsize=6.5)
    axes.set_ylim(0, top * (1.5 + ABOVE * min(len(shown), 5)))
    axes.set_xlabel("score: cosine of two embeddings" + ("   (dashed: threshold at FAR)" if shown else ""))
    axes.set_ylabel("density")
    axes.set_title("scores")
    axes.legend(loc="upper left")


def densities_of(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The edges of the bins, and the density of each kind of sorted scores in them."""
    low, high = float(min(genuine[0], impostor[0])), float(max(genuine[-1], impostor[-1]))
    edges = np.linspace(low, max(high, low + 1e-3), BINS + 1)
    densities = {}
    for name, scores in (("genuine", genuine), ("impostor", impostor)):
        below = np.searchsorted(scores, edges.astype(scores.dtype))
        below[0], below[-1] = 0, len(scores)
        densities[name] = np.diff(below) / len(scores) / (edges[1] - edges[0])
    return edges, densities


def numbers(curves: Mapping[str, Rates]) -> Mapping[str, Any]:
    """The points of each curve, by the run's name."""
    return {
        name.replace("\n", ", "): {"threshold": one.thresholds, "fmr": one.fmr, "fnmr": one.fnmr}
        for name, one in curves.items()
    }
