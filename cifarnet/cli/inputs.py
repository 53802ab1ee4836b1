"""What the commands that draw share: opening a model with images of its data, and passing these through it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cifarnet.analysis.embedding import choose_balanced
from cifarnet.analysis.features import Embeddings, embed
from cifarnet.cli.common import messages
from cifarnet.cli.progress import load_shown
from cifarnet.core.errors import Refused
from cifarnet.data import Loader
from cifarnet.engine.open_split import open_split
from cifarnet.losses import LOSSES
from cifarnet.models.checkpoint import ModelInfo, load_model
from cifarnet.models.classifier import Classifier
from cifarnet.storage.find_checkpoint import find_checkpoint


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
    loader, target, precision = open_split(
        info, split, data_dir=data_dir, device=device, load=partial(load_shown, messages())
    )
    if 0 < samples < len(loader.split):
        chosen = choose_balanced(loader.split.labels.cpu(), samples, seed)
        part = loader.split.subset(chosen)
        loader = Loader(part, 500, target, mean=info.mean, std=info.std, shuffle=False)  # type: ignore[arg-type]
    return Opened(path, model.to(target), info, loader, target, precision)


def embed_images(opened: Opened) -> Embeddings:
    """Features, logits and labels of the images, with a line on stderr while it lasts."""
    with messages().status(f"{len(opened.loader.split):,} images through {opened.info.config.arch}"):
        return embed(opened.model, opened.loader.epoch(0), opened.device, opened.precision)
