"""Networks side by side, stage by stage: what each does at one size of its output (the report's Table 3.1)."""

from collections.abc import Sequence
from typing import Any

from cifarnet.analysis.diagram import Diagram, Stage, Step

WEIGHTED = ("conv", "fc")

# A size of outputs (height, width), () for vectors, and for each network what has outputs of this size.
Row = tuple[tuple[int, ...], list[list[Stage]]]


def by_size(networks: Sequence[Diagram]) -> list[Row]:
    """A row for each size that outputs of one of the networks have, the largest first, vectors last."""
    sizes = {stage.output[1:] for network in networks for stage in network.stages}
    return [
        (size, [[stage for stage in network.stages if stage.output[1:] == size] for network in networks])
        for size in sorted(sizes, reverse=True)
    ]


def depth(network: Diagram) -> int:
    """The layers with weights from the image to the logits, as in the name ResNet-18: shortcuts do not count."""
    return sum(max(1, stage.count) * layers_of(stage) for stage in network.stages)


def layers_of(stage: Stage) -> int:
    """The layers with weights of a layer or block; neck and head, which have no steps, are one each."""
    return sum(step.kind in WEIGHTED for step in stage.steps) if stage.steps else 1


def described(network: Diagram) -> list[dict[str, Any]]:
    """The stages of a network as plain JSON values."""
    return [
        {
            "kind": stage.kind,
            "blocks": stage.count,
            "output": stage.output,
            "parameters": stage.parameters,
            "layers": [layer(step) for step in stage.steps],
        }
        for stage in network.stages
    ]


def layer(step: Step) -> dict[str, Any]:
    """A layer of a stage, or of its first block, as plain JSON values; without a window kernel, stride, padding are null."""
    kernel, stride, padding = step.window if step.window[0] else (None, None, None)
    return {"kind": step.kind, "kernel": kernel, "stride": stride, "padding": padding, "output": step.output}
