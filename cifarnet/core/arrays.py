"""Whatever holds numbers, as numpy's array."""

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
    """Labels as an array: numbers, or text.

    Raises:
        Refused: one that is missing (None, NaN), which would count as one more identity.
    """
    labels = as_array(values)
    if labels.dtype.kind == "O":
        missing = np.array([one is None or one != one for one in labels.ravel().tolist()], dtype=bool)
    else:
        missing = np.isnan(labels).ravel() if labels.dtype.kind == "f" else np.zeros(0, dtype=bool)
    if missing.any():
        where = f"{plural(int(missing.sum()), 'label')} missing, the first in row {int(missing.argmax())}"
        raise Refused(what, where, "give an identity for each row, or leave these rows out")
    if labels.dtype.kind == "O" and all(isinstance(one, str) for one in labels.ravel().tolist()):
        return labels.astype(str)
    return labels


def as_rates(values: Any, name: str) -> list[float]:
    """One rate or several as a list. Raises Refused for what is no number."""
    rates = as_array(values)
    if rates.size and rates.dtype.kind not in "iuf":
        raise Refused(name, f"{values!r} is no rate", "give a number, or several, as in 0.01")
    return [float(rate) for rate in rates.ravel().tolist()]
