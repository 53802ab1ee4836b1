"""A trained model and a split -> scores of its images, error against discard, degraded copies, and the sentence about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.embedding import choose_balanced
from cifarnet.analysis.quality.degraded import check_degradations, measure_degraded
from cifarnet.analysis.quality.pairs import check_pairs
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
    """A split through a model: unit embeddings [N, D], labels [N], and each of SCORES [N]."""

    embeddings: np.ndarray
    labels: np.ndarray
    scores: dict[str, np.ndarray]


def measure_quality(
    opened: Opened,
    scores: Sequence[str] = tuple(SCORES),
    degradations: Sequence[str] = ("blur", "jpeg", "noise", "resize"),
    *,
    far: float = 1e-3,
    samples: int = 1000,
    seed: int = 17,
) -> dict[str, Any]:
    """Everything that `cifarnet quality --json` prints but the names of model and data; plain JSON values.

    Args:
        scores, degradations: by their names; the norm is always measured, since the sentence is about it.
        far: the false match rate, over all pairs of the split, that fixes the threshold.
        samples: images that are degraded, as many of each class (0: all of the split).
        seed: of the choice of images, the noise, and the random orders.

    Raises:
        Refused: an unknown name, pairs missing or too few for `far`. Failed: outputs that are not finite.
    """
    scores, degradations = check_scores(scores), check_degradations(degradations)
    check_pairs(opened.loader.split.labels.cpu().numpy(), far)
    found = score_split(opened)
    shown = {name: found.scores[name] for name in dict.fromkeys(["norm", *scores])}
    utility = error_versus_discard(found.embeddings, found.labels, shown, far, seed)
    count = len(found.labels)
    chosen = (
        choose_balanced(torch.from_numpy(found.labels), samples or count, seed) if degradations else torch.arange(0)
    )
    images = next(iter(opened.loader.split.batches([chosen]))).cpu() if len(chosen) else torch.empty(0)
    degraded = measure_degraded(images, degradations, lambda chunk: score_images(opened, chunk), seed)
    document: dict[str, Any] = {"images": count, "degraded_images": len(chosen), **utility.to_dict()}
    document["degradations"] = {one.name: only(one.to_dict(), list(shown)) for one in degraded}
    for name, row in document["scores"].items():
        row["meaning"] = SCORES[name]
    document |= judge(document)
    if "norm" not in scores:
        for part in (document, document["curve"], *document["degradations"].values()):
            part["scores"].pop("norm")
    return document


def only(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A degradation's document with some of its scores."""
    return document | {"scores": {name: document["scores"][name] for name in names}}


def score_split(opened: Opened) -> Scored:
    """Passes an opened split through its model, batch by batch; no N x C numbers are held.

    Raises:
        Failed: features that are not finite or all zero (the images are named), or logits that are not finite.
    """
    units, sound, labels, scores = [], [], [], []
    batches = opened.loader.epoch(0)
    for features, targets in features_of(opened.model, batches, opened.device, opened.precision, flip=False):
        unit, usable = normalised(features.cpu().numpy())
        units.append(unit)
        sound.append(usable)
        labels.append(targets.cpu().numpy())
        if usable.all():
            scores.append(score_features(opened.model.head, features))
    numbers, usable = np.concatenate(labels), np.concatenate(sound)
    if not usable.all():
        names = [f"image {place} ({opened.info.classes[numbers[place]]})" for place in np.flatnonzero(~usable)]
        raise Failed("embeddings", without_direction(names), "take an earlier checkpoint, or look at these images")
    return Scored(
        np.concatenate(units), numbers, {name: np.concatenate([one[name] for one in scores]) for name in SCORES}
    )


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
