"""Does an exported file compute what the model does? Both on the same pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.export.formats import Runner
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.metrics import check_finite
from cifarnet.engine.pixels import normalized_batch
from cifarnet.models.calibration import probabilities
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

BATCH = 100
# In fp32: the largest difference, in units of the scale; the least cosine of two embeddings.
LOGITS, COSINE = (1e-4, 1 - 1e-6)
KEPT = 0.99  # fp16, int8: of the accuracy, as MLPerf Inference asks for
AGREEMENT = {"fp16": 0.99, "int8": 0.95}  # the least part of the pictures that get the same class
SHOWN = 10  # pictures whose class changed that are listed


@dataclass(frozen=True)
class Outputs:
    """Of N pictures, as the model itself has them: probabilities and logits [N, C], embedding [N, E]; float64."""

    probabilities: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True)
class Parity:
    """The result of the check. Differences are the largest over all pictures, `cosine` is the least.

    logit_allowed: 1e-4 max(1, s). changed: pictures that the file takes for another class than the model, each with both classes
    and the gap between their logits in the model; `near_ties`: how many have a gap that rounding may turn over.
    accuracy: of the model and of the file; None where the pictures have no label.
    problems: why the file is not good, in words; empty where it is.
    """

    images: int
    logit_difference: float
    logit_allowed: float
    probability_difference: float
    cosine: float
    changed: list[dict[str, Any]]
    changes: int
    near_ties: int
    agreement: float
    accuracy: tuple[float, float] | None
    problems: list[str] = field(default_factory=list)


@torch.inference_mode()
def outputs_of(model: Classifier, info: ModelInfo, images: np.ndarray) -> Outputs:
    """The outputs of `cifarnet predict` and `verify` for uint8 pictures [N, H, W, 3]. Raises Diverged: they are not finite."""
    cpu = torch.device("cpu")

    def batches() -> Iterator[tuple[Tensor, None]]:
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
            yield normalized_batch(list(pixels), info.mean, info.std, cpu), None

    features = torch.cat([found for found, _ in embed_batches(model, batches(), cpu, "fp32")])
    logits = model.head.logits(features)
    check_finite(logits)
    unit = F.normalize(features.double(), dim=1)
    return Outputs(probabilities(logits, info.calibration).numpy(), logits.double().numpy(), unit.numpy())


def scale_of(model: Classifier, logits: np.ndarray) -> float:
    """s of the head; where a loss has no s of its own (ce, sphereface, adacos) the largest logit: rounding is relative to it."""
    constants = model.head.options.constants if model.head.options else {}
    return float(constants.get("scale", np.abs(logits).max()))


def compare(
    model: Outputs,
    run: Runner,
    images: np.ndarray,
    labels: Tensor | None,
    classes: Sequence[str],
    scale: float,
    precision: str,
) -> Parity:
    """The check of a file's outputs against the model's.

    Args:
        model: of these images.
        scale: s, see `scale_of`.
        precision: fp32, fp16 or int8.
    """
    parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    found = Outputs(*(np.concatenate(output).astype(np.float64) for output in zip(*parts, strict=True)))
    before, after = model.logits.argmax(axis=1), found.logits.argmax(axis=1)
    allowed = LOGITS * max(1.0, scale)
    places = np.flatnonzero(before != after)
    gaps = model.logits[places, before[places]] - model.logits[places, after[places]]
    right = None if labels is None else [float((taken == labels.numpy()).mean()) for taken in (before, after)]
    result = Parity(
        images=len(images),
        logit_difference=float(np.abs(model.logits - found.logits).max()),
        logit_allowed=allowed,
        probability_difference=float(np.abs(model.probabilities - found.probabilities).max()),
        cosine=least_cosine(model.embedding, found.embedding),
        changed=[
            {"image": int(place), "model": classes[before[place]], "file": classes[after[place]], "gap": float(gap)}
            for place, gap in list(zip(places, gaps, strict=True))[:SHOWN]
        ],
        changes=len(places),
        near_ties=int((gaps <= 2 * allowed).sum()),
        agreement=1 - len(places) / len(images),
        accuracy=(right[0], right[1]) if right else None,
    )
    result.problems.extend(problems_of(result, precision))
    return result


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The least cosine of two rows [N, E]; of two that are both 0, without direction, it is 1."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    both_none = (np.abs(first).max(axis=1) == 0) & (np.abs(second).max(axis=1) == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (first * second).sum(axis=1) / lengths
    return float(np.where(both_none, 1.0, cosines).min())


def problems_of(found: Parity, precision: str) -> list[str]:
    """The reasons why a file is not good; none where it is. Written so that a number that is not finite is a problem too."""
    problems = []
    if precision != "fp32":
        least = AGREEMENT[precision]
        if not found.agreement >= least:
            problems.append(
                f"it agrees with the model on {percent(found.agreement, 1)} of the images, and {100 * least:g}% are asked for"
            )
        if found.accuracy and not found.accuracy[1] >= KEPT * found.accuracy[0]:
            was, now = found.accuracy
            problems.append(
                f"its accuracy is {percent(now)} where the model's is {percent(was)}, and {100 * KEPT:g}% of that are asked for"
            )
        return problems
    if not found.logit_difference <= found.logit_allowed:
        problems.append(f"its logits differ by {found.logit_difference:.2g}, and {found.logit_allowed:.2g} is allowed")
    if wrong := found.changes - found.near_ties:
        problems.append(f"it takes {plural(wrong, 'image')} for another class")
    if not found.cosine >= COSINE:
        problems.append(f"the cosine of two embeddings is {found.cosine:.8f}, and {COSINE:.6f} is asked for")
    return problems
