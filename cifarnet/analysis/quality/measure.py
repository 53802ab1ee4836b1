"""A trained model and a split -> scores of its images, error against discard, degraded copies, and the sentence about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.embedding import choose_balanced
from cifarnet.analysis.open_classes import open_classes
from cifarnet.analysis.quality.degraded import check_degradations, measure_degraded
from cifarnet.analysis.quality.pairs import check_labels
from cifarnet.analysis.quality.scores import SCORES, check_scores, quality_scores
from cifarnet.analysis.quality.utility import error_versus_discard
from cifarnet.analysis.quality.verdict import judge
from cifarnet.analysis.unit_embeddings import features_of, normalised, without_direction
from cifarnet.core.errors import Failed
from cifarnet.data.images.normalize import normalize
from cifarnet.engine.metrics import check_finite
from cifarnet.engine.open_split import Opened
from cifarnet.losses.base import Head


@dataclass(frozen=True)
class Scored:
    """Images through a model: unit embeddings [N, D], and each of SCORES [N]."""

    embeddings: np.ndarray
    scores: dict[str, np.ndarray]


def measure_quality(
    opened: Opened,
    scores: Sequence[str] = tuple(SCORES),
    degradations: Sequence[str] = ("blur", "jpeg", "noise", "resize"),
    *,
    classes: str | None = None,
    far: float = 1e-3,
    samples: int = 1000,
    seed: int = 17,
) -> dict[str, Any]:
    """Everything that `cifarnet quality --json` prints but the names of model and data; plain JSON values.

    Args:
        scores, degradations: by their names; the norm is always measured, since the sentence is about it.
        classes: seen, unseen or all (see `open_classes`).
        far: the false match rate, over all pairs of these images, that fixes the threshold.
        samples: images that are degraded, as many of each class (0: all).
        seed: of the choice of images, the noise, and the random orders.

    Raises:
        Refused: an unknown name, pairs missing or too few for `far`. Failed: outputs that are not finite.
    """
    scores, degradations = check_scores(scores), check_degradations(degradations)
    parts = open_classes(opened, classes)
    labels, names = labels_of(parts)
    check_labels(labels.numpy(), far)
    shown = list(dict.fromkeys(["norm", *scores]))
    found = score_parts(parts)
    utility = error_versus_discard(
        found.embeddings, labels.numpy(), {one: found.scores[one] for one in shown}, far, seed
    )
    chosen = choose_balanced(labels, samples or len(labels), seed) if degradations else torch.arange(0)
    worse = measure_degraded(pictures(parts, chosen), degradations, lambda chunk: score_images(opened, chunk), seed)
    kind = "seen and unseen" if len(parts) > 1 else "seen" if parts[0] is opened else "unseen"
    document: dict[str, Any] = {"measured_on": f"{opened.dataset} {opened.split}, {len(names):,} {kind} classes"}
    document |= {"images": len(labels), "classes": names, "degraded_images": len(chosen)}
    document |= utility.to_dict()
    document["degradations"] = {one.name: one.to_dict() for one in worse}
    for name, row in document["scores"].items():
        row["meaning"] = SCORES[name]
    document |= judge(document)
    for part in (document, document["curve"], *document["degradations"].values()):
        part["scores"] = {name: part["scores"][name] for name in scores}
    return document


def labels_of(parts: Sequence[Opened]) -> tuple[Tensor, list[str]]:
    """The labels of all images, int64 [N] on the CPU, and the names of the classes that they count."""
    names: list[str] = []
    labels = []
    for part in parts:
        labels.append(part.loader.split.labels.cpu() + len(names))
        names += part.info.classes
    return torch.cat(labels), names


def pictures(parts: Sequence[Opened], chosen: Tensor) -> Tensor:
    """The images at `chosen` (ascending, int64 [n]), counted through all parts: uint8 [n, 3, H, W] on the CPU."""
    found, before = [], 0
    for part in parts:
        size = len(part.loader.split)
        here = chosen[(chosen >= before) & (chosen < before + size)] - before
        if len(here):
            found += [images.cpu() for images in part.loader.split.batches([here])]
        before += size
    return torch.cat(found) if found else torch.empty(0, dtype=torch.uint8)


def score_parts(parts: Sequence[Opened]) -> Scored:
    """Passes the images of all parts through the model, batch by batch; no N x C numbers are held.

    Raises:
        Failed: features that are not finite or all zero (the images are named), or logits that are not finite.
    """
    units, scores, lost = [], [], []
    for part in parts:
        place = 0
        batches = part.loader.epoch(0)
        for features, labels in features_of(part.model, batches, part.device, part.precision, flip=False):
            unit, usable = normalised(features.cpu().numpy())
            for row in np.flatnonzero(~usable).tolist():
                lost.append(f"image {place + row} ({part.info.classes[int(labels[row])]})")
            units.append(unit)
            if not lost:
                scores.append(score_features(part.model.head, features))
            place += len(unit)
    if lost:
        raise Failed("embeddings", without_direction(lost), "take an earlier checkpoint, or look at these images")
    return Scored(np.concatenate(units), {name: np.concatenate([one[name] for one in scores]) for name in SCORES})


def score_images(opened: Opened, images: Tensor) -> dict[str, np.ndarray]:
    """Each of SCORES of uint8 images [n, 3, H, W], [n]. Raises Diverged for outputs that are not finite."""
    parts = []
    for chunk in images.split(opened.loader.batch_size):
        batch = normalize(chunk.to(opened.device), opened.info.mean, opened.info.std)
        batches = [(batch, None)]
        for features, _ in features_of(opened.model, batches, opened.device, opened.precision, flip=False):
            check_finite(features, "features")
            parts.append(score_features(opened.model.head, features))
    return {name: np.concatenate([part[name] for part in parts]) for name in SCORES}


@torch.inference_mode()
def score_features(head: Head, features: Tensor) -> dict[str, np.ndarray]:
    """Each of SCORES of features [n, E], finite. Raises Diverged where the logits are not finite."""
    logits = head.logits(features).float()
    check_finite(logits)
    return quality_scores(features.cpu().numpy(), class_cosines(head, features).cpu().numpy(), logits.cpu().numpy())


def class_cosines(head: Head, features: Tensor) -> Tensor:
    """Cosines [n, C], float64, of features [n, E] to the weights of each class; of several a class the largest.

    Of a linear head these are to the rows of W, without their lengths and the bias: not what it decides by.
    """
    weight = F.normalize(head.weight.detach().cpu().double(), dim=-1)
    unit = F.normalize(features.cpu().double(), dim=1)
    if weight.dim() == 3:
        return torch.einsum("ne,cke->nck", unit, weight).amax(dim=2)
    return unit @ weight.T
