"""The effect of a margin: angles to the own and to the nearest other prototype, prototype cosines, feature norms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.embedding import AngleStatistics
from cifarnet.analysis.plots.style import INK, PAGE, drawing
from cifarnet.analysis.plots.text import headline

OWN, OTHER, PLAIN = "#3f90da", "#e76300", "#717581"


def draw(angles: AngleStatistics, path: Path, title: str = "") -> Path:
    """Draws three histograms: angles (own and nearest other), cosines between prototypes, lengths of the features.

    The dashed line in the second is -1/(C-1): all pairs of C prototypes spread as far apart as can be.

    Raises:
        Failed: the file cannot be written.
    """
    with drawing(path, PAGE, 2.35) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
        bins = np.arange(0, 181, 2.5)
        for values, colour, name in ((angles.own, OWN, "own class"), (angles.nearest, OTHER, "nearest other")):
            label = f"{name}: median {np.median(values):.0f}°"
            left.hist(values, bins, color=colour, alpha=0.65, label=label)
        high = min(180.0, float(max(angles.own.max(), angles.nearest.max())) + 5)
        left.set_xlim(0, high)
        left.set_xticks(np.arange(0, high, 30))
        left.set_title("angle of a feature to a prototype")
        left.set_xlabel("θ (degrees)")
        left.set_ylabel("images")
        left.set_ylim(top=1.32 * left.get_ylim()[1])
        left.legend(loc="upper left", handlelength=1.2)
        classes = len(np.unique(angles.labels))
        count = round((1 + np.sqrt(1 + 8 * len(angles.cosines))) / 2)
        middle.hist(angles.cosines, bins=20, color=PLAIN)
        middle.axvline(-1 / (count - 1), color=INK, linestyle="--", linewidth=0.9)
        middle.set_title("cosine between prototypes")
        middle.set_xlabel(f"cos θ   (dashed: −1/{count - 1})")
        middle.set_ylabel("pairs")
        right.hist(angles.norms, bins=30, color=PLAIN)
        right.set_title("length of a feature")
        right.set_xlabel("|z|")
        right.set_ylabel("images")
        if title:
            headline(figure, f"{title} · {len(angles.own):,} images of {classes} classes")
    return path


def numbers(angles: AngleStatistics) -> Mapping[str, Any]:
    """The arrays that are drawn, by name."""
    return dict(angles.__dict__)
