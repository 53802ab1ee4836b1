"""Quality: errors as the worst pairs are left out, beside random and best, and scores as the images get worse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.plots.legend import ROW, columns_of
from cifarnet.analysis.plots.style import FAINT, INK, LINES, PAGE, drawing
from cifarnet.analysis.plots.text import headline, height_of
from cifarnet.core.errors import plural

CURVES = ("random, 95%", "random, mean", "best possible")  # beside those of the scores


def draw(document: Mapping[str, Any], path: Path, title: str = "") -> Path:
    """Draws error against discard, and a panel for each degradation: the mean of each score at each strength.

    A score's axis is in standard deviations of the images as they are, from their mean.

    Args:
        document: what `cifarnet.analysis.quality.measure.measure_quality` returns.

    Raises:
        Failed: the file cannot be written.
    """
    panels = list(document["degradations"])
    rows, columns = (1, len(panels)) if len(panels) < 3 else (2, 2)
    colours = dict(zip(document["scores"], LINES, strict=False))
    key_columns = columns_of([*CURVES, *colours], PAGE)
    key_rows = -(-(len(CURVES) + len(colours)) // key_columns)
    with drawing(path, PAGE, (3.0 if len(panels) < 3 else 3.7) + ROW * key_rows + height_of(title)) as figure:
        left: Any = figure
        if panels:
            parts: Any = figure.subfigures(1, 2, width_ratios=(1, 0.55 * columns))
            left, right = parts
            grid = right.subplots(rows, columns, sharey=True, squeeze=False)
            for index, (axes, name) in enumerate(zip(grid.flat, panels, strict=False)):
                draw_degradation(axes, name, document["degradations"][name], colours)
                if index % columns == 0:
                    axes.set_ylabel("mean (std of originals)")
            for axes in grid.flat[len(panels) :]:
                axes.set_visible(False)
        axes = left.subplots()
        draw_discard(axes, document, colours)
        # Below the panels: in a panel no place is sure to be free of curves, and the colours are those of all panels.
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=key_columns, handlelength=1.6)
        if title:
            many = f"{plural(document['genuine_pairs'], 'genuine pair')} of {plural(document['images'], 'image')}"
            headline(figure, title, f"{document['measured_on']}, {many}")
    return path


def draw_discard(axes: Any, document: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """The error of the pairs that are kept, over the fraction left out."""
    curve = document["curve"]
    x = 100 * np.array(curve["discarded"])
    low, high = (100 * np.array(curve[f"random_{end}"]) for end in ("low", "high"))
    axes.fill_between(x, low, high, step="post", color=FAINT, alpha=0.25, linewidth=0, label=CURVES[0])
    axes.plot(x, 100 * np.array(curve["random"]), color=FAINT, linestyle="--", linewidth=1, label=CURVES[1])
    axes.plot(x, 100 * np.array(curve["best"]), color=INK, linestyle=":", linewidth=1, label=CURVES[2])
    for name, colour in colours.items():
        axes.step(x, 100 * np.array(curve["scores"][name]), where="post", color=colour, label=name)
    axes.set_title(f"error against discard, FMR {100 * document['far']:g}%")
    axes.set_xlabel("genuine pairs left out, least quality first (%)")
    axes.set_ylabel("FNMR of the others (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, min(100, axes.get_ylim()[1]) if document["fnmr"] else 1)
    if not document["fnmr"]:
        axes.text(50, 0.6, "no genuine pair is rejected", ha="center")


def draw_degradation(axes: Any, name: str, degradation: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """The mean of each score at each strength."""
    levels = np.arange(len(degradation["strengths"]))
    for score, colour in colours.items():
        axes.plot(levels, standardised(degradation["scores"][score]), "o-", color=colour, markersize=2.5)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xticks(levels, ["none", *(f"{strength:g}" for strength in degradation["strengths"][1:])])
    axes.set_title(name)
    axes.set_xlabel(degradation["unit"])


def standardised(score: Mapping[str, Any]) -> np.ndarray:
    """The means of a score, from that of the images as they are, in their standard deviations (0 where they have none)."""
    mean = np.array(score["mean"])
    return (mean - mean[0]) / (score["spread"] or np.inf)


def numbers(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The numbers that are drawn, by name."""
    panels = {
        name: {"strengths": [0.0 if s is None else s for s in one["strengths"]]}
        | {score: standardised(values) for score, values in one["scores"].items()}
        for name, one in document["degradations"].items()
    }
    return {"error_against_discard": document["curve"], "degradations": panels}
