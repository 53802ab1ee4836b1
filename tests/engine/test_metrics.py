"""Every score against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.calibration import calibration_curve

from cifarnet.engine.evaluate import collect_logits
from cifarnet.engine.metrics import score
from cifarnet.losses import LinearHead
from cifarnet.models.classifier import Classifier


def draw(images=500, classes=7, seed=0, missing=None):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=g)
    if missing is not None:
        labels[labels == missing] = 0
    logits = torch.randn(images, classes, generator=g) + 2 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels, tuple(f"c{i}" for i in range(classes))


@pytest.mark.parametrize("missing", [None, 3])
def test_scores_are_scikit_learns(missing):
    logits, labels, classes = draw(missing=missing)
    ours = score(logits, labels, classes)
    y, p = labels.numpy(), logits.double().softmax(1).numpy()
    predicted = p.argmax(1)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(y, predicted))
    assert ours.loss == pytest.approx(metrics.log_loss(y, p, labels=range(7)), rel=1e-5)
    assert ours.top5 == pytest.approx(metrics.top_k_accuracy_score(y, p, k=5, labels=range(7)))
    for average in ("macro", "micro"):
        expected = metrics.precision_recall_fscore_support(y, predicted, average=average, zero_division=0)[:3]
        found = [getattr(ours, f"{average}_{name}") for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected)
    each = metrics.precision_recall_fscore_support(y, predicted, labels=range(7), zero_division=0)
    assert [c.precision for c in ours.classes] == pytest.approx(each[0])
    assert [c.recall for c in ours.classes] == pytest.approx(each[1])
    assert [c.f1 for c in ours.classes] == pytest.approx(each[2])
    assert [c.images for c in ours.classes] == each[3].tolist()
    np.testing.assert_array_equal(ours.confusion, metrics.confusion_matrix(y, predicted, labels=range(7)))


def test_ranking_scores_are_scikit_learns():
    logits, labels, classes = draw()
    ours = score(logits, labels, classes)
    y, p = labels.numpy(), logits.double().softmax(1).numpy()
    assert ours.auroc == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert ours.auprc == pytest.approx(metrics.average_precision_score(np.eye(7)[y], p, average="macro"))


def test_ece_is_that_of_the_calibration_curve():
    logits, labels, classes = draw(images=3000)
    p = logits.double().softmax(1)
    confidence, predicted = p.max(1)
    correct = (predicted == labels).numpy()
    fraction, mean = calibration_curve(correct, confidence.numpy(), n_bins=15)
    counts = np.histogram(confidence.numpy(), np.linspace(0, 1, 16))[0]
    expected = (np.abs(fraction - mean) * counts[counts > 0]).sum() / len(labels)
    assert score(logits, labels, classes).ece == pytest.approx(expected, rel=1e-9)


def test_what_is_not_defined_is_none():
    logits, labels, _ = draw(classes=4)
    assert score(logits, labels, tuple("abcd")).top5 is None
    only = torch.zeros(5, dtype=torch.long)
    assert score(logits[:5], only, tuple("abcd")).auroc is None


def test_flip_averages_the_mirror_image():
    model = Classifier(torch.nn.Flatten(), torch.nn.Identity(), LinearHead(3 * 4 * 4, 5))
    images, labels = torch.randn(6, 3, 4, 4), torch.zeros(6, dtype=torch.long)
    found, _ = collect_logits(model, [(images, labels)], torch.device("cpu"), "fp32", flip=True)
    expected = (model(images) + model(images.flip(-1))) / 2
    torch.testing.assert_close(found, expected.detach())
