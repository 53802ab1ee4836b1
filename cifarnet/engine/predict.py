"""image files -> probabilities. A file that cannot be used is reported; the others are still done."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from cifarnet.core.devices import autocast
from cifarnet.data.images.decode import ImageError, read_image
from cifarnet.models.checkpoint import ModelInfo
from cifarnet.models.classifier import Classifier

BATCH = 128  # images in memory at a time


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one file: classes and probabilities, most probable first; or the error that kept it out."""

    file: str
    classes: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


def predict_files(
    model: Classifier,
    info: ModelInfo,
    files: Iterable[Path],
    *,
    top: int = 3,
    crop: bool = False,
    device: torch.device | None = None,
    precision: str = "fp32",
) -> Iterator[Prediction]:
    """A prediction for each file, in order, computed in batches.

    Args:
        model, info: as `load_model` returns them.
        top: classes to name, at most all.
        crop: cut the largest centred square out of an image that is not square; else it is squeezed.
        precision: fp32 or bf16.
    """
    device = device or torch.device("cpu")
    model = model.to(device).eval()
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (info.mean, info.std))
    pending = iter(files)
    while chunk := list(islice(pending, BATCH)):
        read = [_read(path, info.config.image_size, crop) for path in chunk]
        images = [image for image, _ in read if image is not None]
        rows: list[list[float]] = []
        if images:
            batch = (torch.stack(images).to(device).float() / 255 - mean) / std
            with torch.inference_mode(), autocast(device, precision):
                rows = model(batch).double().softmax(dim=1).tolist()
        probabilities = iter(rows)
        for image, prediction in read:
            yield prediction if image is None else _rank(prediction, next(probabilities), info.classes, top)


def _read(path: Path, size: int, crop: bool) -> tuple[torch.Tensor | None, Prediction]:
    try:
        image, warnings = read_image(path, size, crop=crop)
    except ImageError as error:
        return None, Prediction(str(path), error=str(error))
    return image, Prediction(str(path), warnings=warnings)


def _rank(prediction: Prediction, row: list[float], classes: Sequence[str], top: int) -> Prediction:
    best = sorted(range(len(row)), key=lambda index: -row[index])[:top]
    names, values = [classes[index] for index in best], [row[index] for index in best]
    return Prediction(prediction.file, names, values, prediction.warnings)
