"""Models side by side: parameters, and MACs an image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarnet.analysis.plots.style import PAGE, drawing, plain_powers
from cifarnet.analysis.plots.text import headline

FAMILIES = {"baseline": "#bd1f01", "resnet": "#3f90da", "plainnet": "#ffa90e", "speednet": "#832db6"}
OTHER = "#717581"
PANELS = {"parameters (millions)": "parameters", "GMACs an image (1 MAC = 2 FLOPs)": "macs_per_image"}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draws models (as `Complexity.to_dict` gives them) as points on logarithmic axes, each with its value.

    No bars: a logarithmic axis has no zero that they could begin at.

    Raises:
        Failed: the file cannot be written.
    """
    size, classes = rows[0]["image_size"], rows[0]["classes"]
    with drawing(path, PAGE, 1.1 + 0.2 * len(rows)) as figure:
        for axes, (title, key) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
            unit = 1e6 if key == "parameters" else 1e9
            names, values = [row["arch"] for row in rows], [row[key] / unit for row in rows]
            colours = [FAMILIES.get(name.rstrip("0123456789"), OTHER) for name in names]
            axes.scatter(values, names, s=26, color=colours, zorder=3)
            for name, value in zip(names, values, strict=True):
                style: Any = {"textcoords": "offset points", "va": "center", "fontsize": 6.5}
                axes.annotate(f"{value:.3g}", (value, name), (6, 0), **style)
            axes.set_xscale("log")
            plain_powers(axes.xaxis)
            axes.set_xlim(min(values) / 3, max(values) * 3)
            axes.set_title(title)
            axes.set_xlabel("logarithmic")
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(rows) - 0.4, -0.6)  # the first is the topmost
        headline(figure, f"Cost of a model: {size}×{size} images, {classes} classes")
    return path
