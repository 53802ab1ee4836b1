"""1:1 verification against brute force, against scikit-learn, and its bootstrap against resamples that are written out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm, t
from sklearn.metrics import roc_auc_score, roc_curve

import cifarnet
from cifarnet.analysis.plots import style
from cifarnet.analysis.plots.text import shorten
from cifarnet.analysis.plots.verification import draw_det, in_key
from cifarnet.analysis.verification import bootstrap, folds, measure, pairs, rates, weights
from cifarnet.analysis.verification.rates import check_far, hardly_known
from cifarnet.core.errors import Refused


def made(generator, ties):
    """A few embeddings and labels, with two of a class and two classes at least; with `ties` of few values."""
    classes = int(generator.integers(2, 8))
    count = int(generator.integers(2 * classes, 26))
    labels = np.concatenate([np.arange(classes), [0], generator.integers(0, classes, count - classes - 1)])
    vectors = generator.integers(-2, 3, (count, 3)) + (0 if ties else 0.1) * generator.normal(size=(count, 3))
    vectors[~vectors.any(axis=1)] = 1
    return generator.permutation(labels), vectors


def scored(vectors, labels):
    """The pairs, as they are scored here, with a dense table of the scores [N, N] above its diagonal, in their order."""
    found = pairs.all_pairs(*measure.checked(vectors, labels))
    table = np.full((len(labels), len(labels)), np.nan, np.float32)
    for kind, ends in ((found.genuine, found.genuine_ends), (found.impostor, found.impostor_ends)):
        table[ends(np.arange(len(kind)))] = kind
    return found, table


def interpolated(fmr, fnmr):
    """The EER on the line through points (FMR, FNMR), by hand."""
    place = int(np.argmax(fmr >= fnmr))
    before, after = fmr[place - 1] - fnmr[place - 1], fmr[place] - fnmr[place]
    return fmr[place - 1] + (fmr[place] - fmr[place - 1]) * before / (before - after)


def test_every_threshold_equals_brute_force_and_scikit_learn():
    generator = np.random.default_rng(0)
    for number in range(500):
        labels, vectors = made(generator, ties=number % 2 == 0)
        found, table = scored(vectors, labels)
        upper = np.triu(np.ones_like(table, bool), 1)
        assert np.isnan(table[~upper]).all()
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(table[upper], (units @ units.T)[np.ix_(found.order, found.order)][upper], atol=1e-6)
        same = (found.labels[:, None] == found.labels)[upper]
        scores = table[upper]
        result = cifarnet.verification(vectors, labels, far=(0.5, 0.4))
        every = rates.rates(result.genuine, result.impostor)
        assert set(every.thresholds[1:]) == set(scores.tolist())
        np.testing.assert_array_equal(every.fmr, np.mean(scores[~same] >= every.thresholds[:, None], axis=1))
        np.testing.assert_array_equal(every.fnmr, np.mean(scores[same] < every.thresholds[:, None], axis=1))
        fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
        np.testing.assert_array_equal(every.thresholds, thresholds)
        np.testing.assert_allclose((every.fmr, 1 - every.fnmr), (fpr, tpr), rtol=0, atol=1e-12)
        assert abs(result.auc - roc_auc_score(same, scores)) < 1e-12
        assert abs(result.eer - interpolated(fpr, 1 - tpr)) < 1e-12
        for point in result.points:
            best = np.flatnonzero(fpr <= point.far)[-1]  # the lowest threshold that qualifies
            assert point.threshold == thresholds[best]
            assert abs(point.tar - tpr[best]) < 1e-12
            assert abs(point.fmr - fpr[best]) < 1e-12


def test_the_far_that_is_reached_is_never_above_the_one_asked_for():
    generator = np.random.default_rng(1)
    none = 0
    for _ in range(10_000):
        genuine, impostor = (np.sort(generator.integers(0, 9, generator.integers(2, 40))) / 8 for _ in range(2))
        far = float(generator.uniform(1 / len(impostor), 1))
        point = rates.at_far(genuine, impostor, far)
        assert point.fmr <= far
        assert point.fmr == np.mean(impostor >= point.threshold)
        assert point.tar == pytest.approx(np.mean(genuine >= point.threshold), abs=1e-12)
        lower = [score for score in {*genuine, *impostor} if score < point.threshold]
        assert not lower or np.mean(impostor >= max(lower)) > far
        none += point.threshold == np.inf
    assert none > 100  # ties at the top: infinity, TAR 0


def test_the_least_far_that_pairs_support_is_named_and_works():
    for count in (3, 7, 97, 1234, 49_999):
        scores = np.arange(count) / count
        with pytest.raises(Refused, match="give at least") as caught:
            rates.at_far(scores, scores, 0.9 / count)
        named = float(caught.value.fix.split()[3].rstrip(","))
        assert 1 / count <= named < 1.2 / count
        assert rates.at_far(scores, scores, named).few


def written_out(table, labels, of_identities, of_images, fars):
    """TAR at each FAR and EER of a resample whose every pair is repeated as often as it weighs; None without pairs."""
    kinds = [], []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            differ = labels[i] != labels[j]
            times = of_images[i] * of_images[j] * of_identities[labels[i]] * (of_identities[labels[j]] if differ else 1)
            kinds[int(differ)].extend([table[i, j]] * int(times))
    if not all(kinds):
        return None
    scores, same = np.concatenate(kinds), np.arange(sum(map(len, kinds))) < len(kinds[0])
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    return [tpr[np.flatnonzero(fpr <= far)[-1]] for far in fars] + [interpolated(fpr, 1 - tpr)]


def test_a_resample_by_weights_is_the_resample_written_out(monkeypatch):
    generator = np.random.default_rng(2)
    compared = 0
    for number in range(24):
        labels, vectors = made(generator, ties=number % 2 == 0)
        found, table = scored(vectors, labels)
        genuine, impostor = np.sort(found.genuine), np.sort(found.impostor)
        fars = [far for far in (0.5, 0.1, 0.02) if far * len(impostor) >= 1]
        kind = {"identities": number % 3 != 1, "images": number % 3 != 0}
        draws = next(weights.draw(found.labels, 4, number, **kind))
        # All pairs, or a stretch around the threshold.
        for small, slack in ((10**6, (0, 0)), (0, (0, 0)), (0, (3, 0.1))):
            monkeypatch.setattr(bootstrap, "SMALL", small)
            monkeypatch.setattr(bootstrap, "SLACK", slack)
            values = bootstrap.resampled(found, genuine, impostor, fars, draws)
            for row in range(4):
                wanted = written_out(table, found.labels, draws.identities[row], draws.images[row].astype(int), fars)
                if wanted is None:
                    assert np.isnan(values[row]).all()
                else:
                    np.testing.assert_allclose(values[row], wanted, rtol=0, atol=1e-12)
                    compared += 1
    assert compared > 200


def test_of_many_pairs_each_resample_finds_its_threshold_among_a_few(monkeypatch):
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(30), 20)
    vectors = 0.4 * generator.normal(size=(30, 16))[labels] + generator.normal(size=(600, 16))
    found, _ = scored(vectors, labels)
    genuine, impostor, fars = np.sort(found.genuine), np.sort(found.impostor), [0.1, 0.01, 0.001]
    draws = next(weights.draw(found.labels, 40, 0, identities=True, images=True))
    everything = bootstrap.resampled(found, genuine, impostor, fars, draws)
    sizes, cut = [], bootstrap.stretch

    def noted(*arguments, **options):
        sizes.append(len((part := cut(*arguments, **options)).impostor.scores))
        return part

    monkeypatch.setattr(bootstrap, "SMALL", 0)
    monkeypatch.setattr(bootstrap, "SLACK", (20, 0.005))
    monkeypatch.setattr(bootstrap, "stretch", noted)
    np.testing.assert_array_equal(bootstrap.resampled(found, genuine, impostor, fars, draws), everything)
    assert np.median(sizes) < len(impostor) / 2


def test_draws_are_with_replacement_within_their_identity():
    labels = np.array([0, 1, 1, 1, 2, 2])
    draws = next(weights.draw(labels, 50, 0, identities=True, images=True))
    assert (draws.identities.sum(axis=1) == 3).all()
    for label in range(3):
        assert (draws.images[:, labels == label].sum(axis=1) == (labels == label).sum()).all()
    assert draws.identities.std() > 0 < draws.images.std()
    few = cifarnet.verification(np.eye(6) + 0.1, labels, far=[0.5], bootstrap=100)
    assert few.to_dict()["bootstrap"]["of"] == "images"
    many = cifarnet.verification(
        np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) // 2, [0.5], bootstrap=100
    )
    assert many.to_dict()["bootstrap"]["of"] == "identities"
    low, high = many.to_dict()["eer_interval"]
    assert low < many.eer < high


def test_errors_that_were_not_seen_are_not_ruled_out():
    """30 identities of two images each, all apart: resamples show no error, and the exact interval of 0 of 30 ends at 11.6%."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 2)
    found = cifarnet.verification(np.eye(30)[labels] + 0.01 * rng.normal(size=(60, 30)), labels, [0.01], bootstrap=200)
    end = binomtest(0, 30).proportion_ci().high
    assert found.points[0].tar == 1 and found.intervals.tar[0] == (pytest.approx(1 - end), 1)
    assert found.eer == 0 and found.intervals.eer == (0, pytest.approx(end))


