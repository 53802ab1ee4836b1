"""Where figures go, and the numbers behind them: shared by the commands that draw, without torch."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.core.json_values import plain
from cifarnet.storage.output import check_output, free_name, write_output
from cifarnet.storage.run_names import home_of

if TYPE_CHECKING:
    from cifarnet.engine.open_split import Opened

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]


def asked_figure(path: Path | None, overwrite: bool) -> Path | None:
    """Where the user wants a figure, checked before any work; None where no name is given.

    Raises:
        Refused: the suffix names no format, something is in the way, a file is there and `overwrite` is not given.
    """
    from cifarnet.analysis.plots.style import check_path

    return None if path is None else check_output(check_path(path), overwrite)


def unnamed(file: str, overwrite: bool, *homes: Path | None) -> Path:
    """Where a result goes that the user gave no name: `file` in the folder of its only run, where it is drawn anew.

    Args:
        homes: of each run, its folder; None for one without, or whose folder is not the place (see `home_of_images`).

    Returns:
        of no run, of several, or of one without a folder, `file` in the current folder, or a free name like it.
    """
    if len(homes) == 1 and homes[0] is not None:
        return homes[0] / file
    return Path(file) if overwrite else free_name(Path(file))


def home_of_images(opened: "Opened") -> Path | None:
    """The run's folder for what is made of a split: None of images that are not its own, whose figures would replace its own's."""
    return home_of(opened.path) if opened.of_own_data else None


def of_split(name: str, split: str, usual: str = "test") -> str:
    """The name of a figure of a split: each has its own."""
    return name if split == usual else f"{name}-{split}"


@contextlib.contextmanager
def spared(name: str, warn: Callable[[str], object], done: str = "drawn") -> Iterator[None]:
    """Within it a file is made that is no more than an extra: whatever goes wrong is warned of, and costs nothing else.

    Args:
        name: of the file, in the warning; done: in the warning, too, what it is not.
    """
    try:
        yield
    except CifarnetError as error:
        warn(f"{name} is not {done}: {error}")
    except Exception as error:
        warn(f"{name} is not {done}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


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
