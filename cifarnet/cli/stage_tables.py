"""Networks side by side, stage by stage -> a table."""

from collections.abc import Sequence
from itertools import zip_longest

from cifarnet.analysis.diagram import Diagram, Stage, Step
from cifarnet.analysis.stages import by_size, depth
from cifarnet.cli.table import Column, Table
from cifarnet.core.errors import plural

SHORT = {"max-pool": "max", "avg-pool": "avg", "global avg-pool": "avg-pool", "global max-pool": "max-pool"}


def stage_table(networks: Sequence[Diagram]) -> Table:
    """A column a network; a group of rows for each size of output: kernel and channels, stride, blocks and what is in one."""
    columns = [Column("output", number=False)]
    columns += [Column(network.arch, index, number=False) for index, network in enumerate(networks)]
    rows = []
    for size, cells in by_size(networks):
        texts = [[line for stage in stages for line in lines(stage)] for stages in cells]
        for number, row in enumerate(zip_longest(*texts, fillvalue="")):
            rows.append(["" if number else "×".join(map(str, size)) or "vector", *row])
        rows.append([""] * len(columns))
    rows.append(["layers", *(str(depth(network)) for network in networks)])
    title = "kernel, channels, /stride by size of the output; blocks without shortcuts and the stride of the first"
    return Table(columns, rows, (title, "dim"))


def lines(stage: Stage) -> list[str]:
    """The lines of a layer, or of blocks in a row; activations and norms are left out."""
    if stage.count:
        return [plural(stage.count, "block"), *(words(step, inside=True) for step in stage.steps if step.window[0])]
    if not stage.steps:
        return [f"{stage.kind.split()[0]} {stage.output[0]}"]  # neck, head
    return [words(stage.steps[0])]


def words(step: Step, inside: bool = False) -> str:
    """`7×7, 64, /2`, `max 3×3, /2`, `avg-pool`, `fc 64`; a convolution inside a block without its stride."""
    kernel, stride, _ = step.window
    if step.kind == "fc":
        return f"fc {step.output[0]}"
    name = SHORT.get(step.kind, step.kind)
    if not kernel:
        return name
    text = f"{kernel}×{kernel}, {step.output[0]}" if step.kind == "conv" else f"{name} {kernel}×{kernel}"
    return text if stride == 1 or (inside and step.kind == "conv") else f"{text}, /{stride}"