def test_images_that_are_drawn_without_an_error_count_as_pairs_that_share_none():
    """Of four identities with five images each eight pairs have no image in common."""
    labels = np.repeat(np.arange(4), 5)
    vectors = np.eye(4)[labels] + 0.01 * np.random.default_rng(0).normal(size=(20, 4))
    found = cifarnet.verification(vectors, labels, [0.01], bootstrap=200)
    assert found.intervals.unit == "images" and found.points[0].tar == 1
    assert found.intervals.tar[0] == (pytest.approx(1 - binomtest(0, 8).proportion_ci().high), 1)


@pytest.mark.parametrize("errors", [1, 7, 29])
def test_few_errors_have_the_exact_interval_of_as_many_trials(errors):
    """40 independent pairs: resamples of a share of them vary as the share itself, and tell that there are 40."""
    share = errors / 40
    values = np.random.default_rng(0).binomial(40, share, 100_000) / 40
    exact = binomtest(errors, 40).proportion_ci()
    point = (share, share)
    widened = bootstrap.with_few_errors(point, share, values, pairs=1000, units=3)
    np.testing.assert_allclose(widened, exact, atol=0.003)
    assert bootstrap.with_few_errors((0.0, 1.0), share, values, pairs=1000, units=3) == (0, 1)
    fewer = bootstrap.with_few_errors(point, share, values, pairs=20, units=3)
    assert fewer[0] < widened[0] < widened[1] < fewer[1]


