"""Every score against scikit-learn."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.exceptions import UndefinedMetricWarning
from torchvision.transforms import functional as tvf

from cifarnet.analysis.card.facts import facts_of
from cifarnet.cli.inputs import classify_images
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.engine.evaluate import collect_logits, evaluate, open_for_evaluation
from cifarnet.engine.fit import fit
from cifarnet.engine.held_out import open_held_out
from cifarnet.engine.metrics import coarse_score, places, score
from cifarnet.losses import LinearHead
from cifarnet.models.checkpoint import read_info
from cifarnet.models.classifier import Classifier
from cifarnet.storage.find_checkpoint import find_checkpoint
from cifarnet.storage.runs import list_runs


def draw(images=500, classes=7, seed=0, missing=None):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=g)
    if missing is not None:
        labels[labels == missing] = 0
    logits = torch.randn(images, classes, generator=g) + 2 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels, tuple(f"c{i}" for i in range(classes))


def never_named(logits, index):
    """The logits with one class so low that no image is taken for it."""
    logits[:, index] = -15
    return logits


@pytest.mark.parametrize("missing", [None, 3])
@pytest.mark.parametrize("unnamed", [None, 2, 3])
def test_scores_are_scikit_learns(missing, unnamed):
    """Also with a class that the split lacks, one that no image is taken for, and one that is both."""
    logits, labels, classes = draw(missing=missing)
    logits = logits if unnamed is None else never_named(logits, unnamed)
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
    each = metrics.precision_recall_fscore_support(y, predicted, labels=range(7), zero_division=np.nan)
    for values, name in zip(each[:3], ("precision", "recall", "f1"), strict=True):
        found = [getattr(c, name) for c in ours.classes]
        assert [np.nan if value is None else value for value in found] == pytest.approx(values, nan_ok=True)
    assert [c.images for c in ours.classes] == each[3].tolist()
    np.testing.assert_array_equal(ours.confusion, metrics.confusion_matrix(y, predicted, labels=range(7)))


def test_ranking_scores_are_scikit_learns():
    logits, labels, classes = draw()
    ours = score(logits, labels, classes)
    y, p = labels.numpy(), logits.double().softmax(1).numpy()
    assert ours.auroc == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert ours.auprc == pytest.approx(metrics.average_precision_score(np.eye(7)[y], p, average="macro"))


@pytest.mark.parametrize("scale", [1, 12.2, 64, 1e4])
def test_sure_images_are_ranked_too(scale):
    """A float64 probability is 1 from a distance of 37 on; the logits still say which image is the surer."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(7, (900,), generator=generator)
    cosines = (0.1 * torch.randn(900, 7, generator=generator)).float()
    cosines[torch.arange(900), labels] += 0.9 * torch.rand(900, generator=generator)
    logits = scale * cosines
    ours = score(logits, labels, tuple("abcdefg"))
    x, y = logits.double().numpy(), labels.numpy()
    odds = np.stack([x[:, k] - logsumexp(np.delete(x, k, axis=1), axis=1) for k in range(7)], axis=1)
    assert ours.auroc == pytest.approx(np.mean([metrics.roc_auc_score(y == k, odds[:, k]) for k in range(7)]))
    expected = np.mean([metrics.average_precision_score(y == k, odds[:, k]) for k in range(7)])
    assert ours.auprc == pytest.approx(expected)
    saturated = logits.double().softmax(1)
    if scale <= 12.2:
        assert ours.auprc == pytest.approx(metrics.average_precision_score(np.eye(7)[y], saturated, average="macro"))
    else:
        assert (saturated == 1).sum() > 10


def test_ece_is_that_of_the_calibration_curve():
    logits, labels, classes = draw(images=3000)
    p = logits.double().softmax(1)
    confidence, predicted = p.max(1)
    correct = (predicted == labels).numpy()
    fraction, mean = calibration_curve(correct, confidence.numpy(), n_bins=15)
    counts = np.histogram(confidence.numpy(), np.linspace(0, 1, 16))[0]
    expected = (np.abs(fraction - mean) * counts[counts > 0]).sum() / len(labels)
    assert score(logits, labels, classes).ece == pytest.approx(expected, rel=1e-9)


def test_ranking_scores_are_those_of_the_classes_that_are_there():
    logits, labels, classes = draw(missing=3)
    ours = score(logits, labels, classes)
    y, p = labels.numpy(), logits.double().softmax(1).numpy()
    there = [index for index in range(7) if index != 3]
    assert ours.auroc == pytest.approx(np.mean([metrics.roc_auc_score(y == i, p[:, i]) for i in there]))
    assert ours.auprc == pytest.approx(np.mean([metrics.average_precision_score(y == i, p[:, i]) for i in there]))


def test_equal_logits_have_the_places_that_argmax_gives_them():
    """What is right is among the first five: of a model that answers the same for all classes too."""
    labels = torch.arange(7)
    found = score(torch.zeros(7, 7), labels, tuple("abcdefg"))
    assert found.accuracy == 1 / 7 and found.top5 == 5 / 7
    logits = torch.tensor([[2.0, 1, 1, 3, 1, 1, 0]]).repeat(7, 1)
    assert places(logits, labels).tolist() == [1, 2, 3, 0, 4, 5, 6]


