#!/usr/bin/env python3
"""Draws docs/losses.svg: of each loss the target's logit against its angle, and the slope, as the code computes them.

    python scripts/study/loss_curves.py [--out docs/losses.svg]

Logits come from the losses' own objectives with their default constants, slopes from autograd: no formula stands here.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.margin_curves import at_angles
from cifarnet.analysis.plots.mpl import Line2D
from cifarnet.analysis.plots.style import FAINT, LINES, PAGE, drawing
from cifarnet.losses import build_head
from cifarnet.losses.angles import clamp_cosine
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Batch, OneVsAll

CLASSES, COLUMNS, ROW = 10, 3, 1.75  # inches a row
TARGET, OTHERS = (LINES[0], LINES[3], LINES[1], LINES[5]), LINES[2]
STEEPEST = 3.0  # slopes are drawn so far
THETA = torch.linspace(0.25, 179.75, 360, dtype=torch.float64)  # degrees
LOGIT = torch.linspace(-6, 6, 121, dtype=torch.float64)


@dataclass
class Curve:
    """One line: constants and what the head keeps, where they are not the loss's; norm: |z|."""

    words: str = ""
    constants: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    norm: float = 1.0
    loss: str = ""


@dataclass
class Panel:
    """A loss; others: the other classes' curve is drawn too, for a target at 60 degrees."""

    loss: str
    curves: Sequence[Curve] = (Curve(),)
    others: bool = False
    constants: dict[str, Any] = field(default_factory=dict)
    title: str = ""


def spread(margin: float, sigma: float) -> list[Curve]:
    """ElasticFace's margin, and two standard deviations to either side."""
    return [
        Curve("m − 2σ", {"margin": margin - 2 * sigma}),
        Curve("m", {"margin": margin}),
        Curve("m + 2σ", {"margin": margin + 2 * sigma}),
    ]


PANELS = [
    Panel("cosface"),
    Panel("arcface"),
    Panel("sphereface", [Curve("at the start", memory={"state": 0}), Curve("step 2,000", memory={"state": 2000})]),
    Panel("sphereface-r", constants={"variant": "v0"}, title="sphereface-r v0"),
    Panel("sphereface-r", constants={"variant": "v1"}, title="sphereface-r v1"),
    Panel("sphereface-r", others=True, constants={"variant": "v2"}, title="sphereface-r v2"),
    Panel(
        "adaface",
        [
            Curve(words, memory={"state": (20, 5)}, norm=norm)
            for words, norm in (("|z| 3σ below μ", 5), ("at μ", 20), ("3σ above", 35))
        ],
    ),
    Panel("magface", [Curve("|z| = 10", norm=10), Curve("|z| = 110", norm=110)]),
    Panel("kappaface", [Curve("ψ = 0.35", memory={"psi": 0.35}), Curve("ψ = 1", memory={"psi": 1.0})]),
    Panel("elastic-arcface", spread(0.5, 0.05)),
    Panel("elastic-cosface", spread(0.35, 0.05)),
    Panel("ldam", [Curve("rarest class", memory={"counts": 1}), Curve("100 × as many", memory={"counts": 100})]),
    Panel("curricularface", [Curve(memory={"state": 0.3})], others=True, title="curricularface, t = 0.3"),
    Panel("mv-arcface", others=True),
    Panel("mv-cosface", others=True),
    Panel("subcenter-arcface"),
    Panel("adacos", title="adacos, adacos-fixed"),
    Panel("uniface", others=True),
    Panel("sphereface2", others=True, title="sphereface2 C"),
    Panel("sphereface2", others=True, constants={"variant": "A"}, title="sphereface2 A"),
    Panel("sphereface2", others=True, constants={"variant": "M"}, title="sphereface2 M"),
]
LINEAR = [
    Panel("ce", [Curve("ce", loss="ce"), Curve("focal", loss="focal")], title="ce, focal: the loss"),
    Panel(
        "la",
        [
            Curve("la, rare", loss="la", memory={"counts": 1}),
            Curve("vs, rare", loss="vs", memory={"counts": 1}),
            Curve("both, 100 × as many", loss="vs", memory={"counts": 100}),
        ],
        title="la, vs: the loss",
    ),
]