def test_identities_without_a_genuine_pair_are_not_counted():
    """Of 43 identities three have two images or more: TAR rests on these, and they are too few to be drawn."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(3), 6), np.arange(3, 43)])
    about = cifarnet.verification(rng.normal(size=(58, 8)), labels, [0.1], bootstrap=100).to_dict()["bootstrap"]
    assert (about["of"], about["identities_with_pairs"], about["used"]) == ("images", 3, 100)

    ends = np.array([[0, 1], [0, 2], [6, 7]])
    listed = pairs.ListedPairs(labels, np.ones(3), np.ones(1), ends, np.array([[0, 20]]))
    assert listed.genuine_images.tolist() == [0, 1, 2, 6, 7]
    everything = pairs.all_pairs(rng.normal(size=(58, 8)), labels)
    assert everything.genuine_images.tolist() == list(range(18))


def test_resamples_in_groups_are_those_drawn_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    vectors, labels = rng.normal(size=(90, 8)), np.repeat(np.arange(30), 3)
    at_once = cifarnet.verification(vectors, labels, [0.1], bootstrap=130).to_dict()
    monkeypatch.setattr(weights, "GROUP", 50)
    assert [len(group) for group in weights.draw(labels, 130, 0, identities=True, images=False)] == [50, 50, 30]
    assert cifarnet.verification(vectors, labels, [0.1], bootstrap=130).to_dict() == at_once


def test_an_interval_needs_resamples_beyond_its_ends():
    """The 2.5% point of fewer than 39 numbers is the least of them, and the expanded one of 20 identities needs 62."""
    for count in (1, 99, 100_001):
        with pytest.raises(Refused, match="give 0, or 100 to 100,000"):
            cifarnet.verification(np.eye(6) + 0.1, np.arange(6) // 2, [0.5], bootstrap=count)


def test_the_interval_of_n_identities_is_students():
    """Of resamples that follow a normal distribution as the bootstrap of n values would: narrower by sqrt((n - 1) / n)."""
    spread = np.sqrt(24 / 25)
    values = norm.ppf((np.arange(200_000) + 0.5) / 200_000) * spread
    low, high = bootstrap.interval(np.append(values, np.nan), 25)
    np.testing.assert_allclose((low, high), t.ppf((0.025, 0.975), 24), atol=1e-3)
    np.testing.assert_allclose(bootstrap.interval(values), norm.ppf((0.025, 0.975)) * spread, atol=1e-3)
    assert bootstrap.interval(np.array([np.nan])) is None


def test_d_prime_and_det_points():
    generator = np.random.default_rng(4)
    genuine, impostor = np.sort(generator.normal(2, 1, 500)), np.sort(generator.normal(0, 0.5, 3000))
    wanted = abs(genuine.mean() - impostor.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2)
    assert rates.d_prime(genuine, impostor) == pytest.approx(wanted, abs=1e-12)
    assert rates.d_prime(np.ones(3), np.zeros(3)) is None
    some, every = rates.det_points(genuine, impostor, 100), rates.rates(genuine, impostor)
    places = {threshold: place for place, threshold in enumerate(every.thresholds)}
    chosen = [places[threshold] for threshold in some.thresholds]
    np.testing.assert_array_equal(some.fmr, every.fmr[chosen])
    np.testing.assert_array_equal(some.fnmr, every.fnmr[chosen])


def test_the_threshold_of_a_fold_comes_from_the_others():
    generator = np.random.default_rng(5)
    genuine, impostor = generator.integers(0, 9, 60) / 8.0, generator.integers(0, 6, 90) / 8.0
    of = generator.integers(0, 5, 150)
    found = folds.fold_accuracy(genuine, impostor, of)
    scores, same = np.concatenate([genuine, impostor]), np.arange(150) < 60
    for fold, accuracy, threshold in zip(range(5), found.accuracies, found.thresholds, strict=True):
        others = of != fold
        tried = {one: np.mean((scores[others] >= one) == same[others]) for one in (*np.unique(scores), np.inf)}
        assert threshold == max(one for one, right in tried.items() if right == max(tried.values()))
        assert accuracy == np.mean((scores[~others] >= threshold) == same[~others])
    assert found.mean == pytest.approx(np.mean(found.accuracies))
    with pytest.raises(Refused, match="single fold"):
        folds.fold_accuracy(genuine, impostor, np.zeros(150, int))


@pytest.mark.parametrize(
    ("embeddings", "labels", "options", "words"),
    [
        ([[1.0, 0], [np.nan, 1], [0, 1]], [0, 0, 1], {}, "1 row not finite, or all zero: 1"),
        ([[1.0, 0], [0, 0], [0, 1]], [0, 0, 1], {}, "all zero: 1"),
        ([[1.0, 0]] * 3, [0, 0, 0], {}, "1 class makes no impostor pairs"),
        ([[1.0, 0]] * 3, ["a", "b", "c"], {}, "no class has two images"),
        ([[1.0, 0]] * 3, [0, 0], {}, "3 embeddings have labels of shape"),
        ([1.0, 0], [0, 0], {}, "give numbers"),
        ([[1.0, 0]] * 3, np.array([None, 1, "a"], object), {}, "1 label missing, the first in row 0"),
        ([[1.0, 0]] * 3, np.array([2, 1, "a"], object), {}, "cannot be compared"),
        ([["x", "y"]] * 2, [0, 0], {}, "give numbers"),
        ([[1.0, 0]] * 3, [0, 0, 1], {"far": [0.1]}, "less than one of 2 impostor pairs; give at least 0.5"),
        ([[1.0, 0]] * 3, [0, 0, 1], {"far": [1.5]}, "not between 0 and 1"),
        ([[1.0, 0]] * 3, [0, 0, 1], {"far": [0.5], "bootstrap": -1}, "out of range"),
    ],
)
def test_bad_input_is_named(embeddings, labels, options, words):
    with pytest.raises(Refused, match=words):
        cifarnet.verification(embeddings, labels, **options)


def test_tensors_and_names_will_do():
    generator = np.random.default_rng(6)
    vectors, labels = generator.normal(size=(30, 5)), np.arange(30) % 4
    wanted = cifarnet.verification(vectors.astype(np.float32), labels, [0.1]).to_dict()
    tensor = torch.tensor(vectors, dtype=torch.float32, requires_grad=True)
    assert cifarnet.verification(tensor, torch.tensor(labels), [0.1]).to_dict() == wanted
    assert cifarnet.verification(7 * vectors, [f"class {label}" for label in labels], [0.1]).auc == wanted["auc"]


def test_no_observed_threshold_meets_a_far():
    result = cifarnet.verification([[1.0, 0]] * 4, [0, 0, 1, 1], far=[0.5])
    point = result.to_dict()["operating_points"][0]
    assert (point["threshold"], point["fmr"], point["tar"], point["fewer_than_30"]) == (None, 0.0, 0.0, True)
    assert result.eer == 0.5
    assert result.d_prime is None


def test_equal_rows_are_ties_wherever_they_stand():
    """One picture of each of five classes, of which two share theirs; against counts by hand."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(1000) % 5)
    pictures = generator.normal(size=(5, 128)).astype(np.float32)
    pictures[1] = pictures[0]
    found = cifarnet.verification(pictures[labels], labels, far=[0.05, 0.1, 0.5])
    for kind in (found.genuine, found.impostor):
        assert len(np.unique(kind)) <= 10
    assert found.impostor[-1] == found.genuine[0] == 1
    share = 200 * 200 / (10 * 200 * 200)  # of the impostor pairs: as many tie with all the genuine ones
    assert found.auc == pytest.approx(1 - share / 2) and found.eer == pytest.approx(share / (1 + share))
    points = found.to_dict()["operating_points"]
    assert [(point["threshold"], point["tar"]) for point in points] == [
        (None, 0.0),
        (1.0, 1.0),
        (points[2]["threshold"], 1.0),
    ]
    alike = cifarnet.verification(np.repeat(pictures[:1], 1000, axis=0), labels, far=[0.1])
    assert (alike.auc, alike.eer, alike.points[0].tar, alike.points[0].threshold) == (0.5, 0.5, 0, np.inf)


