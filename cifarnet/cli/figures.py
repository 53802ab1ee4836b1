"""Where figures go, and the numbers behind them: shared by the commands that draw, without torch."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.core.json_values import plain
from cifarnet.storage.output import check_output, free_name, write_output

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]


def destination(out: Path | None, checkpoint: Path, name: str, overwrite: bool) -> Path:
    """Where a figure goes: `out`; else `name`.png in the run's folder, or of a checkpoint without one in the current folder.

    In a run's folder the figure of that name is replaced; elsewhere one without a name from the user gets a free one.

    Raises:
        Refused: the suffix names no format, something is in the way, a file is there and `overwrite` is not given.
    """
    from cifarnet.analysis.plots.style import check_path

    if out is not None:
        return check_output(check_path(out), overwrite)
    if (checkpoint.parent / "config.json").is_file():
        return checkpoint.parent / f"{name}.png"
    path = Path(f"{name}.png")
    return path if overwrite else free_name(path)


@contextlib.contextmanager
def spared(name: str, warn: Callable[[str], object]) -> Iterator[None]:
    """Draws a figure that is no more than an extra: whatever goes wrong is warned of, and costs nothing else."""
    try:
        yield
    except CifarnetError as error:
        warn(f"{name} is not drawn: {error}")
    except Exception as error:
        warn(f"{name} is not drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def numbers_path(path: Path | None, overwrite: bool) -> Path | None:
    """Where --data-out goes, checked before any work. Raises Refused: neither JSON nor NPZ; else as `check_output`."""
    if path is not None and path.suffix not in (".json", ".npz"):
        raise Refused("--data-out", f"'{path.suffix}' is no format for numbers", "end the name in .json or .npz")
    return check_output(path, overwrite) if path is not None else None


def write_numbers(path: Path | None, numbers: Mapping[str, Any]) -> None:
    """Writes the numbers behind a figure, if `path` is given: JSON (not finite: null), or NPZ with nested names joined by slashes.

    Raises:
        Failed: the file cannot be written.
    """
    if path is None:
        return
    if path.suffix == ".json":
        data = (json.dumps(plain(numbers), allow_nan=False) + "\n").encode()
    else:
        import numpy as np

        buffer = io.BytesIO()
        arrays: Any = {name: np.asarray(value) for name, value in flat(numbers)}
        np.savez_compressed(buffer, **arrays)
        data = buffer.getvalue()
    write_output(path, data)


def flat(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested tables, with their names joined by slashes."""
    found: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        found += flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found
