"""The diagram of a network: its stages from the image down to the logits, and beside them the inside of its blocks."""

from pathlib import Path
from typing import Any

from cifarnet.analysis.diagram import FOLLOW, Block, Diagram, Stage, Step
from cifarnet.analysis.plots.mpl import Rectangle
from cifarnet.analysis.plots.style import FAINT, INK, drawing
from cifarnet.analysis.plots.text import headline

ROW, BOX, TOP = 0.5, 0.34, 0.3  # inches: from one box to the next, height of a box, room for the title
WIDTH, BLOCK = 2.75, 1.3  # inches: of a box of the network, of a block's
COLOURS = {"conv": "#dbeafc", "max-pool": "#fdebc8", "avg-pool": "#fdebc8", "fc": "#eadcf0", "head": "#eadcf0"}
PLAIN, GROUPED = "#f2f2f2", "#e0eee3"


def draw(network: Diagram, path: Path, title: str | None = None) -> Path:
    """Draws the stages as boxes from top to bottom, with the shape and the parameters of each; at their right the blocks.

    Args:
        title: None: the architecture and its parameters.

    Raises:
        Failed: the file cannot be written.
    """
    tallest = max((len(merged(block.steps)) + len(merged(block.tail)) + 3 for block in network.blocks), default=0)
    height = TOP + ROW * max(len(network.stages) + 1, tallest)
    width = 4.15 + 1.48 * min(len(network.blocks), 2)
    with drawing(path, width, height) as figure:
        figure.set_layout_engine("none")  # the places are given here
        axes: Any = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        y = height - TOP - ROW / 2
        box(axes, 0.1, y, WIDTH, ["image"], PLAIN)
        beside(axes, y, shape_of(network.input), "")
        for stage in network.stages:
            arrow(axes, 0.1 + WIDTH / 2, y - BOX / 2, y - ROW + BOX / 2)
            y -= ROW
            box(axes, 0.1, y, WIDTH, words(stage), colour(stage))
            count = f"{stage.parameters:,} parameters" if stage.parameters else ""
            beside(axes, y, shape_of(stage.output), count)
        for index, block in enumerate(network.blocks[:2]):
            draw_block(axes, 4.15 + 1.5 * index, height - TOP - ROW / 2, block)
        heading = f"{network.arch} · {network.parameters:,} parameters" if title is None else title
        if heading:
            headline(figure, heading)
    return path


def words(stage: Stage) -> list[str]:
    """The lines of a stage's box: a layer with its activation; or how many blocks, and the layers in one."""
    if stage.count:
        inside = " – ".join(step.words for step in stage.steps if step.window[0])
        return [f"{stage.count} × {stage.kind}" if stage.count > 1 else stage.kind, inside]
    return [
        ", ".join([step.words if index == 0 else step.kind for index, step in enumerate(stage.steps)]) or stage.kind
    ]


def colour(stage: Stage) -> str:
    """A stage's colour: blocks, or the kind of the layer."""
    return GROUPED if stage.count else COLOURS.get(stage.kind.removeprefix("global ").split(" ")[0], PLAIN)


def shape_of(shape: tuple[int, ...]) -> str:
    """channels × height × width."""
    return "×".join(str(size) for size in shape)


def merged(steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    """(words, kind) of each box of a way through a block: a layer with the norms and activations that follow it."""
    found: list[tuple[str, str]] = []
    for step in steps:
        if step.kind == "bias":
            continue
        if found and step.kind in FOLLOW:
            found[-1] = (f"{found[-1][0]}\n{step.kind}" if "\n" not in found[-1][0] else f"{found[-1][0]}, {step.kind}",
                         found[-1][1])  # fmt: skip
        else:
            found.append((step.words, step.kind))
    return found


def draw_block(axes: Any, x: float, y: float, block: Block) -> None:
    """A block from top to bottom, its shortcut at the right, from the input to the sum."""
    middle, out = x + (BLOCK - 0.3) / 2, x + BLOCK - 0.1
    kind = {None: "no shortcut", 0: "identity"}.get(
        None if block.shortcut is None else len(block.shortcut), "projection"
    )
    axes.text(middle, y + 0.08, f"{block.kind}\n{kind}", ha="center", va="center", fontsize=6.5, weight="bold")
    y -= ROW * 0.75
    axes.text(middle, y + 0.1, shape_of(block.input), ha="center", va="center", fontsize=6)
    start = y - 0.04
    arrow(axes, middle, y + 0.02, y - ROW + BOX / 2)
    for text, name in merged(block.steps):
        y -= ROW
        box(axes, x, y, BLOCK - 0.3, text.split("\n"), COLOURS.get(name, PLAIN))
        arrow(axes, middle, y - BOX / 2, y - ROW + BOX / 2)
    y -= ROW
    if block.shortcut is not None:
        axes.text(middle, y, "+", ha="center", va="center", fontsize=9, bbox={"boxstyle": "circle,pad=0.15", "fc": "white",
                  "ec": INK, "lw": 0.7})  # fmt: skip
        axes.plot([middle, out, out], [start, start, y], color=INK, lw=0.8)
        axes.annotate("", (middle + 0.12, y), (out, y), arrowprops=ARROW)
        inside = ", ".join(text.replace("\n", ", ") for text, _ in merged(block.shortcut)) or "identity"
        label = {"boxstyle": "square,pad=0.25", "fc": COLOURS["conv"] if block.shortcut else "white", "ec": "none"}
        axes.text(out, (start + y) / 2, inside, rotation=90, ha="center", va="center", fontsize=6, bbox=label)
    for text, name in merged(block.tail):
        arrow(axes, middle, y - 0.12, y - ROW + BOX / 2)
        y -= ROW
        box(axes, x, y, BLOCK - 0.3, text.split("\n"), COLOURS.get(name, PLAIN))


ARROW: Any = {"arrowstyle": "-|>", "lw": 0.8, "color": INK, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}


def arrow(axes: Any, x: float, top: float, bottom: float) -> None:
    """An arrow downwards."""
    axes.annotate("", (x, bottom), (x, top), arrowprops=ARROW)


def box(axes: Any, x: float, y: float, width: float, lines: list[str], fill: str) -> None:
    """A box with its lines, its middle at height y; the first of two is bold."""
    axes.add_patch(Rectangle((x, y - BOX / 2), width, BOX, facecolor=fill, edgecolor=FAINT, linewidth=0.6))
    for index, line in enumerate(lines):
        at = y if len(lines) == 1 else y + (0.075, -0.075)[index]
        weight = "bold" if index == 0 and len(lines) == 2 and width == WIDTH else "normal"
        axes.text(x + width / 2, at, line, ha="center", va="center", fontsize=6.2, weight=weight)


def beside(axes: Any, y: float, shape: str, count: str) -> None:
    """Shape and parameters at the right of a box."""
    for text, dy, colour in ((shape, 0.07, INK), (count, -0.07, FAINT)):
        axes.text(0.2 + WIDTH, y + (dy if count else 0), text, va="center", fontsize=6.2, color=colour)
