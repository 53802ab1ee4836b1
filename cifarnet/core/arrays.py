"""Whatever holds numbers, as numpy's array."""

from numbers import Real
from typing import Any

import numpy as np

from cifarnet.core.errors import Refused, plural


def as_array(values: Any) -> np.ndarray:
    """Values as numpy's; a tensor's too, wherever it is: floats of 16 bits and fewer as float32, since numpy has no bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()
    return np.asarray(values)


def as_labels(values: Any, what: str) -> np.ndarray:
    """Labels as an array: of numbers, or of text, where all are.

    Raises:
        Refused: one that is missing (None, NaN, NaT, pandas' NA), which would count as one more identity.
    """
    # Each one of a list first: as an array, NaN among text would be the text "nan".
    listed = np.array(values, dtype=object) if isinstance(values, (list, tuple)) else None
    labels = as_array(values) if listed is None or not any(map(is_missing, listed.ravel().tolist())) else listed
    if labels.dtype.kind == "O":
        each = labels.ravel().tolist()
        missing = np.array([is_missing(one) for one in each], dtype=bool)
        if all(isinstance(one, str) for one in each) or all(isinstance(one, Real) for one in each):
            labels = np.asarray(labels.tolist())
    else:
        missing = labels.ravel() != labels.ravel() if labels.dtype.kind in "fcmM" else np.zeros(0, dtype=bool)
    if missing.any():
        where = f"{plural(int(missing.sum()), 'label')} missing, the first in row {int(missing.argmax())}"
        raise Refused(what, where, "give an identity for each row, or leave these rows out")
    return labels


def is_missing(value: Any) -> bool:
    """Does a value stand for none: None, NaN, NaT, pandas' NA?"""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Real) and value != value)
    )


def directions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, D] of numbers as vectors of length 1, float64, and the places of those that have no direction, whatever the others' lengths."""
    unit = rows.astype(np.float64)
    largest = np.abs(unit).max(axis=1, initial=0)
    broken = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    largest[broken] = 1
    unit /= largest[:, None]  # so that no square leaves a float's range
    lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    lengths[broken] = 1
    unit /= lengths[:, None]
    return unit, broken


def as_rates(values: Any, name: str) -> list[float]:
    """One rate or several as a list. Raises Refused for what is no number."""
    rates = as_array(values)
    if rates.size and rates.dtype.kind not in "iuf":
        raise Refused(name, f"{values!r} is no rate", "give a number, or several, as in 0.01")
    return [float(rate) for rate in rates.ravel().tolist()]
