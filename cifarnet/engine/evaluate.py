"""The loop over batches that everything but training uses, and the scores of a trained model on a split."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cifarnet.core.config import SYNTHETIC
from cifarnet.core.errors import Refused
from cifarnet.core.torch_settings import autocast, own_modes
from cifarnet.data.dataset import Dataset
from cifarnet.data.shape_options import shaping_options
from cifarnet.engine.calibrate import calibration_document
from cifarnet.engine.metrics import coarse_score, score
from cifarnet.engine.open_split import Opened, open_split
from cifarnet.engine.views import VIEW_WEIGHTS, views
from cifarnet.models.checkpoint import load_model
from cifarnet.models.classifier import Classifier
from cifarnet.storage.find_checkpoint import need_checkpoint

MANY_CLASSES = 1000  # of more, logits [N, C] and a confusion matrix [C, C] would fill memory and summary.json

T = TypeVar("T")


@torch.inference_mode()
def embed_batches(
    model: Classifier, batches: Iterable[tuple[Tensor, T]], device: torch.device, precision: str
) -> Iterator[tuple[Tensor, T]]:
    """The features [B, E] of each batch, with what came beside its images; nothing waits for the device.

    Args:
        batches: (images [B, 3, H, W], normalised, anything), on `device`; the model is put in evaluation mode.
    """
    model.eval()
    for images, beside in batches:
        with autocast(device, precision):
            features = model.features(images)
        yield features, beside


@torch.inference_mode()
def collect_logits(
    model: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str,
    tta: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits [N, C] fp32 and labels [N] of all batches, left on `device`.

    Args:
        batches: (images [B, 3, H, W] normalised, labels [B]), on `device`.
        tta: average the logits of six views of each image (engine/views.py).
    """
    inputs, weights = batches, [1.0]
    if tta:
        inputs, weights = ((view, labels) for images, labels in batches for view in views(images)), list(VIEW_WEIGHTS)
    outputs = embed_batches(model, inputs, device, precision)
    logits, labels = [], []
    for features, targets in outputs:
        output = weights[0] * model.head.logits(features).float()
        for weight, (other, _) in zip(weights[1:], outputs, strict=False):
            output += weight * model.head.logits(other).float()
        logits.append(output)
        labels.append(targets)
    return torch.cat(logits), torch.cat(labels)


@torch.inference_mode()
def measure_batches(
    model: Classifier, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """Cross-entropy [N] of all samples, and whether each was taken for its own class [N]; no logits are kept.

    With a head whose classes lie on several ranks each rank gives as many batches, of the same sizes, as the others.
    """
    losses, correct = [], []
    for features, labels in embed_batches(model, batches, device, precision):
        loss, hit = model.head.measure(features, labels)
        losses.append(loss)
        correct.append(hit)
    return torch.cat(losses), torch.cat(correct)


def only_coarse(classes: int) -> bool:
    """Are only loss and accuracy measured? Of so many classes, whatever the data and the head."""
    return classes > MANY_CLASSES


def open_for_evaluation(
    run: str | Path | None = None, *, tta: bool = False, details: bool = False, **options: Any
) -> Opened:
    """A trained model with the split that it is measured on.

    Args:
        run: a run folder or a checkpoint; None: the latest run.
        tta: the logits of six views of each image will be averaged.
        details: logits are needed, so that a model of which only loss and accuracy are measured is refused.
        options: as `open_split`.

    Raises:
        Refused: no such run, more is asked for than is measured; else as `open_split`.
    """
    path = need_checkpoint(run)
    model, info = load_model(path, of_features=True)
    if tta and info.config.dataset == SYNTHETIC:
        raise Refused("tta", f"{SYNTHETIC} has no images to move", "leave it out")
    if only_coarse(len(info.classes)) and (details or tta):
        fix = "leave `csv`, `predictions`, `figure` and `tta` out"
        raise Refused("eval", f"of {len(info.classes):,} classes only loss and accuracy are measured", fix)
    return open_split(path, model, info, **options)


@dataclass(frozen=True)
class Evaluation:
    """A measurement: `document`, plain JSON values (see `Scores`), and the outputs behind it.

    logits [N, C] and labels [N], on the device; None where only loss and accuracy are measured.
    """

    document: dict[str, Any]
    logits: Tensor | None = None
    labels: Tensor | None = None


def measure(opened: Opened, tta: bool = False) -> Evaluation:
    """Measures an opened model; `tta`: the logits of six views of each image are averaged."""
    model, info, device, precision = opened.model, opened.info, opened.device, opened.precision
    document: dict[str, Any] = {"checkpoint": str(opened.path), "dataset": opened.dataset, "split": opened.split}
    document |= {"epoch": info.epoch, "seed": info.config.seed, "as_in_training": opened.as_in_training}
    data = opened.identity
    document |= {"data_digest": data and data.digest, "source_digest": data and data.source}
    document |= {"shaping": shaping_options(info.config), "precision": precision, "tta": tta}
    if only_coarse(len(info.classes)):
        scores = coarse_score(*measure_batches(model, opened.loader.epoch(0), device, precision))
        return Evaluation(document | scores.to_dict())
    logits, labels = collect_logits(model, opened.loader.epoch(0), device, precision, tta)
    document |= score(logits, labels, info.classes).to_dict()
    document["calibration"] = calibration_document(logits, labels, info.calibration)
    return Evaluation(document, logits, labels)


@own_modes()
def evaluate(
    run: str | Path | None = None,
    *,
    dataset: str | Dataset | None = None,
    data_dir: str | Path | None = None,
    split: str = "test",
    tta: bool = False,
    batch_size: int = 500,
    device: str = "auto",
    precision: str | None = None,
) -> dict[str, Any]:
    """The metrics of a trained model, as `cifarnet eval --json` prints them.

    Args:
        run: a run folder or a checkpoint; None: the latest run.
        tta: average the logits of six views of each image.
        dataset, data_dir, split, batch_size, device, precision: as `open_split`.

    Raises:
        Refused: no such run, a broken checkpoint, data that is missing or is not the model's.
    """
    where: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir, "split": split}
    how: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision}
    return measure(open_for_evaluation(run, tta=tta, **where, **how), tta).document
