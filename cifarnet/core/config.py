"""The configuration of a training run: one frozen dataclass, checked before any work is done.

Each field carries its help text, its bounds and its group, so that the command line, the checks and
`config.json` all read the same line of this file.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_bounds, check_type, flag, option

SYNTHETIC = "synthetic-identities"  # the data set of features
IDENTITY = "identity"  # the backbone that passes them on
# What a run on features takes in place of the recipe's values: there is nothing to augment, and the prototypes alone learn.
FEATURE_VALUES = {"arch": IDENTITY, "augment": "none", "lr": 0.05}
GROUPS = ("Model", "Loss", "Data", "Optimisation", "Execution", "Output")
SMALLEST_SIDE = 16  # pixels: the last stage of a ResNet still has one to work on


@dataclass(frozen=True)
class MarginOptions:
    """What a margin loss needs to know: its name and constants (symbols as in the papers).

    loss: a key of `cifarnet.losses.LOSSES` other than ce and focal; scale: s (not used by sphereface, which scales
    by |z|); margin: m (radians for arcface and its kin, cosine for cosface, the integer multiplier for sphereface;
    not used by magface, whose margin follows |z|); h, t_alpha: AdaFace's; easy_margin: ArcFace's variant.
    """

    loss: str
    scale: float = 64.0
    margin: float = 0.5
    h: float = 0.333
    t_alpha: float = 0.01
    easy_margin: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The defaults are the report's protocol."""

    arch: str = option(
        "resnet18", "baseline, speednet, resnet18|34|50|101|152, plainnet18|34|50 (no skip connections)", group="Model"
    )
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

    loss: str = option("ce", "ce, focal, sphereface, cosface, arcface, curricularface, adaface, magface", group="Loss")
    scale: float | str | None = option(
        None,
        "s of the margin losses, or auto: fit to the number of classes (default: the paper's)",
        group="Loss",
        above=0,
    )
    margin: float | str | None = option(
        None, "m of the margin losses, or auto: fit to classes and features (default: the paper's)", group="Loss", low=0
    )
    h: float | None = option(None, "AdaFace's h, how far the norm moves the margin", group="Loss", low=0)
    t_alpha: float | None = option(None, "AdaFace's EMA rate of the norm statistics", group="Loss", low=0, high=1)
    easy_margin: bool = option(False, "ArcFace: the margin only where the target cosine is positive", group="Loss")
    gamma: float | None = option(None, "focal loss: the focusing exponent", group="Loss", low=0)
    label_smoothing: float = option(0.0, "label smoothing of ce", group="Loss", low=0, high=0.999)
    head_parallel: bool = option(
        False, "spread the classes of a margin head over the ranks; alone: the loss in little memory", group="Loss"
    )
    head_sample: float = option(
        1.0, "with --head-parallel: part of the classes that a step takes, drawn anew each step", group="Loss",
        above=0, high=1,
    )  # fmt: skip
    frozen_head: bool = option(False, "keep the class prototypes random, as the report's code did", group="Loss")

    dataset: str = option(
        "cifar10", "cifar10, cifar100, digits, folder, webdataset (tar shards), synthetic-identities", group="Data"
    )
    data_dir: str | None = option(
        None,
        "where the data is: a folder, or a pattern of tar shards (default: the user's cache)",
        group="Data",
        resume=True,
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
        0.0, "mixup: alpha of its Beta distribution; 0: off (ce and focal)", group="Data", low=0, high=100
    )
    cutmix: float = option(
        0.0, "CutMix: alpha of its Beta distribution; 0: off (ce and focal)", group="Data", low=0, high=100
    )
    progressive: int = option(
        0, "side that training images start at, growing to --image-size over the first two thirds; 0: off",
        group="Data", low=0, high=1024,
    )  # fmt: skip
    normalize: bool = option(
        True, "subtract the training set's mean, divide by its std (else pixels in [0, 1])", group="Data"
    )
    val_fraction: float = option(
        0.0, "part of the training set held out to choose `best`; 0 keeps no best", group="Data", low=0, high=0.9
    )

    epochs: int = option(250, "passes over the training set", group="Optimisation", low=0, resume=True)
    batch_size: int = option(256, "images a step", group="Optimisation", low=1)
    optimizer: str = option(
        "adamw",
        "adamw, adam, sgd (Nesterov) or muon (orthogonal steps for filters, sgd for the rest)",
        group="Optimisation",
        choices=("adamw", "adam", "sgd", "muon"),
    )
    lr: float = option(1e-3, "peak learning rate", group="Optimisation", above=0)
    rest_lr: float = option(
        1.0, "muon: learning rate of all that is not a filter (norms, biases, the head), in units of --lr",
        group="Optimisation", above=0,
    )  # fmt: skip
    momentum: float = option(0.9, "momentum of sgd and muon", group="Optimisation", low=0, high=0.9999)
    weight_decay: float = option(0.01, "weight decay", group="Optimisation", low=0)
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
        choices=("auto", "fp32", "bf16"),
        resume=True,
    )
    channels_last: bool = option(True, "channels_last memory layout", group="Execution")
    sync_bn: bool = option(
        False, "BatchNorm over the batch of all ranks, not within each (torchrun, CUDA)", group="Execution"
    )
    compile: bool = option(False, "compile the training step with torch.compile", group="Execution")
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
        0, "processes that decode images of a set too large for memory", group="Execution", low=0, resume=True
    )

    eval_every: int = option(1, "epochs between two evaluations (the last is always evaluated)", group="Output", low=1)
    tta: bool = option(False, "measure with the logits of each image and its mirror image averaged", group="Output")
    checkpoint_every: int = option(
        0,
        "also save the training state every so many steps; 0: at the end of an epoch",
        group="Output",
        low=0,
        resume=True,
    )
    log_grad: bool = option(False, "log the gradient norm of the first and the last layer", group="Output")

    def check(self) -> "TrainConfig":
        """Returns self, or raises Refused naming the first option out of its range, with the range."""
        for item in dataclasses.fields(self):
            check_bounds(item, getattr(self, item.name))
        if self.neck == "bn" and self.embed_dim == 0:
            raise Refused("--neck", "bn needs the size of the embedding", "add --embed-dim, for example 512")
        if self.label_smoothing > 0 and self.loss != "ce":
            raise Refused("--label-smoothing", f"is not defined for {self.loss}", "leave it out, or use --loss ce")
        if self.dataset != "cifar100" and self.coarse:
            raise Refused("--coarse", f"{self.dataset} has no superclasses", "use it with --dataset cifar100")
        if self.ema and self.swa:
            raise Refused("--ema and --swa", "are two averages of the weights", "choose one: --ema 0 or --swa 0")
        if self.progressive and not SMALLEST_SIDE <= self.progressive <= self.image_size:
            wanted = f"give {SMALLEST_SIDE} to {self.image_size} (--image-size)"
            raise Refused("--progressive", f"{self.progressive} is out of range", wanted)
        self._check_identities()
        self._check_head_parallel()
        return self

    def _check_identities(self) -> None:
        """Features go into the head as they are: nothing that works on images fits them."""
        synthetic = self.dataset == SYNTHETIC
        if synthetic != (self.arch == IDENTITY):
            why = f"{self.dataset} has {'features' if synthetic else 'images'}"
            raise Refused("--arch", f"{self.arch} does not fit: {why}", f"use {IDENTITY} with {SYNTHETIC} only")
        defaults = TrainConfig.__dataclass_fields__
        for name in ("classes", "dim", "spread"):
            if not synthetic and getattr(self, name) != defaults[name].default:
                raise Refused(flag(name), f"{self.dataset} has its own", f"use it with --dataset {SYNTHETIC}")
        needs: dict[str, Any] = {"augment": "none", "cutout": 0, "mixup": 0, "cutmix": 0, "progressive": 0}
        needs |= {"val_fraction": 0, "tta": False}
        for name, needed in needs.items():
            if synthetic and getattr(self, name) != needed:
                raise Refused(flag(name), f"{SYNTHETIC} has no images", "leave it out")

    def _check_head_parallel(self) -> None:
        """What the spread head cannot do."""
        if not self.head_parallel:
            if self.head_sample < 1:
                raise Refused("--head-sample", "needs the spread head", "add --head-parallel")
            return
        cannot = {
            "loss": self.loss in ("ce", "focal"),
            "init": self.init != "kaiming",
            "backend": self.backend in ("cpu", "cuda"),
        }
        cannot |= {"compile": self.compile, "log_grad": self.log_grad}
        for name, refused in cannot.items():
            if refused:
                value = "" if isinstance(getattr(self, name), bool) else f"{getattr(self, name)} "
                fix = "use a margin loss" if name == "loss" else "leave one of them out"
                raise Refused("--head-parallel", f"cannot be with {flag(name)} {value}".rstrip(), fix)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "config") -> "TrainConfig":
        """Builds a checked config from plain values; an unknown or ill-typed field is refused, naming `source`."""
        if not isinstance(values, dict):
            raise Refused(source, "is not a table of option names and values", "see config.json of any run")
        known = {item.name: item for item in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise Refused(source, f"unknown option '{name}'", f"known: {', '.join(known)}")
            check_type(known[name], value, source)
        return cls(**values).check()
