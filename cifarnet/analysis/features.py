"""Feature maps with their receptive fields, Grad-CAM, and the embeddings of a whole split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from cifarnet.analysis.receptive_field import ReceptiveField, receptive_fields
from cifarnet.core.errors import Refused
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.metrics import check_finite
from cifarnet.models.classifier import Classifier


@dataclass(frozen=True)
class FeatureMap:
    """The output [channels, H, W] of a layer for one image; kind: the module's class, or the function's name."""

    name: str
    kind: str
    values: Tensor
    field: ReceptiveField


def record(model: Classifier, images: Tensor) -> tuple[dict[str, FeatureMap], Tensor]:
    """All maps of a forward pass by name, in the order they come about, and the features [B, E].

    Their values have the batch in front: [B, channels, H, W]. A module's name is its path in the backbone (stages.0.1);
    a function that the backbone itself calls is named with its count (relu1, max_pool1).
    """
    # Here, since it imports all of torchvision's networks, which takes more than a second.
    from torchvision.models.feature_extraction import NodePathTracer

    backbone = model.backbone
    tracer = NodePathTracer()  # what torchvision's create_feature_extractor names layers by
    run = Interpreter(backbone, garbage_collect_values=False, graph=tracer.trace(backbone))
    features = model.neck(run.run(images))
    fields, modules = receptive_fields(run), dict(backbone.named_modules())
    maps = {}
    for name, node in layer_nodes(modules, tracer.node_to_qualname).items():
        values = run.env[node]
        if isinstance(values, Tensor) and values.dim() == 4:
            kind = modules[name]._get_name() if name in modules else name.rstrip("0123456789")
            maps[name] = FeatureMap(name, kind, values, fields[node])
    return maps, features


def layer_nodes(modules: Mapping[str, nn.Module], paths: Mapping[Node, str]) -> dict[str, Node]:
    """The layers of a traced backbone by name, each with the node of its output, in the order they end.

    Args:
        modules: the backbone's modules by path.
        paths: torchvision's path of each node (stages.0.1.relu_1), in the order they run.
    """
    found: dict[str, Node] = {}
    for node, path in paths.items():
        if node.op in ("placeholder", "get_attr"):
            continue
        if "." not in path and path not in modules:
            kind, number = re.fullmatch(r"(.+?)(?:2d)?(?:_(\d+))?", path).groups()  # type: ignore[union-attr]
            found[f"{kind}{int(number or 0) + 1}"] = node
        for name in reversed(list(accumulate(path.split("."), "{}.{}".format))):
            if name in modules:  # it ends with the last node in it
                found.pop(name, None)
                found[name] = node
    return found


@torch.no_grad()
def feature_maps(model: Classifier, image: Tensor, layers: Sequence[str]) -> list[FeatureMap]:
    """The maps of one normalised image [3, H, W], layer by layer, on the CPU in fp32.

    Args:
        layers: names as in `record`; the row of an architecture has those that show the whole of it.

    Raises:
        Refused: an unknown layer; the message lists those that are there.
        Failed: a map that is not finite (see `check_finite`).
    """
    maps, _ = record(model.eval(), image[None])
    found = [find_layer(name, maps) for name in layers]
    for one in found:
        check_finite(one.values, f"maps of {one.name}")
    return [replace(one, values=one.values[0].float().cpu()) for one in found]


def find_layer(name: str, maps: Mapping[str, FeatureMap]) -> FeatureMap:
    """The map of a layer. Raises Refused where there is none."""
    if name not in maps:
        raise Refused("layer", f"there is no layer '{name}'", f"choose from {', '.join(maps)}")
    return maps[name]


def grad_cam(model: Classifier, image: Tensor, target: int, layer: str) -> Tensor:
    """Grad-CAM (arXiv 1610.02391, eq. 1 and 2): where in the image the evidence for class `target` lies.

    The maps of the layer, each weighted by the mean gradient of the class's logit, summed, negative values cut off.

    Args:
        image: normalised, [3, H, W].
        target: index of the class.
        layer: a name as in `record`; the row of an architecture has the usual one, its last.

    Returns:
        the map [h, w] of the layer's size, not scaled, on the CPU.

    Raises:
        Refused: an unknown layer.
        Failed: the logits or their gradients are not finite (see `check_finite`).
    """
    with torch.enable_grad():
        # The image asks for gradients, so that the maps have them also where the weights are frozen.
        maps, embedded = record(model.eval(), image[None].detach().requires_grad_())
        activation = find_layer(layer, maps).values
        logits = model.head.logits(embedded)
        check_finite(logits)
        (gradient,) = torch.autograd.grad(logits[0, target], activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * activation).sum(dim=1)).detach()
    check_finite(heat, "gradients")
    return heat[0].float().cpu()


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
    """Features and logits of all batches (images normalised, labels) in one pass, the model in evaluation mode.

    Raises:
        Failed: some of them are not finite (see `check_finite`).
    """
    features, logits, labels = [], [], []
    for embedded, targets in embed_batches(model, batches, device, precision):
        features.append(embedded.float())
        logits.append(model.head.logits(embedded).float())
        labels.append(targets)
    found = Embeddings(torch.cat(features).cpu(), torch.cat(logits).cpu(), torch.cat(labels).cpu())
    check_finite(found.features, "features")
    check_finite(found.logits)
    return found
