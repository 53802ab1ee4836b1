"""The configuration of a training run: one frozen dataclass, checked before any work is done.

Each field carries its help text, its bounds and its group, so that the command line, the checks and
`config.json` all read the same line of this file.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from cifarnet.core.class_names import listed_names
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_bounds, check_type, describe_fields, option
from cifarnet.core.option_values import merged as merged
from cifarnet.core.option_values import unknown_option, with_loss_options, without_unset

SYNTHETIC = "synthetic-identities"  # the data set of features
IDENTITY = "identity"  # the backbone that passes them on
# What a run on features takes in place of the recipe's values: there is nothing to augment, and the prototypes alone learn.
FEATURE_VALUES = {"arch": IDENTITY, "augment": "none", "lr": 0.05}
PRECISIONS = ("auto", "fp32", "bf16")
GROUPS = ("Model", "Loss", "Data", "Optimisation", "Execution", "Output")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The defaults are the report's protocol."""

    arch: str = option("resnet18", "the network (a plainnet has no skip connections)", group="Model")
    stem: str = option(
        "small",
        "first layers of a ResNet: small (3x3, then max-pool), cifar (3x3, no pool), imagenet (7x7 stride 2)",
        group="Model",
        choices=("small", "cifar", "imagenet"),
    )
    embed_dim: int = option(
        0, "size of the embedding before the head; 0: the backbone's own", group="Model", low=0, high=100_000
    )
    neck: str = option(
        "none", "bn puts Linear + BatchNorm between backbone and head", group="Model", choices=("none", "bn")
    )

    loss: str = option("ce", "the loss", group="Loss")
    # A fresh one each: `option` makes it a default factory.
    loss_options: dict[str, Any] = option(  # noqa: RUF009
        dict, "constants of the loss, by name; what is not named keeps the original authors' value", group="Loss"
    )
    head_parallel: bool = option(
        False, "spread the classes of a margin head over the ranks; alone: the loss in little memory", group="Loss"
    )
    head_sample: float = option(
        1.0, "with `head_parallel`: part of the classes that a step takes, drawn anew each step", group="Loss",
        above=0, high=1,
    )  # fmt: skip
    prototypes: str = option(
        "learned",
        "class prototypes: learned, frozen (they stay random), simplex (as far apart as they can be, and not learned)",
        group="Loss",
        choices=("learned", "frozen", "simplex"),
    )
    frozen_head: bool = option(False, "keep the class prototypes random, as the report's code did", group="Loss")

    dataset: str = option("cifar10", "the data set (webdataset: tar shards)", group="Data")
    data_dir: str | None = option(
        None,
        "where the data is: a folder, a CSV or parquet file, or a pattern of tar shards (default: the user's cache)",
        group="Data",
        resume=True,
    )
    image_column: str | None = option(
        None, "csv, parquet: the column of the images' paths or bytes (default: guessed and said)", group="Data"
    )
    label_column: str | None = option(
        None, "csv, parquet: the column of the labels (default: guessed and said)", group="Data"
    )
    coarse: bool = option(False, "CIFAR-100: the 20 superclasses in place of the 100 classes", group="Data")
    classes: int = option(10_000, "synthetic-identities: how many", group="Data", low=2, high=10**7)
    dim: int = option(128, "synthetic-identities: size of their features", group="Data", low=2, high=65_536)
    spread: float = option(
        45.0, "synthetic-identities: standard deviation of a sample's angle to its prototype, degrees", group="Data",
        low=0, high=90,
    )  # fmt: skip
    image_size: int = option(32, "side of the square input, pixels", group="Data", low=8, high=1024)
    augment: str = option(
        "report",
        "report (crop, flip, colour jitter), basic (crop, flip), alternate (shift, flip every other epoch), autoaugment, none",
        group="Data",
        choices=("report", "basic", "alternate", "autoaugment", "none"),
    )
    cutout: int = option(
        0, "side of the square erased at a random place of each training image; 0: off",
        group="Data", low=0, high=1024,
    )  # fmt: skip
    mixup: float = option(
        0.0, "mixup: alpha of its Beta distribution; 0: off (ce, focal, la and vs)", group="Data", low=0, high=100
    )
    cutmix: float = option(
        0.0, "CutMix: alpha of its Beta distribution; 0: off (ce, focal, la and vs)", group="Data", low=0, high=100
    )
    progressive: int = option(
        0, "side that training images start at, growing to `image_size` over the first two thirds; 0: off",
        group="Data", low=0, high=1024,
    )  # fmt: skip
    normalize: bool = option(
        True, "subtract the training set's mean, divide by its std (else pixels in [0, 1])", group="Data"
    )
    canonical_order: bool = option(
        False,
        "sort the images by their content, so that a seed gives one run whatever files they come from",
        group="Data",
    )
    hold_out_classes: str | None = option(
        None, "classes that are not trained on: how many (the last ones), or their names, as in cat,dog (in double quotes one with a comma)", group="Data"
    )  # fmt: skip
    subset: int = option(
        0, "so many images of the training set in all, of each class its share; 0: all", group="Data", low=0, high=10**9
    )
    imbalance: float = option(
        1.0, "a long tail: the first class has so many times the training images of the last", group="Data",
        low=1, high=1_000_000,
    )  # fmt: skip
    label_noise: float = option(
        0.0, "part of the training images whose label becomes another, at random", group="Data", low=0, high=1
    )
    val_fraction: float = option(
        0.0, "part of the training set held out to choose `best` and to calibrate the model; 0: neither", group="Data",
        low=0, high=0.9,
    )  # fmt: skip

    epochs: int = option(250, "passes over the training set", group="Optimisation", low=1, high=1_000_000, resume=True)
    batch_size: int = option(256, "images a step", group="Optimisation", low=1, high=1_000_000)
    optimizer: str = option(
        "adamw",
        "adamw, adam, sgd (Nesterov) or muon (orthogonal steps for filters, sgd for the rest)",
        group="Optimisation",
        choices=("adamw", "adam", "sgd", "muon"),
    )
    lr: float = option(1e-3, "peak learning rate", group="Optimisation", above=0, high=1_000_000)
    rest_lr: float = option(
        1.0, "muon: learning rate of all that is not a filter (norms, biases, the head), in units of `lr`",
        group="Optimisation", above=0, high=1_000_000,
    )  # fmt: skip
    momentum: float = option(0.9, "momentum of sgd and muon", group="Optimisation", low=0, high=0.9999)
    weight_decay: float = option(0.01, "weight decay", group="Optimisation", low=0, high=1_000_000)
    schedule: str = option(
        "cosine",
        "cosine, onecycle, linear (down to 0) or constant",
        group="Optimisation",
        choices=("cosine", "onecycle", "linear", "constant"),
    )
    warmup: float = option(
        0.3, "part of the training spent warming up (not with constant)", group="Optimisation", low=0, high=1
    )
    init: str = option(
        "kaiming", "initialisation: kaiming or keras", group="Optimisation", choices=("kaiming", "keras")
    )
    ema: float = option(
        0.0, "decay of a running average of the weights, which is then what is measured and saved; 0: none",
        group="Optimisation", low=0, high=0.99999,
    )  # fmt: skip
    swa: float = option(
        0.0, "last part of the training, for example 0.25, over which the weights are averaged at a constant rate; 0: none",
        group="Optimisation", low=0, high=0.9,
    )  # fmt: skip
    seed: int = option(17, "the one seed of everything random", group="Optimisation", low=0, high=2**31 - 1)

    device: str = option(
        "auto", "auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps", group="Execution", resume=True
    )
    precision: str = option(
        "auto",
        "auto (bf16 where it is the faster; a resumed run keeps what it had), fp32, bf16",
        group="Execution",
        choices=PRECISIONS,
        resume=True,
    )
    channels_last: bool = option(True, "channels_last memory layout", group="Execution")
    sync_bn: bool = option(
        False, "BatchNorm over the batch of all ranks, not within each (torchrun, CUDA)", group="Execution"
    )
    compile: bool = option(False, "compile the training step with torch.compile", group="Execution")
    cuda_graph: bool = option(
        False,
        "launch a training step as one CUDA graph, where the host is what a GPU waits for",
        group="Execution",
        resume=True,
    )
    backend: str = option(
        "auto",
        "what runs the margin head: auto, torch, cpu, cuda",
        group="Execution",
        choices=("auto", "torch", "cpu", "cuda"),
    )
    deterministic: bool = option(
        False, "only algorithms that give the same bits each time on one machine (slower on a GPU)", group="Execution"
    )
    workers: int = option(
        0,
        "processes that decode images of a set too large for memory",
        group="Execution",
        low=0,
        high=1024,
        resume=True,
    )

    eval_every: int = option(
        1, "epochs between two evaluations (the last is always evaluated)", group="Output", low=1, high=1_000_000
    )
    tta: bool = option(
        False, "measure with the logits of six views of each image averaged: moved by a pixel, mirrored", group="Output"
    )
    checkpoint_every: int = option(
        0,
        "also save the training state every so many steps; 0: at the end of an epoch",
        group="Output",
        low=0,
        high=10**9,
        resume=True,
    )
    log_grad: bool = option(False, "log the gradient norm of the first and the last layer", group="Output")

    def __new__(cls, *values: Any, **given: Any) -> "TrainConfig":
        """Before the dataclass's own `__init__`, whose TypeError names no option. Raises Refused."""
        names = [item.name for item in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise unknown_option("TrainConfig", name, names)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.data_dir, os.PathLike):  # as a notebook would give it
            object.__setattr__(self, "data_dir", os.fspath(self.data_dir))
        if isinstance(self.hold_out_classes, list | tuple):  # as Python code has names
            object.__setattr__(self, "hold_out_classes", listed_names(self.hold_out_classes))

    def check(self) -> "TrainConfig":
        """Returns self, or raises Refused naming the first field out of its range, with the range.

        Which fields go together is `engine.conflicts`' to say.
        """
        for item in dataclasses.fields(self):
            check_type(item, getattr(self, item.name), item.name)
            check_bounds(item.name, getattr(self, item.name), item.metadata["bounds"])
        return self

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "config") -> "TrainConfig":
        """Builds a checked config from plain values; an unknown or ill-typed field is refused, naming `source`."""
        if not isinstance(values, dict):
            raise Refused(source, "is not a table of option names and values", "see config.json of any run")
        known = {item.name: item for item in dataclasses.fields(cls)}
        values = without_unset(with_loss_options(values))
        for name, value in values.items():
            if name not in known:
                raise unknown_option(source, str(name), known)
            check_type(known[name], value, source)
        return cls(**values).check()


describe_fields(TrainConfig)
