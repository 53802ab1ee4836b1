"""AUROC and average precision of predicted labels alone, as some publish them: they follow from the confusion matrix."""

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def hard_label_scores(confusion: Matrix) -> tuple[float | None, float | None]:
    """One-vs-rest macro AUROC and average precision of a score that is 1 for the predicted class and 0 for all others.

    Such a score has one threshold. The ROC curve is two lines through (FPR, TPR), the area below it (TPR + TNR) / 2; the
    average precision is TPR times precision, and for the rest of the positives the prevalence.

    Args:
        confusion: counts [C][C], or parts of them; rows the true class. Rows of parts count alike, as in a balanced split.

    Returns:
        the means over the classes that have both positives and negatives, as `engine.metrics.ranking_scores`; None, None
        where there is no such class.
    """
    total = sum(map(sum, confusion))
    auroc, precision = [], []
    for index, row in enumerate(confusion):
        positives, hits = sum(row), row[index]
        named = sum(other[index] for other in confusion)
        negatives = total - positives
        if positives <= 0 or negatives <= 0:
            continue
        recall = hits / positives
        auroc.append((recall + 1 - (named - hits) / negatives) / 2)
        precision.append((recall * hits / named if named else 0.0) + (1 - recall) * positives / total)
    if not auroc:
        return None, None
    return sum(auroc) / len(auroc), sum(precision) / len(precision)
