"""Images -> classes and probabilities. A file that cannot be used is reported; the others are still done."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from cifarnet.core.errors import plural, printable
from cifarnet.core.percent import percent
from cifarnet.data.images.decode import ImageError
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.metrics import check_finite
from cifarnet.engine.pixels import normalized_batch, read_pixels
from cifarnet.models.calibration import energy_scores, probabilities
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

BATCH = 128  # images in memory at a time
SHOWN = 3  # classes in a prediction's repr


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, most probable first, with their probabilities; or the error that kept the image out.

    file: where the image came from, by the file's own name and not one for a screen (see `printable`), "" where it is no file;
    warnings: remarks on the file, fit for the user.
    unknown: is it none of the classes? Its score is below that which 99% of the model's held-out images reach (see
    `Calibration`). Both None where the model has no calibration.
    """

    file: str
    classes: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    unknown: bool | None = None
    unknown_score: float | None = None

    def __repr__(self) -> str:
        """The file and what is said of it, in as many digits as a reader wants: `Prediction(x.png: ship 33.45%, deer 27.88%, 8 more)`."""
        pairs = zip(self.classes[:SHOWN], self.probabilities, strict=False)
        said = [f"{name} {percent(value)}" for name, value in pairs]
        said += [f"{more:,} more"] if (more := len(self.classes) - SHOWN) > 0 else []
        said += ["none of these"] if self.unknown else []
        said += [plural(len(self.warnings), "warning")] if self.warnings else []
        if self.error is not None:
            return f"Prediction({printable(self.error)})"
        return f"Prediction({printable(self.file) + ': ' if self.file else ''}{', '.join(map(printable, said))})"


def predict_images(
    model: Classifier,
    info: ModelInfo,
    images: Iterable[Any],
    *,
    top: int | None = None,
    crop: bool = False,
    device: torch.device | None = None,
    precision: str = "fp32",
) -> Iterator[Prediction]:
    """A prediction for each image, in order, computed in batches; probabilities are calibrated where the model is.

    Args:
        model, info: as `load_model` returns them.
        images: single images as `read_pixels` takes them.
        top: classes to name; None names all.
        crop: cut the largest centred square out of an image that is not square; else it is squeezed.
        precision: fp32 or bf16.

    Raises:
        Failed: logits that are not finite (see `check_finite`).
    """
    device = device or torch.device("cpu")
    batches = read_batches(images, info, device, crop)
    for features, predictions in embed_batches(model.to(device), batches, device, precision):
        with torch.inference_mode():
            logits = model.head.logits(features)
            check_finite(logits)
            rows = iter(probabilities(logits, info.calibration).tolist())
            scores = iter(energy_scores(logits, info.calibration.temperature).tolist() if info.calibration else [])
        for prediction in predictions:
            if prediction.error is None:
                prediction = with_candidates(prediction, next(rows), info.classes, top)
                if info.calibration:
                    score = next(scores)
                    unknown = score < info.calibration.unknown_at
                    prediction = replace(prediction, unknown=unknown, unknown_score=score)
            yield prediction


def read_batches(
    images: Iterable[Any], info: ModelInfo, device: torch.device, crop: bool = False
) -> Iterator[tuple[Tensor, list[Prediction]]]:
    """Batches of normalised images [n, 3, H, W], each with the predictions to fill in, those of unusable files too."""
    pending, size = iter(images), info.config.image_size
    while chunk := list(islice(pending, BATCH)):
        usable, predictions = [], []
        for image in chunk:
            name = os.fsdecode(image) if isinstance(image, (str, bytes)) or hasattr(image, "__fspath__") else ""
            try:
                pixels, warnings = read_pixels(image, size, crop)
            except ImageError as error:
                predictions.append(Prediction(name, error=str(error)))
                continue
            usable.append(pixels)
            predictions.append(Prediction(name, warnings=warnings))
        batch = torch.empty(0, 3, size, size, device=device)
        if usable:
            batch = normalized_batch(usable, info.mean, info.std, device)
        yield batch, predictions


def with_candidates(prediction: Prediction, row: list[float], classes: Sequence[str], top: int | None) -> Prediction:
    """The prediction with the classes of the largest probabilities of `row` [C]."""
    best = sorted(range(len(row)), key=lambda index: -row[index])[:top]
    return replace(prediction, classes=[classes[index] for index in best], probabilities=[row[index] for index in best])
