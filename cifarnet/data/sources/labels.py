"""Labels as people write them, texts or numbers, as class numbers from 0."""

import math
from collections.abc import Sequence

import numpy as np

from cifarnet.core.class_names import composed
from cifarnet.core.errors import printable


def encode_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, sorted (as numbers where all of them are), and int64 [N], the place of each label among them."""
    labels = [composed(label) for label in labels]
    called = sorted(set(labels), key=order_of(labels))
    place = {label: number for number, label in enumerate(called)}
    return tuple(map(printable, called)), np.array([place[label] for label in labels], dtype=np.int64)


def order_of(labels: Sequence[str]):  # type: ignore[no-untyped-def]
    """The key to sort labels by."""
    if all(number_of(label) is not None for label in set(labels)):
        return lambda label: (number_of(label), label)
    return lambda label: label


def number_of(label: str) -> float | None:
    """The finite number that a label spells, else None."""
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def pick_column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The column that bears the first of the known names, in whatever case, with or without `_`; None where none does."""
    plain = {column.lower().replace("_", "").replace(" ", "").replace("-", ""): column for column in reversed(columns)}
    return next((plain[name.replace("_", "")] for name in known if name.replace("_", "") in plain), None)


LABELS = (
    "label", "labels", "fine_label", "class", "classes", "class_name", "label_name", "class_id", "label_id", "target",
    "targets", "category", "category_id", "y", "cls", "species", "breed",
)  # fmt: skip