def test_an_interval_is_not_of_the_few_resamples_that_have_pairs():
    generator = np.random.default_rng(1)
    for sizes, known in (([2, 1, 1, 1], False), ([2] + [1] * 24, False), ([3] * 25, True)):
        labels = np.repeat(np.arange(len(sizes)), sizes)
        found = cifarnet.verification(generator.normal(size=(len(labels), 8)), labels, far=[0.5], bootstrap=400)
        about = found.to_dict()["bootstrap"]
        assert about["resamples"] == 400 and (about["used"] > 380) == known
        assert (found.intervals.eer is not None) == known == (found.intervals.tar[0] is not None)


def test_a_far_of_one_pair_is_supported_by_every_number_of_pairs():
    """1/49 * 49 is below 1 in floating point; 0.0096 * 3,125, thirty pairs, below 30."""
    for count in range(2, 3000):
        check_far(1 / count, count)
        if count > 2:
            with pytest.raises(Refused):
                check_far(1 / count, count - 1)
    assert not hardly_known(0.0096, 3_125) and hardly_known(0.0096, 3_124)


def test_a_threshold_accepts_the_pair_that_it_was_observed_of():
    assert rates.accepts(0.99379313, 0.99379301) and not rates.accepts(0.99379313, 0.993790)


def test_few_impostor_pairs_have_no_usual_far():
    found = measure.verify_pairs(pairs.all_pairs(*measure.checked(np.eye(4)[[0, 1, 2, 3]] + 0.1, [0, 0, 1, 2])))
    assert found.points == () and 0 <= found.eer <= 1 and len(found.impostor) == 5
    with pytest.raises(Refused, match=r"give at least 0\.2"):
        measure.verify_pairs(pairs.all_pairs(*measure.checked(np.eye(4) + 0.1, [0, 0, 1, 2])), [0.1])


