"""What a model sees: feature maps with their receptive fields, Grad-CAM, and the embeddings of a whole split."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifarnet.core.devices import autocast
from cifarnet.core.errors import Refused
from cifarnet.models.classifier import Classifier


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


@dataclass(frozen=True)
class FeatureMap:
    """The output [channels, H, W] of a layer for one image; kind: the module's class, or the function's name."""

    name: str
    kind: str
    values: Tensor
    field: ReceptiveField


class Recorder(TorchFunctionMode):
    """Within `with Recorder(backbone):` a forward pass leaves each 4-d output in `maps`, name -> (kind, tensor, field).

    A module's name is its path in the backbone (stages.0.1); a function that the backbone itself calls is named with
    its count (relu1, max_pool1). Receptive fields follow each tensor through the functions that make it, so that
    functional poolings and the two branches of a residual block count as they run. Square kernels only, as all models here have.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.maps: dict[str, tuple[str, Tensor, ReceptiveField]] = {}
        self.running: list[str] = []
        self.calls: Counter[str] = Counter()
        # Fields by id; the tensor is held beside, so that no id is used twice.
        self.fields: dict[int, tuple[Tensor, ReceptiveField]] = {}

    def __enter__(self) -> "Recorder":
        self.hooks = []
        for name, module in self.backbone.named_modules():
            self.hooks.append(module.register_forward_pre_hook(self._before(name)))
            self.hooks.append(module.register_forward_hook(self._after(name)))
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not (isinstance(output, Tensor) and output.dim() == 4):
            return output
        inputs = [value for value in args if isinstance(value, Tensor) and value.dim() == 4]
        name = getattr(func, "__name__", "")
        if name.startswith("conv"):
            inputs = inputs[:1]  # the weight of a convolution has four dimensions too
        if not inputs:
            return output
        field = self.field_of(inputs[0])
        for other in inputs[1:]:
            field = field.joined(self.field_of(other))
        field = field.through(*window(name, args, kwargs)) if name in WINDOWS else field
        self.fields[id(output)] = (output, field)
        if self.running == [""]:  # called by the backbone itself, not by one of its modules
            kind = name.removesuffix("2d")
            self.calls[kind] += 1
            self.maps[f"{kind}{self.calls[kind]}"] = (kind, output, field)
        return output

    def field_of(self, tensor: Tensor) -> ReceptiveField:
        """The field of a tensor; one that nothing here made is the input."""
        return self.fields[id(tensor)][1] if id(tensor) in self.fields else ReceptiveField()

    def _before(self, name: str) -> Any:
        return lambda module, inputs: self.running.append(name)

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.running.pop()
            if name and isinstance(output, Tensor) and output.dim() == 4:
                self.maps[name] = (module._get_name(), output, self.field_of(output))

        return hook


# Where a function that looks through a window has its kernel, stride, padding and dilation: (position, name) of each.
WINDOWS = {
    "conv2d": ((1, "weight"), (3, "stride"), (4, "padding"), (5, "dilation")),
    "max_pool2d": ((1, "kernel_size"), (2, "stride"), (3, "padding"), (4, "dilation")),
    "avg_pool2d": ((1, "kernel_size"), (2, "stride"), (3, "padding"), (99, "dilation")),
}


