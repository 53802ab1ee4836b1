"""The report's published numbers that we know, each with where it stands."""

from dataclasses import dataclass

from cifarnet.core.config import TrainConfig


@dataclass(frozen=True)
class Accuracy:
    """A published test accuracy on the exact images of CIFAR-10."""

    name: str
    value: float
    epochs: int


@dataclass(frozen=True)
class Cost:
    """A row of Table 3.9: parameters, and the GMACs of a batch of two images (printed there as TMACs)."""

    parameters: int
    gmacs_of_two: float


COSTS = {
    "baseline": Cost(122_570, 0.0091),
    "resnet18": Cost(11_173_962, 0.2804),
    "resnet50": Cost(23_520_842, 0.6516),
}


def published_accuracy(config: TrainConfig) -> Accuracy | None:
    """The report's accuracy of the model of `config`, where it has one: cross-entropy on CIFAR-10, its own stem."""
    if config.dataset != "cifar10" or config.loss != "ce" or config.stem != "small" or config.embed_dim:
        return None
    if config.arch == "baseline":
        plain = config.augment == "none"
        return Accuracy("baseline", 0.6977, 10) if plain else Accuracy("Baseline+", 0.8336, 250)
    return {"resnet18": Accuracy("ResNet-18", 0.908, 250), "resnet50": Accuracy("ResNet-50", 0.922, 250)}.get(
        config.arch
    )
