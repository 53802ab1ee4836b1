"""What JSON has words for."""

import json

import numpy as np
import torch

from cifarnet.core.json_values import plain


def test_arrays_become_lists_and_what_is_not_finite_null():
    values = {
        0: torch.tensor([[1, 2]]),
        "rows": np.array([0.5, np.nan, np.inf]),
        "one": np.float32(2),
        "deep": [{"x": -float("inf")}, (1, None, "é", True)],
    }
    text = json.dumps(plain(values), allow_nan=False)
    assert (
        text
        == '{"0": [[1, 2]], "rows": [0.5, null, null], "one": 2.0, "deep": [{"x": null}, [1, null, "\\u00e9", true]]}'
    )
