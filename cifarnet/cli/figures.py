"""What the commands that draw share: opening a model with its data, titles, and writing the numbers behind a figure."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarnet.checkpoint import ModelInfo, load_model
from cifarnet.cli.common import messages
from cifarnet.cli.evaluate import open_split
from cifarnet.config import TrainConfig
from cifarnet.data import Loader
from cifarnet.errors import Refused
from cifarnet.features import Embeddings, embed
from cifarnet.geometry import choose_balanced
from cifarnet.losses import LOSSES
from cifarnet.model import Classifier
from cifarnet.runs import find_checkpoint
from cifarnet.storage import write_file

DATASET_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "folder": "image folder"}
ARCH_NAMES = {"resnet": "ResNet-", "plainnet": "PlainNet-"}


@dataclass(frozen=True)
class Opened:
    """A model on its device with images of a split."""

    path: Path
    model: Classifier
    info: ModelInfo
    loader: Loader
    device: torch.device
    precision: str

    @property
    def images(self) -> Tensor:
        """The pictures, uint8 [N, 3, H, W], on the CPU."""
        return next(iter(self.loader.split.batches([torch.arange(len(self.loader.split))]))).cpu()

    @property
    def angular(self) -> bool:
        """Whether the loss compares angles."""
        return LOSSES[self.info.config.loss].angular


def need_checkpoint(run: Path | None) -> Path:
    """The checkpoint of `run`, else of the latest run.

    Raises:
        Refused: there is none.
    """
    path = find_checkpoint(run)
    if path is None:
        raise Refused(
            "visualize", "there is no run yet (no runs/latest)", "train one, or name a run folder or checkpoint"
        )
    return path


def open_model(run: Path | None, data_dir: str | None, split: str, samples: int, seed: int, device: str) -> Opened:
    """A run's model and `samples` images of a split, the same number of each class (0: all).

    Raises:
        Refused: no such run, a broken checkpoint, data missing, an unknown split.
    """
    path = need_checkpoint(run)
    model, info = load_model(path)
    loader, target, precision = open_split(info, None, data_dir, split, 500, device, None)
    if 0 < samples < len(loader.split):
        chosen = choose_balanced(loader.split.labels.cpu(), samples, seed)
        part = loader.split.subset(chosen)
        loader = Loader(part, 500, target, mean=info.mean, std=info.std, shuffle=False)  # type: ignore[arg-type]
    return Opened(path, model.to(target), info, loader, target, precision)


def embed_images(opened: Opened) -> Embeddings:
    """Features, logits and labels of the images, with a line on stderr while it lasts."""
    with messages().status(f"{len(opened.loader.split):,} images through {opened.info.config.arch}"):
        return embed(opened.model, opened.loader.epoch(0), opened.device, opened.precision)


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
    from cifarnet.plots.style import check_path

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
    return value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value


def flat(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested tables, with their names joined by slashes."""
    found: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        found += flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found