def window(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a call of one of WINDOWS."""
    found = [args[at] if at < len(args) else kwargs.get(word) for at, word in WINDOWS[name]]
    kernel = found[0].shape[-1] if isinstance(found[0], Tensor) else first(found[0], 1)
    # A pooling's stride is its kernel where none is given.
    return kernel, first(found[1], 1 if name == "conv2d" else kernel), first(found[2], 0), first(found[3], 1)


def first(value: Any, default: int) -> int:
    """A size given as one number or a pair; `default` where it is not given."""
    if value is None or value == ():
        return default
    return int(value[0] if isinstance(value, (tuple, list)) else value)


def record(model: Classifier, images: Tensor) -> tuple[dict[str, tuple[str, Tensor, ReceptiveField]], Tensor]:
    """All maps of a forward pass by name, in the order they come about, and the features [B, E]."""
    with Recorder(model.backbone) as recorder:
        embedded = model.features(images)
    return recorder.maps, embedded


def normalize_image(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An image uint8 [3, H, W] as the model wants it: float32, mean and std per channel of pixels in [0, 1]."""
    return (image.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@torch.no_grad()
def feature_maps(model: Classifier, image: Tensor, layers: Sequence[str] = ()) -> list[FeatureMap]:
    """The maps of one normalised image [3, H, W]: of `layers`, or of the default ones (see `default_layers`).

    Raises:
        Refused: an unknown layer; the message lists those that are there.
    """
    model.eval()
    maps, _ = record(model, image[None])
    names = [find_layer(name, maps) for name in layers] or default_layers(maps)
    return [FeatureMap(name, maps[name][0], maps[name][1][0].float().cpu(), maps[name][2]) for name in names]


def default_layers(maps: dict[str, Any]) -> list[str]:
    """What a picture of the whole network shows: what each stage hands on.

    For a network of plain functions (the baseline) each activation and pooling; for a ResNet the stem and each block.
    """
    called = [name for name in maps if name.rstrip("0123456789") in ("relu", "max_pool")]
    return called or [name for name in maps if name == "stem" or (name.startswith("stages.") and name.count(".") == 2)]


def find_layer(name: str, maps: dict[str, Any]) -> str:
    """`name`, if there is such a map."""
    if name not in maps:
        raise Refused("--layer", f"there is no layer '{name}'", f"choose from {', '.join(maps)}")
    return name


def grad_cam(model: Classifier, image: Tensor, target: int, layer: str | None = None) -> tuple[Tensor, str]:
    """Grad-CAM (arXiv 1610.02391): where in the image the evidence for class `target` lies.

    The maps of the layer (default: the last), each weighted by the mean gradient of the class's logit, summed, negative
    values cut off.

    Args:
        image: normalised, [3, H, W].
        target: index of the class.
        layer: a name of `feature_maps`.

    Returns:
        the map [h, w] of the layer's size, not scaled; and the layer's name.

    Raises:
        Refused: an unknown layer.
    """
    model.eval()
    with torch.enable_grad():
        # The image asks for gradients, so that the maps have them also where the weights are frozen.
        maps, embedded = record(model, image[None].detach().requires_grad_())
        name = find_layer(layer, maps) if layer else default_layers(maps)[-1]
        activation = maps[name][1]
        logit = model.head.logits(embedded)[0, target]
        (gradient,) = torch.autograd.grad(logit, activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * activation).sum(dim=1))[0].detach().float().cpu(), name


def upsample(heat: Tensor, size: int) -> Tensor:
    """A map [h, w] as [size, size], bilinear, scaled to a maximum of 1 (a map of zeros stays)."""
    large = F.interpolate(heat[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
    return large / large.max().clamp_min(1e-12)


@dataclass(frozen=True)
class Embeddings:
    """A split through a model: features [N, E], logits [N, C] (both fp32) and labels [N], on the CPU."""

    features: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def predictions(self) -> Tensor:
        """The class with the largest logit [N]."""
        return self.logits.argmax(dim=1)


@torch.inference_mode()
def embed(
    model: Classifier, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, precision: str
) -> Embeddings:
    """Features and logits of all batches (images normalised, labels) in one pass, the model in evaluation mode."""
    model.eval()
    features, logits, labels = [], [], []
    for images, targets in batches:
        with autocast(device, precision):
            embedded = model.features(images)
        features.append(embedded.float())
        logits.append(model.head.logits(embedded).float())
        labels.append(targets)
    return Embeddings(torch.cat(features).cpu(), torch.cat(logits).cpu(), torch.cat(labels).cpu())
