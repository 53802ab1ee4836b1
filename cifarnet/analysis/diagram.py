"""A network as its diagram has it: its operations and blocks in the order they run, with shapes and parameters.

All is read off the traced graph of the model itself, so that a new architecture needs no drawing of its own.
"""

from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Interpreter, Node

from cifarnet.analysis.receptive_field import window, windowed_layer
from cifarnet.core.config import TrainConfig
from cifarnet.models.classifier import build_model

# Functions and modules by the names that papers give them. Whatever is not here keeps its own.
NAMES = {
    "Conv2d": "conv", "conv2d": "conv", "Linear": "fc", "linear": "fc", "MaxPool2d": "max-pool", "max_pool2d": "max-pool",
    "AvgPool2d": "avg-pool", "avg_pool2d": "avg-pool", "BatchNorm2d": "BN", "ReLU": "ReLU", "relu": "ReLU", "gelu": "GELU",
    "GELU": "GELU", "mean": "global avg-pool", "add": "+",
}  # fmt: skip
HIDDEN = {"flatten", "mul", "to", "getattr", "getitem", "Identity", "placeholder"}
FOLLOW = {"BN", "ReLU", "GELU", "bias"}  # drawn with the layer that they follow


@dataclass(frozen=True)
class Step:
    """An operation: what it is called, its window (kernel, stride, padding; none: 0), its output for an image, parameters."""

    name: str
    kind: str
    window: tuple[int, int, int]
    output: tuple[int, ...]
    parameters: int
    node: Node = field(repr=False, compare=False)

    @property
    def words(self) -> str:
        """`conv 3×3, 64, /2`: the window, the channels of a layer that has weights, and the stride of more than 1."""
        kernel, stride, _ = self.window
        text = f"{self.kind} {kernel}×{kernel}" if kernel else self.kind
        if self.kind in ("conv", "fc"):
            text += f", {self.output[0]}"
        return f"{text}, /{stride}" if stride > 1 else text


@dataclass(frozen=True)
class Stage:
    """A box of the diagram: a layer with what follows it, or `count` blocks of one kind in a row.

    steps: of a layer all, of blocks those of the first one's longer way; parameters: of all blocks together.
    """

    kind: str
    steps: tuple[Step, ...]
    output: tuple[int, ...]
    parameters: int
    count: int = 0  # blocks; 0: a layer


@dataclass(frozen=True)
class Block:
    """Inside of a block: the steps of its longer way, and of its shortcut (None: there is none; (): the identity).

    tail: what comes after the two have been added. input: the shape of what comes in.
    """

    kind: str
    name: str
    input: tuple[int, ...]
    steps: tuple[Step, ...]
    shortcut: tuple[Step, ...] | None
    tail: tuple[Step, ...]


@dataclass(frozen=True)
class Diagram:
    """A network: its stages from the image to the logits, one block of each make, and all its parameters."""

    arch: str
    input: tuple[int, ...]
    stages: tuple[Stage, ...]
    blocks: tuple[Block, ...]
    parameters: int


def diagram(config: TrainConfig, classes: int) -> Diagram:
    """The diagram of the model of `config`; nothing is computed, shapes only.

    Raises:
        Refused: an architecture, loss or image size that cannot be.
    """
    from cifarnet.analysis.tracing import trace

    with FakeTensorMode():
        model = build_model(config, classes).eval()
        images = torch.empty(1, 3, config.image_size, config.image_size)
        graph, paths = trace(model.backbone)
        run = Interpreter(model.backbone, garbage_collect_values=False, graph=graph)
        features = model.neck(run.run(images))
        logits = model.head.logits(features)
    moving = from_images(run)
    traced = (step_of(run, node, path, moving) for node, path in paths.items())
    steps = [step for step in traced if step is not None]
    modules = dict(model.backbone.named_modules())
    stages: list[Stage] = []
    blocks: dict[Any, Block] = {}
    for owner, group in groupby(steps, lambda step: owner_of(step.name, modules)):
        own = tuple(group)
        if owner is None:
            stages += layers(own)
            continue
        block = block_of(owner, modules[owner], own, run)
        blocks.setdefault(tuple(step.words for step in own), block)
        stages.append(Stage(block.kind, block.steps, own[-1].output, sum(step.parameters for step in own), 1))
    rest = tuple(model.neck.parameters()), tuple(model.head.parameters())
    neck, head = (sum(parameter.numel() for parameter in part) for part in rest)
    if neck or features[0].numel() != prod(stages[-1].output):
        stages.append(Stage(f"neck ({config.neck})", (), tuple(features.shape[1:]), neck))
    stages.append(Stage(f"head ({config.loss})", (), tuple(logits.shape[1:]), head))
    total = sum(parameter.numel() for parameter in model.parameters())
    return Diagram(config.arch, tuple(images.shape[1:]), joined(stages), different(blocks), total)


