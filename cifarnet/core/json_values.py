"""Values as JSON has them."""

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Tables, lists, arrays and tensors of whatever depth, as JSON has them; a number that is not finite becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
