"""The losses that pure torch runs, a class each in the files of this folder. A new file is imported here."""

from cifarnet.losses.objectives import (
    adacos,
    elastic,
    hard_examples,
    imbalance,
    kappa,
    one_vs_all,
    originals,
    sphereface_r,
    subcenters,
)
from cifarnet.losses.objectives.base import OBJECTIVES

__all__ = [
    "OBJECTIVES",
    "adacos",
    "elastic",
    "hard_examples",
    "imbalance",
    "kappa",
    "one_vs_all",
    "originals",
    "sphereface_r",
    "subcenters",
]
