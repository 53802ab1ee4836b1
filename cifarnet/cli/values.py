"""The values that options take by name: in whatever case, completed on Tab, and the nearest of them to a wrong one."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from cifarnet.core.config import IDENTITY, TrainConfig
from cifarnet.core.known import same_name, unknown
from cifarnet.data.convert import LAYOUTS
from cifarnet.data.registry import DATASETS
from cifarnet.engine.recipes import RECIPES
from cifarnet.losses import LOSSES
from cifarnet.models.registry import ARCHS

CHOICES = {item.name: item.metadata["bounds"].choices for item in dataclasses.fields(TrainConfig)}
# By the name of the option's parameter, in every command.
VALUES: dict[str, tuple[str, ...]] = {name: choices for name, choices in CHOICES.items() if choices} | {
    "arch": tuple(ARCHS),
    "loss": tuple(LOSSES),
    "dataset": tuple(DATASETS),
    "recipe": tuple(RECIPES),
    "device": ("auto", "cpu", "cuda", "mps"),
    "split": ("test", "train", "val"),
    "method": ("umap", "tsne", "pca"),
    "convert": LAYOUTS,
    "metric": ("auto", "cosine", "euclidean"),
    "template": ("mean", "max"),
    "format": ("onnx", "torch"),
}
UNLISTED = {"arch": (IDENTITY,)}  # what may be written too, and is not offered

# What other tools and papers call a value of ours.
OTHER_VALUES: dict[str, dict[str, str]] = {
    "loss": {
        "crossentropy": "ce", "softmax": "ce", "xent": "ce", "nll": "ce", "asoftmax": "sphereface",
        "amsoftmax": "cosface", "amsoftmaxloss": "cosface", "cosineface": "cosface", "focalloss": "focal",
    },
    "dataset": {"imagefolder": "folder", "imagenet": "folder", "custom": "folder", "wds": "webdataset", "cifar": "cifar10",
                "tsv": "csv", "arrow": "parquet", "huggingface": "parquet"},
    "device": {"gpu": "cuda", "metal": "mps"},
    "precision": {"fp16": "bf16", "float16": "bf16", "half": "bf16", "amp": "bf16", "bfloat16": "bf16", "float32": "fp32"},
    "split": {"valid": "val", "validation": "val", "dev": "val", "training": "train"},
    "format": {"pt2": "torch", "pytorch": "torch", "torchscript": "torch", "ort": "onnx", "onnxruntime": "onnx"},
    "optimizer": {"sgdm": "sgd", "nesterov": "sgd"},
    "schedule": {"none": "constant", "cosineannealing": "cosine", "onecyclelr": "onecycle"},
}  # fmt: skip


def canonical(name: str, value: str) -> str:
    """The value of an option as it is written everywhere else: `ResNet_50` -> resnet50, `CUDA:1` -> cuda:1.

    Raises:
        Refused: there is no such value; it names the nearest.
    """
    known = VALUES[name]
    if found := same_name(value, (*known, *UNLISTED.get(name, ()))):
        return found
    if name == "device" and re.fullmatch(r"cuda:\d+", value.lower()):
        return value.lower()
    raise unknown(name, value, known, other_value(name, value))


def other_value(name: str, value: str) -> str | None:
    """Our word for what another tool calls `value`."""
    others = OTHER_VALUES.get(name, {})
    return others.get(same_name(value, others) or "")


def completion_of(name: str) -> Callable[[str], list[str]] | None:
    """A function that completes the values of an option or argument of this name on Tab; None: the shell alone does."""
    if name in VALUES:
        return lambda incomplete: list(VALUES[name])
    return runs_here if name in ("run", "runs", "run_option", "checkpoint", "init_from") else None


def runs_here(incomplete: str) -> list[str]:
    """Run folders in runs/, and in the folder that is being typed; without loading what reads them."""
    places = [Path("runs")]
    if (typed := Path(os.path.dirname(incomplete))) != places[0]:
        places.append(typed)
    return [str(path.parent) for place in places for path in sorted(place.glob("*/config.json"))]
