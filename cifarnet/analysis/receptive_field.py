"""Receptive fields: the input pixels that a unit of a layer sees, followed through the graph of a backbone."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Interpreter, Node


@dataclass(frozen=True)
class ReceptiveField:
    """The square of input pixels that a unit of a map can see (Araujo et al., doi 10.23915/distill.00021).

    size: its side; step: pixels between the squares of neighbouring units; start: the centre of the first unit's
    square, where 0 is the middle of the first pixel. A square may reach beyond the image, into the padding.
    """

    size: int = 1
    step: int = 1
    start: float = 0.0

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "ReceptiveField":
        """The field after a convolution or pooling."""
        reach = (kernel - 1) * dilation
        return ReceptiveField(
            self.size + reach * self.step, self.step * stride, self.start + (reach / 2 - padding) * self.step
        )

    def joined(self, other: "ReceptiveField") -> "ReceptiveField":
        """The smallest field that holds both: what a sum of two branches sees."""
        low = min(self.start - self.size / 2, other.start - other.size / 2)
        high = max(self.start + self.size / 2, other.start + other.size / 2)
        return ReceptiveField(int(high - low), max(self.step, other.step), (low + high) / 2)


def receptive_fields(run: Interpreter) -> dict[Node, ReceptiveField]:
    """The field of each node that follows from the input, of a graph that has been run and whose values are kept.

    Square kernels only, as all models here have.
    """
    fields: dict[Node, ReceptiveField] = {}
    for node in run.graph.nodes:
        sources = [fields[source] for source in node.all_input_nodes if source in fields]
        if node.op == "placeholder":
            fields[node] = ReceptiveField()
        elif sources:
            field, layer = reduce(ReceptiveField.joined, sources), windowed_layer(run, node)
            fields[node] = field if layer is None else field.through(*window(layer))
    return fields


def windowed_layer(run: Interpreter, node: Node) -> nn.Module | None:
    """The convolution or pooling that a node calls, a function as the module that does the same; None for others."""
    if node.op == "call_module":
        module = run.module.get_submodule(str(node.target))
        return module if hasattr(module, "kernel_size") else None
    if node.target in LAYER_OF:
        arguments, keywords = run.fetch_args_kwargs_from_env(node)
        return LAYER_OF[node.target](*arguments, **keywords)
    return None


def convolution(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> nn.Module:
    """The module with the window of F.conv2d of these arguments; it holds no weights."""
    return nn.Conv2d(1, 1, weight.shape[2:], stride, padding, dilation, device="meta")  # type: ignore[arg-type]


# Functions that look through a window, and how the same is written as a module.
LAYER_OF: dict[Any, Any] = {
    F.conv2d: convolution,
    F.max_pool2d: lambda images, *arguments, **keywords: nn.MaxPool2d(*arguments, **keywords),
    F.avg_pool2d: lambda images, *arguments, **keywords: nn.AvgPool2d(*arguments, **keywords),
}


def window(layer: nn.Module) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a convolution or pooling (an average pooling has no dilation)."""
    kernel, stride, padding, dilation = (
        getattr(layer, name, 1) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    return first(kernel), first(stride), first(padding), first(dilation)


def first(size: int | tuple[int, ...]) -> int:
    """A size given as one number or a pair."""
    return size[0] if isinstance(size, tuple) else size
