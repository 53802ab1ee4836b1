"""Logits and labels -> metrics: accuracy, precision, recall, F1, AUROC, AUPRC, calibration, confusion."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.callers_random import callers_random
from cifarnet.core.errors import Diverged, plural

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; `images` of the split belong to it. None where it is not defined: 0 of 0.

    precision of a class that no image was taken for, recall of one that the split does not hold, f1 where both.
    """

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of a model on a split, all in [0, 1] but `loss` (nats); None where it is not defined.

    All are of the logits as the model gives them, without a temperature: one-vs-rest AUROC and AUPRC depend on it too.
    macro is the mean over the classes that the split holds or the model names, where 0 of 0 counts as 0, as in
    scikit-learn; micro counts every image alike; auroc and auprc are one-vs-rest and macro over the classes that the split
    holds, None where that is one class only; ece has 15 equal bins of confidence; confusion[i][j] counts images of class i
    taken for class j.
    """

    images: int
    loss: float
    accuracy: float
    top5: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    auroc: float | None
    auprc: float | None
    ece: float
    classes: tuple[ClassScores, ...]
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CoarseScores:
    """Scores over many classes, where N x C logits and a C x C confusion matrix are out of the question.

    loss is the cross-entropy over the logits of inference, in nats; accuracy in [0, 1].
    """

    images: int
    loss: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def check_finite(outputs: Tensor, name: str = "logits") -> None:
    """Lets a model's outputs [N, ...] pass whose numbers are all finite: of others no score, class or figure is made.

    Raises:
        Diverged: finite weights, but so large that these outputs overflow (or a running statistic that is not a number).
    """
    finite = outputs.detach().isfinite()
    broken = int((~finite.flatten(1).all(dim=1) if finite.dim() > 1 else ~finite).sum())
    if broken:
        why = f"the {name} of {broken:,} of {plural(len(outputs), 'sample')} are not finite"
        raise Diverged("diverged", why, "train again with a smaller `lr`, or take an earlier checkpoint")


def coarse_score(losses: Tensor, correct: Tensor) -> CoarseScores:
    """The scores of the losses [N] and the correct answers [N] of a split. Raises Diverged as `check_finite`."""
    check_finite(losses, "losses")
    return CoarseScores(len(losses), float(losses.double().mean()), float(correct.double().mean()))


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Counts [C, C], rows the true class, columns the predicted one."""
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """|accuracy - confidence| averaged over equal bins of confidence, weighted by their images (Guo et al., 2017, eq. 3).

    Bins are (k/bins, (k+1)/bins], as in that paper.
    """
    confidence, predicted = probabilities.double().max(dim=1)
    correct = (predicted == labels).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    empty = torch.zeros(bins, dtype=torch.float64)
    gap = empty.scatter_add(0, index, correct) - empty.scatter_add(0, index, confidence)
    return float(gap.abs().sum() / len(labels))


def places(logits: Tensor, labels: Tensor) -> Tensor:
    """The place of each label among the classes by logit, from 0, int64 [N]; of equal ones the first class leads, as in argmax."""
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(dim=1)


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """All scores of logits [N, C] against labels [N]. Raises Diverged as `check_finite`."""
    check_finite(logits)
    logits, labels = logits.detach().float().cpu(), labels.cpu()
    count = len(classes)
    probabilities = logits.double().softmax(dim=1)
    confusion = confusion_matrix(labels, logits.argmax(dim=1), count)
    correct = confusion.diagonal().double()
    support, named = confusion.sum(dim=1).double(), confusion.sum(dim=0).double()
    precision = correct / named.clamp_min(1)
    recall = correct / support.clamp_min(1)
    f1 = 2 * correct / (support + named).clamp_min(1)
    seen = (support + named) > 0  # as scikit-learn: a class that is neither there nor named does not count
    accuracy = float(correct.sum() / len(labels))
    top5 = None
    if count > 5:
        top5 = float((places(logits, labels) < 5).double().mean())
    auroc, auprc = ranking_scores(log_odds(logits.double(), probabilities).numpy(), labels.numpy())
    return Scores(
        images=len(labels),
        loss=float(F.cross_entropy(logits.double(), labels)),  # of large logits, float32 would overflow
        accuracy=accuracy,
        top5=top5,
        macro_precision=float(precision[seen].mean()),
        macro_recall=float(recall[seen].mean()),
        macro_f1=float(f1[seen].mean()),
        micro_precision=accuracy,  # with one label an image, the three micro averages are the accuracy
        micro_recall=accuracy,
        micro_f1=accuracy,
        auroc=auroc,
        auprc=auprc,
        ece=expected_calibration_error(probabilities, labels),
        classes=tuple(
            ClassScores(
                name,
                images=int(support[i]),
                precision=float(precision[i]) if named[i] else None,
                recall=float(recall[i]) if support[i] else None,
                f1=float(f1[i]) if seen[i] else None,
            )
            for i, name in enumerate(classes)
        ),
        confusion=confusion.tolist(),
    )


def log_odds(logits: Tensor, probabilities: Tensor) -> Tensor:
    """ln p / (1 - p) of each class [N, C], from logits and their probabilities p, float64 [N, C].

    It ranks images as p does, and goes on where p is 1 to all digits: beyond a distance of 37 between two logits, usual at
    s = 64, such images would tie.
    """
    best = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, best, -torch.inf).logsumexp(dim=1, keepdim=True)  # of all but the largest [N, 1]
    rest = torch.log1p(-probabilities) + logits.logsumexp(dim=1, keepdim=True)  # exact enough where p <= 1/2
    return logits - rest.scatter(1, best, others)


def ranking_scores(odds: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """One-vs-rest macro AUROC and average precision of scores [N, C] that rank the images of each class.

    Over the classes that have both positives and negatives; None, None where there is none.
    """
    # Here, since it takes most of a second to import, and `predict` measures nothing.
    with callers_random():
        from sklearn.metrics import average_precision_score, roc_auc_score

    auroc, auprc = [], []
    for index in range(odds.shape[1]):
        positive = labels == index
        if positive.any() and not positive.all():
            auroc.append(roc_auc_score(positive, odds[:, index]))
            auprc.append(average_precision_score(positive, odds[:, index]))
    return (float(np.mean(auroc)), float(np.mean(auprc))) if auroc else (None, None)