def main() -> None:
    """Draws all panels into one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/losses.svg"))
    out = parser.parse_args().out
    rows = -(-(len(PANELS) + len(LINEAR) + 1) // COLUMNS)
    with drawing(out, PAGE, rows * ROW) as figure:
        cells = iter(figure.add_gridspec(rows, COLUMNS, hspace=0.08, wspace=0.04))
        for panel in PANELS:
            draw(figure, next(cells), panel, angular_lines(panel), THETA, "θ (degrees)")
        for panel in LINEAR:
            draw(figure, next(cells), panel, linear_lines(panel), LOGIT, "logit of the own class, the others' 0")
        explain(figure, next(cells))


def angular_lines(panel: Panel) -> list[tuple[str, str, Tensor, Tensor]]:
    """(words, colour, value, d value / d cosine) of each line over THETA."""
    lines = []
    for curve, colour in zip(panel.curves, TARGET, strict=False):
        objective, batch, options, cosine = panel_at(panel, curve, THETA)
        value = (
            objective.target_logit(batch, options)
            if isinstance(objective, OneVsAll)
            else objective.target(batch, options)
        )
        lines.append((curve.words, colour, *with_slope(value, cosine)))
    if panel.others:
        objective, batch, options, _ = panel_at(panel, panel.curves[0], torch.tensor([60.0], dtype=torch.float64))
        cosine = THETA.deg2rad().cos().requires_grad_()
        if isinstance(objective, OneVsAll):
            value = objective.other_logits(clamp_cosine(cosine)[None], batch.memory, options)[0]
        else:
            value = objective.others(clamp_cosine(cosine)[None], batch, options)[0]
        lines.append(("", OTHERS, *with_slope(value, cosine)))
    return lines


def panel_at(panel: Panel, curve: Curve, degrees: Tensor) -> tuple[Any, Batch, Any, Tensor]:
    """As `at_angles`, with the constants and what is kept of a panel's curve."""
    return at_angles(panel.loss, degrees, {**panel.constants, **curve.constants}, curve.memory, curve.norm)


def linear_lines(panel: Panel) -> list[tuple[str, str, Tensor, Tensor]]:
    """(words, colour, loss, - d loss / d logit) of each line over LOGIT, the logit of class 1 of a head without a margin."""
    lines = []
    for curve, colour in zip(panel.curves, TARGET, strict=False):
        head = build_head(CLASSES, CLASSES, curve.loss).double()
        with torch.no_grad():
            head.weight.copy_(torch.eye(CLASSES))
            head.bias.zero_()
        counts = torch.full((CLASSES,), 10)
        counts[1] = curve.memory.get("counts", 10)
        head.count(torch.arange(CLASSES).repeat_interleave(counts))
        logits = torch.zeros(len(LOGIT), CLASSES, dtype=torch.float64)
        logits[:, 1] = LOGIT
        logits.requires_grad_()
        losses = torch.stack([head(row[None], torch.tensor([1])) for row in logits])
        (slope,) = torch.autograd.grad(losses.sum(), logits)
        lines.append((curve.words, colour, losses.detach(), -slope[:, 1]))
    return lines


def with_slope(value: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """The value, and its derivative by the cosine as autograd has it."""
    (slope,) = torch.autograd.grad(value.sum(), cosine)
    return value.detach(), slope


def draw(figure: Any, cell: Any, panel: Panel, lines: list[Any], x: Tensor, label: str) -> None:
    """Values above, slopes below."""
    angular = x is THETA
    over, under = (figure.add_subplot(part) for part in cell.subgridspec(2, 1, height_ratios=(2.6, 1), hspace=0.0))
    one_vs_all = angular and isinstance(OBJECTIVES[panel.loss], OneVsAll)
    if angular and not one_vs_all:
        over.plot(x, x.deg2rad().cos(), color=FAINT, linewidth=1.0)
    for words, colour, value, slope in lines:
        style = {"color": colour, "linewidth": 1.3, "linestyle": "--" if colour == OTHERS else "-"}
        over.plot(x, value, label=words, **style)
        under.plot(x, slope, **style)
    if any(words for words, *_ in lines):
        over.legend(loc="lower left" if angular else "upper right", fontsize=6, handlelength=1.4, borderaxespad=0.1)
    over.set_title(panel.title or panel.loss)
    over.set_ylabel("f" if one_vs_all else "ψ" if angular else "loss")
    lowest = min(float(slope.min()) for *_, slope in lines)
    highest = 1.15 * max(float(slope.max()) for *_, slope in lines)
    under.set_ylim(min(0.0, 1.1 * lowest), highest if one_vs_all else min(highest, STEEPEST))
    under.set_ylabel("slope")
    under.set_xlabel(label, fontsize=6.5, labelpad=1)
    for axes in (over, under):
        axes.set_xlim(float(x[0]) // 1, -(-float(x[-1]) // 1))
        if angular:
            axes.set_xticks((0, 45, 90, 135, 180))
    over.tick_params(labelbottom=False)


def explain(figure: Any, cell: Any) -> None:
    """What the lines are, in a cell of its own."""
    axes = figure.add_subplot(cell)
    axes.axis("off")
    keys = [
        Line2D([], [], color=TARGET[0], label="the own class"),
        Line2D([], [], color=OTHERS, linestyle="--", label="another class; the own at 60°"),
        Line2D([], [], color=FAINT, label="cos θ: no margin"),
    ]
    axes.legend(handles=keys, loc="upper left", fontsize=7)
    words = (
        "ψ: the logit without s; f: the logit.\nslope: its derivative by cos θ, from\nautograd; drawn up to 3.\n"
        "ce, focal, la, vs: minus the loss's\nderivative by the logit."
    )
    axes.text(0.02, 0.42, words, fontsize=7, va="top", transform=axes.transAxes)


if __name__ == "__main__":
    main()
