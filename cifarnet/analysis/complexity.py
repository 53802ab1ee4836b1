"""The cost of a model: parameters, MACs, FLOPs and memory.

Counting convention: a multiply-accumulate (MAC) is counted for each weight of a convolution or matrix product at each
output, biases not; 1 MAC = 2 FLOPs (torch.utils.flop_counter). Whatever has no formula there (BatchNorm, ReLU, pooling,
additions) is listed with its number of calls as uncounted, never as zero.

So counted, a batch of two 32x32 images takes 0.0090972, 0.2803732 and 0.6515999 GMACs in baseline, resnet18 and
resnet50: the figures that the report's Table 3.9 prints as "TMACs" (0.0091, 0.2804, 0.6516). Its "TFLOPs" (0.0184,
0.5621, 1.3086) are GFLOPs of the same batch of two, with BatchNorm at 2, ReLU and pooling at 1 FLOP an element on top.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cifarnet.analysis.receptive_field import LAYER_OF, window
from cifarnet.core.config import TrainConfig
from cifarnet.core.fields import check_count, check_kind
from cifarnet.core.torch_settings import own_modes
from cifarnet.models import find_arch
from cifarnet.models.classifier import Classifier, build_model

POOLS = (F.max_pool2d, F.avg_pool2d)
# Operators that move or relabel numbers and compute none.
MOVES = {
    "clone",
    "copy_",
    "_to_copy",
    "detach",
    "empty",
    "empty_like",
    "zeros_like",
    "ones_like",
    "expand",
    "fill_",
    "zero_",
}


@dataclass(frozen=True)
class Layer:
    """A layer: its module path, its kind, parameters, the shape of its output for one image, MACs of the batch.

    kernel, stride, padding: of a convolution or pooling, in pixels; None for others.
    """

    name: str
    kind: str
    parameters: int
    output: tuple[int, ...]
    macs: int
    kernel: int | None = None
    stride: int | None = None
    padding: int | None = None


@dataclass(frozen=True)
class Complexity:
    """The cost of one forward pass of `batch` images of `image_size` x `image_size`.

    macs, flops: of the whole batch (flops = 2 macs); activation_bytes: what training keeps of the batch for backward,
    in fp32; uncounted: calls of each arithmetic operator that has no formula.
    """

    arch: str
    stem: str
    loss: str
    classes: int
    image_size: int
    batch: int
    parameters: int
    macs: int
    activation_bytes: int
    layers: tuple[Layer, ...]
    uncounted: dict[str, int]

    @property
    def flops(self) -> int:
        """FLOPs of the batch, 1 MAC = 2 FLOPs."""
        return 2 * self.macs

    def weight_bytes(self, bytes_each: int) -> int:
        """Size of the parameters: 4 bytes each in fp32, 2 in bf16."""
        return bytes_each * self.parameters

    def to_dict(self, baseline: "Complexity | None" = None) -> dict[str, Any]:
        """Plain JSON values, with what follows from them; ratios are to `baseline` where it is given."""
        values = asdict(self) | {"flops": self.flops}
        values |= {"macs_per_image": self.macs // self.batch, "flops_per_image": self.flops // self.batch}
        values |= {"weight_bytes_fp32": self.weight_bytes(4), "weight_bytes_bf16": self.weight_bytes(2)}
        if baseline is not None:
            values["parameters_ratio"] = self.parameters / baseline.parameters
            values["macs_ratio"] = (self.macs / self.batch) / (baseline.macs / baseline.batch)
        return values


@own_modes()
@torch.inference_mode(False)  # what backward would keep is counted
def measure(config: TrainConfig, num_classes: int, batch: int = 1) -> Complexity:
    """Counts the forward pass of the model of `config` without computing it: shapes only, so it takes no memory.

    Args:
        config: arch, stem, loss, embed_dim, neck and image_size decide.
        num_classes: C.
        batch: images in the pass, at least 1.

    Raises:
        Refused: an architecture, loss or image size that cannot be; no class, or no image.
    """
    check_kind("config", config, TrainConfig, "give a cifarnet.TrainConfig")
    check_count("num_classes", num_classes)
    check_count("batch", batch)
    with FakeTensorMode():
        model = build_model(config, num_classes).eval()
        images = torch.empty(batch, 3, config.image_size, config.image_size)
        layers, uncounted = count_layers(model, images)
        activations = saved_bytes(model, images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(
        arch=config.arch,
        stem=config.stem if "stem" in find_arch(config.arch).options else "",
        loss=config.loss,
        classes=num_classes,
        image_size=config.image_size,
        batch=batch,
        parameters=parameters,
        macs=sum(layer.macs for layer in layers),
        activation_bytes=activations,
        layers=tuple(layers),
        uncounted=dict(uncounted),
    )


class UncountedOperators(TorchDispatchMode):
    """Counts the calls of operators that compute and have no FLOP formula."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        name = packet.__name__
        if packet not in flop_registry and not func.is_view and name not in MOVES and func.namespace == "aten":
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


class FunctionWindows(TorchFunctionMode):
    """Makes rows of the poolings that a network calls as functions, outside its layers: they have no module to hook."""

    def __init__(self, layers: list[Layer], inside: list[int]) -> None:
        super().__init__()
        self.layers, self.inside = layers, inside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in POOLS and not self.inside:
            layer = LAYER_OF[func](*args, **(kwargs or {}))
            number = 1 + sum(one.name.startswith(func.__name__) for one in self.layers)
            self.layers.append(layer_row(f"{func.__name__}_{number}", layer, output, 0))
        return output


def count_layers(model: Classifier, images: Tensor) -> tuple[list[Layer], Counter[str]]:
    """The layers that have parameters or compute, in the order they run, and the uncounted operators.

    The head is one layer: it runs functionally, so its row is what the forward pass costs after the features.
    """
    layers: list[Layer] = []
    starts: list[int] = []
    functions = FunctionWindows(layers, starts)
    with FlopCounterMode(display=False) as flops, UncountedOperators() as uncounted, torch.no_grad(), functions:

        def before(module: nn.Module, inputs: Any) -> None:
            starts.append(flops.get_total_flops())

        def after(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                layers.append(layer_row(name, module, output, flops.get_total_flops() - starts.pop()))

            return hook

        hooks = []
        for name, module in [*single_layers(model.backbone, "backbone"), *single_layers(model.neck, "neck")]:
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after(name))]
        features = model.features(images)
        body = flops.get_total_flops()
        logits = model.head.logits(features)
        layers.append(layer_row("head", model.head, logits, flops.get_total_flops() - body))
        for hook in hooks:
            hook.remove()
    return layers, uncounted.calls


def single_layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules, by name, that have no others in them, and those that have parameters beside the others'."""
    if isinstance(module, nn.Identity):
        return
    if not list(module.children()) or list(module.parameters(recurse=False)):
        yield name, module
        return
    for child, inner in module.named_children():
        yield from single_layers(inner, f"{name}.{child}")


def layer_row(name: str, module: nn.Module, output: Tensor, flops: int) -> Layer:
    """A layer's row."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    seen = window(module)[:3] if hasattr(module, "kernel_size") else (None, None, None)
    return Layer(name, module._get_name(), parameters, tuple(output.shape[1:]), flops // 2, *seen)


def saved_bytes(model: Classifier, images: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of these images, each storage once, weights left out."""
    weights = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no address is used twice

    def pack(tensor: Tensor) -> None:  # one that is kept for backward would be a cycle through C++, never freed
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        logits = model(images)
        del logits
    return sum(storage.nbytes() for storage in kept.values())
