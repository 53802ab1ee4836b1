"""Recipes: named sets of configuration values, each overridable by flags. What each reaches stands in docs/results."""

from dataclasses import dataclass, field
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.known import unknown
from cifarnet.losses import LOSSES


@dataclass(frozen=True)
class Recipe:
    """A name's values; what they do not name keeps TrainConfig's default."""

    summary: str
    values: dict[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "report": Recipe("the report's protocol: AdamW 1e-3, warm-up over 30% of 250 epochs, then cosine"),
    "baseline": Recipe(
        "the lab's baseline: small CNN, Keras initialisation, Adam 1e-3, batch 32, 10 epochs, pixels in [0, 1]",
        {
            "arch": "baseline",
            "init": "keras",
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "schedule": "constant",
            "batch_size": 32,
            "epochs": 10,
            "augment": "none",
            "normalize": False,
            "precision": "fp32",
        },
    ),
    "baseline-plus": Recipe(
        "the baseline with augmentation and normalisation: SGD + Nesterov 0.05, one-cycle, batch 128, 40 epochs",
        {
            "arch": "baseline",
            "optimizer": "sgd",
            "lr": 0.05,
            "weight_decay": 5e-4,
            "schedule": "onecycle",
            "batch_size": 128,
            "epochs": 40,
            "augment": "basic",
        },
    ),
    "modern": Recipe(
        "short and strong: SGD + Nesterov 0.1, one-cycle, batch 128, label smoothing, averaged weights, crop and flip",
        {
            "optimizer": "sgd",
            "lr": 0.1,
            "weight_decay": 5e-4,
            "schedule": "onecycle",
            "batch_size": 128,
            "epochs": 12,
            "augment": "basic",
            "label_smoothing": 0.1,
            "ema": 0.995,
            "scale": "auto",
            "margin": "auto",
        },
    ),
    "quick": Recipe(
        "12 epochs for a ResNet: Muon 0.16 (norms and head 0.64), batch 512, linear decay, alternating flips, label smoothing, averaged weights",
        {
            "optimizer": "muon",
            "lr": 0.16,
            "rest_lr": 4.0,
            "momentum": 0.6,
            "weight_decay": 2e-3,
            "schedule": "linear",
            "warmup": 0.0,
            "batch_size": 512,
            "epochs": 12,
            "augment": "alternate",
            "label_smoothing": 0.1,
            "ema": 0.98,
            "scale": "auto",
            "margin": 0.05,  # few epochs: 0.19 (auto) is behind on the training images (docs/recipes.md)
        },
    ),
    "speed": Recipe(
        "the fastest: speednet with a whitening first layer, Muon, batch 1000, 10 epochs, alternating flips, label smoothing",
        {
            "arch": "speednet",
            "optimizer": "muon",
            "lr": 0.2,
            "momentum": 0.6,
            "weight_decay": 5e-3,
            "schedule": "linear",
            "warmup": 0.0,
            "batch_size": 1000,
            "epochs": 10,
            "augment": "alternate",
            "label_smoothing": 0.2,
            "scale": "auto",
            "margin": "auto",
        },
    ),
}


def recipe_values(name: str, loss: str | None = None) -> dict[str, Any]:
    """The values of a recipe, without those that `loss` (None: the recipe's own) has no use for.

    Raises:
        Refused: an unknown name.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    values = RECIPES[name].values
    loss = loss or values.get("loss", TrainConfig.loss)
    useless = {constant for row in LOSSES.values() for constant in row.constants}
    if loss in LOSSES:
        useless -= LOSSES[loss].constants.keys()
        if not LOSSES[loss].adds:  # SphereFace's m multiplies the angle: it stays its authors'
            useless.add("margin")
        useless |= {name for name, constant in LOSSES[loss].constants.items() if constant.never_auto}
    return {key: value for key, value in values.items() if key not in useless}
