"""The report's published numbers, from published.json: scores and confusion matrices of its cells, costs of its networks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.percent import percent
from cifarnet.core.plain_file import read_text
from cifarnet.data.shape_options import shaping_options

NUMBERS = Path(__file__).parent / "published.json"
DIGIT = 0.0005  # half of the last digit that a confusion matrix is printed with
EXACT = 0.00005  # the same of a score


@dataclass(frozen=True)
class Cell:
    """A model of the report, trained on the exact images of CIFAR-10 with one seed, and measured after the last epoch.

    Scores are in [0, 1]. table, confusion_table: where they stand. confusion: parts of each true class's 1,000 images, rows
    the true class; None where the report has none. hard_labels: AUROC and AUPRC are of the predicted labels alone.
    """

    name: str
    table: str
    epochs: int
    accuracy: float
    auroc: float
    auprc: float
    hard_labels: bool = False
    confusion_table: str = ""
    confusion: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class Cost:
    """A row of Table 3.9: parameters; GFLOPs and GMACs of a batch of two images (printed there as tera)."""

    parameters: int
    gflops: float
    gmacs: float


@cache
def _numbers() -> Any:
    return json.loads(read_text(NUMBERS))


@cache
def cells() -> dict[str, Cell]:
    """Each cell of the report, by a key such as "resnet18-arcface"."""
    return {key: Cell(**values) for key, values in _numbers()["cells"].items()}


@cache
def costs() -> dict[str, Cost]:
    """The networks of Table 3.9, by architecture."""
    return {arch: Cost(**values) for arch, values in _numbers()["costs"].items()}


def class_names() -> list[str]:
    """The classes, in the order of the confusion matrices."""
    return list(_numbers()["classes"])


def cell_of(config: TrainConfig) -> Cell | None:
    """The report's cell that a run of `config` is to be put beside, or None: all of CIFAR-10, its networks, losses, stems.

    The baseline without augmentation is the report's baseline, with augmentation its Baseline+. How a run is optimised, and
    for how long, does not matter: that may be what is compared.
    """
    if config.dataset != "cifar10" or config.embed_dim or config.image_size != 32:
        return None
    if shaping_options(config).keys() - {"canonical_order"}:
        return None
    key = f"{config.arch}-{config.loss}"
    if key == "baseline-ce":
        key = "baseline" if config.augment == "none" else "baseline-plus"
    if config.stem != "small":
        key += f"-{config.stem}-stem"
    return cells().get(key)


def inconsistencies(cell: Cell) -> list[str]:
    """In what a cell's published numbers do not agree with each other, as sentences.

    A class has 1,000 test images, so that three digits of a part are exact: a row sums to 1, and the mean of the diagonal is
    the accuracy.
    """
    if cell.confusion is None:
        return []
    found, matrix = [], cell.confusion
    for name, row in zip(class_names(), matrix, strict=True):
        if abs(sum(row) - 1) > DIGIT:
            found.append(f"In Table {cell.confusion_table} the row of {name} sums to {sum(row):.3f}, not to 1.")
    diagonal = sum(row[index] for index, row in enumerate(matrix)) / len(matrix)
    if abs(diagonal - cell.accuracy) > EXACT:
        here, there = percent(diagonal), percent(cell.accuracy)
        found.append(
            f"The diagonal of Table {cell.confusion_table} gives an accuracy of {here}; Table {cell.table} has {there}."
        )
    return found
