"""What the commands that draw share and torch is not needed for: titles, where figures go, the numbers behind them."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.storage.atomic import write_file

DATASET_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "folder": "image folder"}
ARCH_NAMES = {"resnet": "ResNet-", "plainnet": "PlainNet-"}


def title_of(config: TrainConfig, split: str = "") -> str:
    """model · loss · data set, as people write them."""
    name = config.arch.rstrip("0123456789")
    arch = ARCH_NAMES[name] + config.arch[len(name) :] if name in ARCH_NAMES else config.arch
    data = DATASET_NAMES.get(config.dataset, config.dataset)
    return f"{arch} · {config.loss} · {data}" + (f" {split}" if split else "")


def destination(out: Path | None, checkpoint: Path, name: str) -> Path:
    """Where a figure goes: `out`, or `name`.png beside the checkpoint; checked before any work.

    Raises:
        Refused: the suffix names no format, or a folder is in the way.
    """
    from cifarnet.analysis.plots.style import check_path

    return check_path(out or checkpoint.parent / f"{name}.png")


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