def step_of(run: Interpreter, node: Node, path: str, moving: set[Node]) -> Step | None:
    """The operation of a node; None for what moves numbers and computes none."""
    value: Any = run.env.get(node)
    if node.op == "placeholder" or node not in moving:
        return None
    module = run.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    own = module._get_name() if module is not None else str(getattr(node.target, "__name__", node.target))
    if own in HIDDEN:
        return None
    layer = windowed_layer(run, node)
    if own == "max_pool2d" and value.shape[2:] == (1, 1):
        kind, layer = "global max-pool", None
    else:
        kind = NAMES.get(own, own)
    if kind == "+" and sum(source in moving for source in node.all_input_nodes) < 2:
        kind = "bias"
    seen = (0, 1, 0) if layer is None else window(layer)[:3]
    return Step(path, kind, seen, tuple(value.shape[1:]), parameters_of(module, node, run, moving), node)


def from_images(run: Interpreter) -> set[Node]:
    """The nodes whose tensors follow from the images; a number that is read off one, its type or its size, does not count."""
    found: set[Node] = set()
    for node in run.graph.nodes:
        if node.op == "placeholder" or (
            isinstance(run.env.get(node), Tensor) and any(source in found for source in node.all_input_nodes)
        ):
            found.add(node)
    return found


def parameters_of(module: nn.Module | None, node: Node, run: Interpreter, moving: set[Node]) -> int:
    """Of a module all; of a function those that reach it, scaled or reshaped or as they are."""
    if module is not None:
        return sum(parameter.numel() for parameter in module.parameters())
    named = dict(run.module.named_parameters())
    found, waiting = set[str](), list(node.all_input_nodes)
    while waiting:
        one = waiting.pop()
        if one.op == "get_attr" and str(one.target) in named:
            found.add(str(one.target))
        elif one not in moving:
            waiting += one.all_input_nodes
    return sum(named[name].numel() for name in found)


def owner_of(path: str, modules: dict[str, nn.Module]) -> str | None:
    """The block that an operation is in: the first module on its path that holds others and is no mere sequence."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        module = modules.get(name)
        if module is not None and any(module.children()) and not isinstance(module, nn.Sequential):
            return name
    return None


def layers(steps: tuple[Step, ...]) -> list[Stage]:
    """Operations outside blocks: each with the norms and activations that follow it."""
    found: list[list[Step]] = []
    for step in steps:
        if found and step.kind in FOLLOW:
            found[-1].append(step)
        else:
            found.append([step])
    return [Stage(own[0].kind, tuple(own), own[-1].output, sum(one.parameters for one in own)) for own in found]


def block_of(name: str, module: nn.Module, steps: tuple[Step, ...], run: Interpreter) -> Block:
    """Splits a block at the node that adds its two ways."""
    inside = {step.node: step for step in steps}
    incoming: Any = run.env[steps[0].node.all_input_nodes[0]]
    shape = tuple(incoming.shape[1:])
    joins = [step for step in steps if step.kind == "+"]
    if not joins:
        return Block(module._get_name(), name, shape, steps, None, ())
    join = joins[-1]
    ways = [way_to(source, inside) for source in join.node.all_input_nodes]
    long, short = sorted(ways, key=len, reverse=True)
    tail = steps[steps.index(join) + 1 :]
    return Block(module._get_name(), name, shape, long, short, tail)


def way_to(node: Node, inside: dict[Node, Step]) -> tuple[Step, ...]:
    """The steps of a block that lead to a node, in the order they run."""
    found, waiting = set[Node](), [node]
    while waiting:
        one = waiting.pop()
        if one in inside and one not in found:
            found.add(one)
            waiting += one.all_input_nodes
    return tuple(step for one, step in inside.items() if one in found)


def joined(stages: list[Stage]) -> tuple[Stage, ...]:
    """Blocks of one kind and shape in a row become one stage."""
    found: list[Stage] = []
    for stage in stages:
        last = found[-1] if found else None
        if last and stage.count and last.count and (stage.kind, stage.output) == (last.kind, last.output):
            together = last.parameters + stage.parameters
            found[-1] = Stage(last.kind, last.steps, last.output, together, last.count + 1)
        else:
            found.append(stage)
    return tuple(found)


def different(blocks: dict[Any, Block]) -> tuple[Block, ...]:
    """One block of each make: of a kind, with an identity, with a projection, or without a shortcut."""
    makes: dict[tuple[str, int], Block] = {}
    for block in blocks.values():
        make = -1 if block.shortcut is None else len(block.shortcut)
        makes.setdefault((block.kind, make), block)
    return tuple(makes.values())
