"""Where figures go, and the numbers behind them: shared by the commands that draw, without torch."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.storage.atomic import write_file


def destination(out: Path | None, checkpoint: Path, name: str) -> Path:
    """Where a figure goes: `out`, or `name`.png beside the checkpoint; checked before any work.

    Raises:
        Refused: the suffix names no format, or a folder is in the way.
    """
    from cifarnet.analysis.plots.style import check_path

    return check_path(out or checkpoint.parent / f"{name}.png")


@contextlib.contextmanager
def spared(name: str, warn: Callable[[str], object]) -> Iterator[None]:
    """Draws a figure that is no more than an extra: whatever goes wrong is warned of, and costs nothing else."""
    try:
        yield
    except CifarnetError as error:
        warn(f"{name} is not drawn: {error}")
    except Exception as error:
        warn(f"{name} is not drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def check_numbers_path(path: Path | None) -> None:
    """Refuses a --data-out that is neither JSON nor NPZ."""
    if path is not None and path.suffix not in (".json", ".npz"):
        raise Refused("--data-out", f"'{path.suffix}' is no format for numbers", "end the name in .json or .npz")


def write_numbers(path: Path | None, numbers: Mapping[str, Any]) -> None:
    """Writes the numbers behind a figure, if `path` is given: JSON, or NPZ with nested names joined by slashes.

    Raises:
        Failed: the file cannot be written.
    """
    if path is None:
        return
    if path.suffix == ".json":
        data = (json.dumps(plain(numbers)) + "\n").encode()
    else:
        import numpy as np

        buffer = io.BytesIO()
        arrays: Any = {name: np.asarray(value) for name, value in flat(numbers)}
        np.savez_compressed(buffer, **arrays)
        data = buffer.getvalue()
    write_file(path, data)


def plain(value: Any) -> Any:
    """Arrays and tensors as nested lists."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def flat(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested tables, with their names joined by slashes."""
    found: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        found += flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found