def test_the_page_prints_what_it_says(capsys):
    page = (Path(__file__).parents[2] / "docs" / "verification.md").read_text()
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    assert f"```text\n{capsys.readouterr().out}```" in page


def test_the_names_of_det_curves_are_below_their_axes(tmp_path, monkeypatch):
    """Curves of models near chance pass through any corner; a model without errors says so beside its longest name."""
    figures = []
    real = style.save
    monkeypatch.setattr(style, "save", lambda figure, path: (real(figure, path), figures.append(figure)))
    rng = np.random.default_rng(0)
    near = {f"{number}-of-a-run": rates.rates(*np.sort(rng.normal(size=(2, 300)))) for number in range(4)}
    perfect = rates.rates(np.array([0.8, 0.9]), np.array([0.1, 0.2]))
    draw_det({**near, "n" * 60: perfect}, tmp_path / "x.png", "title")
    (figure,) = figures
    (axes,), (key,) = figure.axes, figure.legends
    assert [text.get_text() for text in key.get_texts()] == [*near, shorten("n" * 60, 28) + " (no errors)"]
    box = key.get_window_extent()
    assert axes.get_legend() is None and box.y1 <= axes.get_tightbbox().y0
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    assert in_key(["n" * 60 + ": EER 3.00%\nthree"]) == [shorten("n" * 60, 22) + ": EER 3.00%\nthree"]
    seeds = [f"resnet18-arcface-cifar10-{seed}: EER 3.00%" for seed in (1, 2)]
    assert in_key(seeds) == ["…10-1: EER 3.00%", "…10-2: EER 3.00%"]
    draw_det({"": perfect}, tmp_path / "y.png")
    assert figures[1].legends == []
    assert [text.get_text() for text in figures[1].axes[0].texts] == ["no errors at any threshold"]
    draw_det(
        {f"{name}: EER 10%\ndigits test, 4 unseen classes": curve for name, curve in near.items()}, tmp_path / "z.png"
    )
    figure = figures[2]
    inside, box = figure.axes[0].get_tightbbox(), figure.legends[0].get_window_extent()
    assert (
        box.y1 <= inside.y0
        and inside.y1 <= figure.bbox.y1
        and figure.bbox.x0 <= inside.x0
        and inside.x1 <= figure.bbox.x1
    )