def test_what_is_not_defined_is_none():
    """Where scikit-learn says that it is not (NaN, or a warning), and nowhere else."""
    logits, labels, _ = draw(classes=4)
    assert score(logits, labels, tuple("abcd")).top5 is None
    only = torch.zeros(5, dtype=torch.long)
    with pytest.warns(UndefinedMetricWarning, match="ROC AUC score is not defined"):
        metrics.roc_auc_score(only.numpy() == 0, logits[:5, 0].numpy())
    found = score(never_named(logits[:5], 2), only, tuple("abcd"))
    assert (found.auroc, found.auprc) == (None, None)
    assert (found.classes[2].precision, found.classes[2].recall, found.classes[2].f1) == (None, None, None)
    assert found.classes[0].recall is not None and found.ece is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_of_outputs_that_are_no_numbers_no_score_is_made(value):
    logits, labels, classes = draw()
    logits[[3, 9], 2] = value
    with pytest.raises(Failed, match=r"^diverged: the logits of 2 of 500 samples are not finite; .*`lr`"):
        score(logits, labels, classes)
    losses = torch.rand(4)
    losses[1] = value
    with pytest.raises(Failed, match=r"^diverged: the losses of 1 of 4 samples"):
        coarse_score(losses, torch.ones(4))


def test_the_loss_of_the_largest_logits():
    """They are finite, and so is every score of them."""
    logits = torch.tensor([[3e38, -3e38], [-3e38, 3e38]])
    found = score(logits, torch.tensor([0, 0]), ("a", "b"))
    assert found.loss == pytest.approx(3e38) and found.accuracy == 0.5 and found.ece == pytest.approx(0.5)


def test_six_views_are_averaged():
    """Against torchvision's padding, crops and flips."""
    model = Classifier(torch.nn.Flatten(), torch.nn.Identity(), LinearHead(3 * 4 * 5, 5))
    images, labels = torch.randn(6, 3, 4, 5), torch.zeros(6, dtype=torch.long)
    found, same = collect_logits(
        model, [(images, labels), (images[:2], labels[:2])], torch.device("cpu"), "fp32", tta=True
    )
    padded = tvf.pad(images, [1], padding_mode="reflect")
    moved = [tvf.crop(padded, 0, 0, 4, 5), tvf.crop(padded, 2, 2, 4, 5)]
    logits = [(model(image) + model(tvf.hflip(image))) / 2 for image in (images, *moved)]
    expected = (logits[0] + (logits[1] + logits[2]) / 2) / 2
    torch.testing.assert_close(found, torch.cat([expected, expected[:2]]).detach())
    assert len(same) == 8


@pytest.mark.parametrize("loss", ["ce", "arcface", "subcenter-arcface"])
def test_of_many_classes_loss_and_accuracy_alone_are_measured(tmp_path, monkeypatch, loss):
    """Whatever the head: of 10,000 people, the logits of as many images would take gigabytes, the matrix a summary of them."""
    # fp32: bf16 features of other batches are rounded otherwise, on some processors by more than is compared here
    short = {"epochs": 1, "subset": 400, "val_fraction": 0.2, "precision": "fp32"}
    config = TrainConfig(dataset="digits", arch="baseline", loss=loss, **short)
    fit(config, tmp_path / "few")
    few = evaluate(tmp_path / "few")
    monkeypatch.setattr("cifarnet.engine.evaluate.MANY_CLASSES", 9)
    monkeypatch.setattr("cifarnet.engine.evaluate.collect_logits", None)
    monkeypatch.setattr("cifarnet.engine.validate.collect_logits", None)
    fit(config, tmp_path / "many")
    summary = json.loads((tmp_path / "many/summary.json").read_text())
    many = evaluate(tmp_path / "many")
    for scores in (summary["test"], {name: many[name] for name in summary["test"]}):
        assert scores.keys() == {"images", "loss", "accuracy"}
        assert scores == pytest.approx({name: few[name] for name in scores}, abs=1e-5)
    assert "confusion" not in many and summary["calibration"] is None and "so many classes" in summary["not_calibrated"]
    for refused in (partial(open_for_evaluation, details=True), partial(open_held_out, dataset=None)):
        with pytest.raises(Refused, match="of 10 classes only loss and accuracy are measured"):
            refused(find_checkpoint(tmp_path / "many"))
    with pytest.warns(UserWarning, match="`tta` has no effect: of 10 classes"):
        fit(replace(config, tta=True), tmp_path / "views")
    [record] = map(json.loads, (tmp_path / "views/metrics.jsonl").read_text().splitlines())
    assert record["views"] == 1 and not json.loads((tmp_path / "views/summary.json").read_text())["tta"]
    (tmp_path / "views/summary.json").unlink()  # as it is until the run has ended
    assert not next(one for one in list_runs(tmp_path)[0] if one.name == "views").tta
    path = find_checkpoint(tmp_path / "views")
    assert not facts_of(path, read_info(path)).views
    seen = classify_images(open_for_evaluation(tmp_path / "many"), tta=False)
    assert float(seen.double().mean()) == pytest.approx(many["accuracy"])
