"""Feature maps with their receptive fields, and the embeddings of a whole split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from cifarnet.analysis.receptive_field import ReceptiveField, receptive_fields
from cifarnet.core.errors import Refused
from cifarnet.core.torch_settings import own_modes
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

    @property
    def has_places(self) -> bool:
        """Has it more than one pixel, so that one place differs from another?"""
        return self.values.shape[-2:].numel() > 1


@own_modes()
def record(model: Classifier, images: Tensor) -> tuple[dict[str, FeatureMap], Tensor]:
    """All maps of a forward pass by name, in the order they come about, and the features [B, E].

    Their values have the batch in front: [B, channels, H, W]. A module's name is its path in the backbone (stages.0.1);
    a function that the backbone itself calls is named with its count (relu1, max_pool1).
    """
    # Here, since it imports all of torchvision's networks, which takes more than a second.
    from cifarnet.analysis.tracing import trace

    backbone = model.backbone
    graph, paths = trace(backbone)
    run = Interpreter(backbone, garbage_collect_values=False, graph=graph)
    # As run.run(images), but for its progress bar: that one's lock fixes how processes start from then on.
    run.args_iter = iter((images,))
    for node in graph.nodes:
        run.env[node] = run.run_node(node)
    features = model.neck(run.env[node])
    fields, modules = receptive_fields(run), dict(backbone.named_modules())
    maps = {}
    for name, node in layer_nodes(modules, paths).items():
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
        Refused: as `find_layer`; the message lists the layers that are there.
        Failed: a map that is not finite (see `check_finite`).
    """
    maps, _ = record(model.eval(), image[None])
    found = [find_layer(name, maps) for name in layers]
    for one in found:
        check_finite(one.values, f"maps of {one.name}")
    return [replace(one, values=one.values[0].float().cpu()) for one in found]


def find_layer(name: str, maps: Mapping[str, FeatureMap]) -> FeatureMap:
    """The map of a layer. Raises Refused where there is none, or one of a single pixel."""
    if name not in maps:
        raise Refused("layer", f"there is no layer '{name}'", f"choose from {', '.join(maps)}")
    if not maps[name].has_places:
        fix = f"choose from {', '.join(name for name, one in maps.items() if one.has_places)}"
        raise Refused("layer", f"'{name}' has a single pixel, which tells no place from another", fix)
    return maps[name]


@torch.no_grad()
def layers_with_places(model: Classifier, size: int, layers: Sequence[str]) -> list[str]:
    """Those of `layers`, all of the model, whose maps have more than one pixel for images of `size` x `size`."""
    maps, _ = record(model.eval(), torch.zeros(1, 3, size, size))
    return [name for name in layers if maps[name].has_places]


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
