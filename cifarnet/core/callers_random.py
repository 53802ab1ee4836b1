"""The state of Python's generator, which is the caller's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def callers_random() -> Iterator[None]:
    """Keeps the state of Python's `random`: draws within it take nothing from the caller.

    For the first import of scikit-learn in a process, and of what imports it: rich, which it loads, draws a number.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
