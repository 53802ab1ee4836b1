"""Whatever holds numbers, as numpy's array."""

from typing import Any

import numpy as np


def as_array(values: Any) -> np.ndarray:
    """Values as numpy's; a tensor's too, wherever it is: floats of 16 bits and fewer as float32, since numpy has no bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()
    return np.asarray(values)
