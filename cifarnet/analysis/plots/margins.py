"""How margins work: the own class's logit against its angle, and how far each loss moves the decision boundary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.analysis.margin_curves import APART, MarginCurve
from cifarnet.analysis.plots.style import FAINT, INK, LINES, PAGE, drawing, plain
from cifarnet.analysis.plots.text import headline

COLUMNS = 4
DASHES = (4, 2), (1, 1), (8, 2), (4, 1, 1, 1)  # of the scales without a margin


def draw(curves: Sequence[MarginCurve], path: Path, title: str | None = None) -> Path:
    """Draws all logits in one panel, and below it a circle a loss with two prototypes and the boundary between them.

    Args:
        title: None: "Margins".

    Raises:
        Failed: the file cannot be written.
    """
    rows = -(-len(curves) // COLUMNS)
    with drawing(path, PAGE, 2.5 + 1.45 * rows) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.5, 1.45 * rows))
        upper, lower = parts
        axes: Any = upper.subplots()
        for index, curve in enumerate(curves):
            style: Any = {"color": LINES[index % len(LINES)], "linestyle": ("-", "--", "-.", ":")[index % 4]}
            axes.plot(curve.theta, curve.logit, label=named(curve), **style)
        angles = curves[0].theta
        for number, scale in enumerate(sorted({curve.scale for curve in curves})):
            label = f"no margin: {scale:g} cos θ"
            axes.plot(
                angles,
                scale * angles.deg2rad().cos(),
                color=FAINT,
                linewidth=0.9,
                linestyle=(0, DASHES[number % len(DASHES)]),
                label=label,
            )
        axes.set(xlim=(0, 180), xlabel="θ to the own class's prototype (degrees)", ylabel="logit of the own class")
        axes.set_xticks(range(0, 181, 30))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        cells = lower.subplots(rows, COLUMNS, squeeze=False)
        for axes in cells.flat:
            plain(axes)
        for axes, (index, curve) in zip(cells.flat, enumerate(curves), strict=False):
            circle(axes, curve, LINES[index % len(LINES)])
        headline(
            figure,
            "Margins" if title is None else title,
            "B₀: two classes' boundary in inference; B₁: in training, for samples of class 1",
        )
    return path


def named(curve: MarginCurve) -> str:
    """The loss with its constants."""
    return f"{curve.loss}, s = {curve.scale:.3g}, m = {curve.margin:.3g}"


def circle(axes: Any, curve: MarginCurve, colour: str) -> None:
    """Two prototypes on the circle, the boundary without (B₀) and with the margin (B₁), the room between them shaded."""
    turn = np.linspace(0, np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=FAINT, linewidth=0.7)
    first, second = 90 + APART / 2, 90 - APART / 2
    for name, degrees in (("W₁", first), ("W₂", second)):
        x, y = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        )
        axes.text(1.17 * x, 1.17 * y, name, ha="center", va="center", fontsize=7)
    axes.plot([0, 0], [0, 1], color=FAINT, linestyle=(0, (4, 2)), linewidth=1.0)
    axes.text(0, 1.13, "B₀", ha="center", va="center", fontsize=7, color=FAINT)
    below = "no boundary between them"
    if curve.boundary is not None:
        at = np.radians(first - curve.boundary)
        between = np.linspace(at, np.pi / 2, 40)
        axes.fill([0, *np.cos(between)], [0, *np.sin(between)], color=colour, alpha=0.2, linewidth=0)
        axes.plot([0, np.cos(at)], [0, np.sin(at)], color=colour, linewidth=1.4)
        if abs(curve.boundary - APART / 2) > 9:
            axes.text(1.13 * np.cos(at), 1.13 * np.sin(at), "B₁", ha="center", va="center", fontsize=7, color=colour)
        below = f"B₁ at {curve.boundary:.1f}° from W₁ (B₀: {APART / 2:g}°)"
    axes.text(0, -0.12, below, ha="center", va="top", fontsize=6.5)
    axes.set(xlim=(-1.25, 1.25), ylim=(-0.3, 1.25), aspect="equal")
    axes.set_title(curve.loss, loc="center", fontsize=7.5)


def numbers(curves: Sequence[MarginCurve]) -> dict[str, Any]:
    """The numbers behind the figure, by loss."""
    return {
        curve.loss: {
            "scale": curve.scale,
            "margin": curve.margin,
            "theta": curve.theta,
            "logit": curve.logit,
            "boundary": curve.boundary,
        }
        for curve in curves
    }
