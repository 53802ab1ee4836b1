"""Quality against loops over pairs, scipy, torchvision, Pillow, and the curves that a perfect and a random quality must have."""

import io
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import integrate, ndimage, stats
from torchvision.transforms.v2 import functional as tv

from cifarnet.analysis.open_classes import open_classes
from cifarnet.analysis.plots import quality as picture
from cifarnet.analysis.plots import style
from cifarnet.analysis.quality.degrade import DEGRADATIONS, degrade
from cifarnet.analysis.quality.degraded import measure_degraded
from cifarnet.analysis.quality.discard import best_area, best_at, discard_curve, share_of_best
from cifarnet.analysis.quality.measure import class_cosines, measure_quality, pictures, score_images, score_parts
from cifarnet.analysis.quality.scores import SCORES, correlations, quality_scores
from cifarnet.analysis.quality.utility import error_versus_discard, reach_of_chance
from cifarnet.analysis.quality.verdict import judge
from cifarnet.analysis.unit_embeddings import embed_classes
from cifarnet.analysis.verification.measure import verification
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Diverged, Failed, Refused
from cifarnet.engine.evaluate import open_for_evaluation
from cifarnet.engine.fit import fit
from cifarnet.losses.heads import build_head


def corners(rng, count, size=16):
    """Unit vectors whose cosines are multiples of 1/8, so that there are many ties and no rounding."""
    return (rng.choice([-1, 1], (count, size)) / size**0.5).astype(np.float32)


def by_hand(embeddings, labels, quality, far):
    """Threshold, FMR and the curve by loops over pairs and over thresholds."""
    pairs = [(i, j, float(embeddings[i] @ embeddings[j])) for i, j in itertools.combinations(range(len(labels)), 2)]
    impostor = [score for i, j, score in pairs if labels[i] != labels[j]]
    observed = sorted({score for *_, score in pairs})
    fits = [t for t in observed if sum(s >= t for s in impostor) / len(impostor) <= far]
    threshold = min(fits, default=np.inf)
    genuine = [(min(quality[i], quality[j]), score < threshold) for i, j, score in pairs if labels[i] == labels[j]]
    curve = []
    for least in sorted({quality for quality, _ in genuine}):
        kept = [wrong for quality, wrong in genuine if quality >= least]
        curve.append((1 - len(kept) / len(genuine), sum(kept) / len(kept)))
    return threshold, sum(s >= threshold for s in impostor) / len(impostor), np.array(curve)


def test_error_against_discard_is_that_of_a_loop_over_all_pairs():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(6, 40))
        embeddings, labels = corners(rng, count, 16 if seed % 2 else 4), rng.integers(0, 4, count)
        labels[:4] = [0, 0, 1, 1]
        scores = {"ties": rng.integers(0, 4, count).astype(float), "none": rng.random(count), "one": np.zeros(count)}
        far = float(rng.choice([0.02, 0.1, 0.3, 0.5]))
        impostors = sum(a != b for a, b in itertools.combinations(labels, 2))
        if far * impostors < 1:
            with pytest.raises(Refused, match=r"far: .*impostor pairs"):
                error_versus_discard(embeddings, labels, scores, far)
            continue
        found = error_versus_discard(embeddings, labels, scores, far)
        for name, quality in scores.items():
            threshold, fmr, curve = by_hand(embeddings, labels, quality, far)
            assert found.point.threshold == threshold and found.point.fmr == fmr <= far
            np.testing.assert_allclose(found.curves[name].discarded, curve[:, 0], atol=1e-12)
            np.testing.assert_allclose(found.curves[name].errors, curve[:, 1], atol=1e-12)
            single = discard_curve(*pairs_of(embeddings, labels, quality, threshold))
            np.testing.assert_array_equal(single.errors, found.curves[name].errors)


def pairs_of(embeddings, labels, quality, threshold):
    rows = [(i, j) for i, j in itertools.combinations(range(len(labels)), 2) if labels[i] == labels[j]]
    return (
        [min(quality[i], quality[j]) for i, j in rows],
        [float(embeddings[i] @ embeddings[j]) < threshold for i, j in rows],
    )


def test_areas_are_integrals():
    rng = np.random.default_rng(0)
    for limit in (0.05, 0.2, 0.77, 1.0):
        curve = discard_curve(rng.integers(0, 9, 200), rng.random(200) < 0.3)
        breaks = [x for x in curve.discarded if 0 < x < limit]
        area, _ = integrate.quad(lambda x, c=curve: float(c.at(x)), 0, limit, points=breaks, limit=200)
        assert curve.area(limit) == pytest.approx(area, abs=1e-9)
        for start in (0.0, 0.1, 0.6, 0.999, 1.0):
            area, _ = integrate.quad(lambda x, e=start: float(best_at(e, x)), 0, limit, points=[min(start, limit)])
            assert best_area(start, limit) == pytest.approx(area, abs=1e-7)
    assert curve.at(0.0) == curve.start and curve.at(np.array([0.999])) == curve.errors[-1]


def test_perfect_constant_and_random_qualities_have_the_known_curves():
    rng = np.random.default_rng(1)
    wrong = rng.random(20_000) < 0.25
    start = wrong.mean()
    perfect = discard_curve(np.where(wrong, rng.random(len(wrong)), 1 + rng.random(len(wrong))), wrong)
    np.testing.assert_allclose(perfect.errors, best_at(start, perfect.discarded), atol=1e-12)
    constant, random = discard_curve(np.ones(len(wrong)), wrong), discard_curve(rng.random(len(wrong)), wrong)
    assert constant.discarded.tolist() == [0] and constant.area(0.2) == pytest.approx(0.2 * start)
    assert abs(random.at(np.linspace(0, 0.8, 50)) - start).max() < 0.02
    for limit in (0.2, 1.0):
        assert share_of_best(perfect.area(limit), start, limit) == pytest.approx(1, abs=1e-3)
        assert share_of_best(constant.area(limit), start, limit) == pytest.approx(0, abs=1e-12)
        assert abs(share_of_best(random.area(limit), start, limit)) < 0.05
    assert share_of_best(0.0, 0.0, 1.0) is None and share_of_best(1.0, 1.0, 1.0) is None


def test_what_is_discarded_is_counted_not_rounded():
    """1 - 0.7 is above 0.3 in floating point: at 30% the three worst of ten would still be there."""
    for count in (10, 100, 1000):
        curve = discard_curve(np.arange(count), np.arange(count) < count // 2)
        for percent in range(100):
            gone = percent * count // 100
            assert curve.at(percent / 100) == max(count // 2 - gone, 0) / (count - gone)
    infinite = discard_curve(np.array([-np.inf, -np.inf, 1, np.inf, np.inf]), np.array([1, 0, 0, 0, 0]))
    assert infinite.discarded.tolist() == [0, 0.4, 0.6]


def test_chance_is_what_random_orders_do():
    """Of images whose noise is known: it is found better than chance, its reverse worse, and 40 random scores seldom either."""
    rng = np.random.default_rng(2)
    labels, centres = np.repeat(np.arange(8), 30), rng.normal(size=(8, 32))
    strength = rng.uniform(0.2, 2.0, len(labels))
    vectors = centres[labels] + strength[:, None] * rng.normal(size=(len(labels), 32))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    scores = {"good": -strength, "bad": strength} | {str(n): rng.random(len(labels)) for n in range(40)}
    found = error_versus_discard(unit, labels, scores, 0.01)
    verdicts = [found.verdict(name) for name in scores]
    assert verdicts[:2] == ["better", "worse"] and verdicts[2:].count("as chance") >= 34
    for draws in (20, 100):  # of draws of a normal distribution the next one lies within in 95% of cases
        made = rng.normal(size=(20_000, draws + 1))
        reach = reach_of_chance(draws) * made[:, :-1].std(axis=1, ddof=1)
        assert abs((abs(made[:, -1] - made[:, :-1].mean(axis=1)) < reach).mean() - 0.95) < 0.005
    document = found.to_dict()
    assert document["random"]["1"]["low"] < document["fnmr"] < document["random"]["1"]["high"]


def test_scores_are_those_of_numpy_and_scipy():
    rng = np.random.default_rng(3)
    z, weight = 3 * rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    for loss, shape in (("arcface", (5, 8)), ("ce", (5, 8)), ("subcenter-arcface", (5, 3, 8))):
        head = build_head(8, 5, loss)
        head.weight.data = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        weight = head.weight.detach().double().numpy().reshape(5, -1, 8)
        cosines = np.array(
            [[max(1 - c for c in 1 - w @ f / np.linalg.norm(w, axis=1) / np.linalg.norm(f)) for w in weight] for f in z]
        )
        logits = head.logits(torch.from_numpy(z)).detach().numpy()
        found = quality_scores(z, class_cosines(head, torch.from_numpy(z)).numpy(), logits)
        ordered = np.sort(cosines, axis=1)
        expected = {
            "norm": np.sqrt((z.astype(float) ** 2).sum(axis=1)),
            "max-cosine": ordered[:, -1],
            "margin": ordered[:, -1] - ordered[:, -2],
            "entropy": -stats.entropy(torch.from_numpy(logits).double().softmax(dim=1).numpy(), axis=1),
        }
        assert list(found) == list(SCORES)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-7, err_msg=name)


def test_spearman_is_scipys_with_ties():
    rng = np.random.default_rng(4)
    severity, tied = np.repeat(np.arange(4), 25), rng.integers(0, 5, 100).astype(float)
    found = correlations(severity, {"tied": tied, "free": tied + rng.random(100), "flat": np.ones(100)})
    ranks = [stats.rankdata(values, "average") for values in (severity, tied)]
    assert found["tied"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert found["free"] != found["tied"] and found["flat"] is None
    assert correlations(severity, {"falls": -severity.astype(float)})["falls"] == pytest.approx(-1)


def test_correlations_take_tensors_and_refuse_what_has_no_rank():
    """A NaN would be "not defined", as of images that are all alike."""
    severity, score = torch.arange(6), torch.tensor([5.0, 4, 3, 2, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert correlations(severity, {"falls": score.bfloat16()})["falls"] == pytest.approx(-1)
    for given, words in (
        ((severity, {"n": score[:5]}), r"score n: has the shape \[5\]; give one number for each of 6 images"),
        ((severity, {"n": score.where(score > 0, torch.nan)}), "score n: 1 of 6 are NaN"),
        ((score.where(score > 0, torch.nan), {"n": score}), "severity: 1 of 6 are NaN"),
        ((severity, score), "scores: are of type Tensor; give a mapping of names to them"),
    ):
        with pytest.raises(Refused, match=words):
            correlations(*given)


def test_degradations_are_torchvisions_pillows_and_scipys():
    images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))
    for name, row in DEGRADATIONS.items():
        for strength in row.strengths:
            found = degrade(images, name, strength, torch.Generator().manual_seed(1))
            assert found.shape == images.shape and found.dtype == torch.uint8 and not torch.equal(found, images)
            if name == "blur":
                sigmas = (0, 0, strength, strength)
                expected = ndimage.gaussian_filter(images.double().numpy(), sigmas, mode="mirror", truncate=3)
                assert abs(found.double().numpy() - expected).max() <= 1
            elif name == "jpeg":
                for image, made in zip(images, found, strict=True):
                    file = io.BytesIO()
                    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=strength)
                    assert np.array_equal(made.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
            elif name == "noise":
                drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
                expected = ((images.double() / 255 + strength * drawn).clamp(0, 1) * 255).round()
                assert (found - expected).abs().max() <= 1
            else:
                small = tv.resize(images, [int(strength)] * 2, tv.InterpolationMode.BILINEAR, antialias=True)
                assert torch.equal(found, tv.resize(small, [32, 32], tv.InterpolationMode.BILINEAR, antialias=True))
    for side in (8, 48, 96):  # blur and resize follow the side: the smallest image survives all of them
        images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        for name, row in DEGRADATIONS.items():
            assert degrade(images, name, row.strengths[-1], torch.Generator()).shape == images.shape


def test_degraded_scores_lie_in_order_and_noise_is_seeded():
    images = torch.randint(60, 200, (520, 3, 8, 8), dtype=torch.uint8)

    def score(chunk):
        spread = chunk.double().flatten(1).std(dim=1).numpy()
        return dict.fromkeys(SCORES, spread)

    once, again = (measure_degraded(images, ["noise", "blur"], score, seed=3) for _ in range(2))
    noise, blur = once
    assert noise.values["norm"].shape == (5, 520)
    np.testing.assert_array_equal(noise.values["norm"][0], score(images)["norm"])
    np.testing.assert_array_equal(noise.values["norm"], again[0].values["norm"])
    assert noise.rho["norm"] > 0.5 and blur.rho["norm"] < -0.5
    assert noise.to_dict()["strengths"] == [None, 0.02, 0.05, 0.1, 0.2]


@pytest.mark.parametrize(
    ("errors", "rhos", "verdict", "words"),
    [
        ("better", {"blur": -0.5, "noise": -0.1}, "yes", "falls with blur (ρ = −0.50) and noise (ρ = −0.10)"),
        ("better", {"blur": 0.3}, "in part", "rises with blur (ρ = +0.30)"),
        ("as chance", {"blur": -0.3}, "in part", "20.00% to 18.00%, within chance"),
        ("worse", {"blur": 0.3, "jpeg": None}, "no", "worse than chance; it rises with blur"),
        ("unknown", {}, "unknown", "every genuine pair is rejected"),
    ],
)
def test_the_sentence_says_what_was_measured(errors, rhos, verdict, words):
    document = {
        "fnmr": 1.0 if errors == "unknown" else 0.2,
        "scores": {"norm": {"against_chance": errors, "fnmr_after_discard": 0.18}},
        "degradations": {name: {"scores": {"norm": {"rho": rho}}} for name, rho in rhos.items()},
    }
    found = judge(document)
    assert found["is_quality"] == verdict and words in found["sentence"]


def test_a_rho_nearer_to_0_than_a_tenth_is_no_fall():
    degraded = {name: {"scores": {"norm": {"rho": rho}}} for name, rho in (("blur", -0.09), ("noise", 0.09))}
    scores = {"norm": {"against_chance": "worse", "fnmr_after_discard": 0.3}}
    found = judge({"fnmr": 0.2, "scores": scores, "degradations": degraded})
    assert found["is_quality"] == "no" and "does not follow blur (ρ = −0.09) and noise (ρ = +0.09)" in found["sentence"]


def test_bad_input_is_refused_in_one_line():
    rng = np.random.default_rng(6)
    embeddings, labels, scores = corners(rng, 12), np.arange(12) % 3, {"norm": rng.random(12)}
    for wrong, message in (
        ({"labels": np.arange(12)}, "no genuine pair|no class has two"),
        ({"labels": np.zeros(12, int)}, "no impostor pair"),
        ({"far": 0.001}, "far: .*of 48 impostor pairs; give at least"),
        ({"far": float("nan")}, "far: "),
        ({"embeddings": np.where(np.eye(12, 16), np.nan, embeddings)}, "12 rows not finite"),
        ({"scores": {"norm": np.where(labels == 0, np.nan, 1.0)}}, "norm.*4 of 12 are NaN"),
    ):
        given = {"embeddings": embeddings, "labels": labels, "scores": scores, "far": 0.1} | wrong
        with pytest.raises(Refused, match=message) as error:
            error_versus_discard(**given)
        assert "\n" not in str(error.value)
    same = error_versus_discard(np.tile(embeddings[:1], (12, 1)), labels, scores, 0.1)  # all scores are 1: no threshold
    assert same.point.threshold == np.inf and same.point.fmr == 0 and same.fnmr == 1
    assert same.verdict("norm") == "unknown"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run that has never seen the last three classes."""
    given = {"arch": "baseline", "loss": "adaface", "dataset": "digits", "epochs": 1, "hold_out_classes": "3"}
    config = TrainConfig(**given, precision="fp32", device="cpu")
    return open_for_evaluation(fit(config, tmp_path_factory.mktemp("quality") / "run"), device="cpu")


def test_a_model_measured_whole_and_drawn(opened, tmp_path):
    state = torch.get_rng_state()
    document = measure_quality(opened, ["entropy"], ["resize", "noise"], classes="all", far=0.01, samples=50)
    assert torch.equal(torch.get_rng_state(), state)
    assert document["images"] == 355 and document["degraded_images"] == 50 and "norm" in document["sentence"]
    assert set(document["scores"]) == set(document["curve"]["scores"]) == {"entropy"}
    numbers = picture.numbers(document)
    assert (
        len(numbers["degradations"]["resize"]["entropy"]) == 4 and numbers["degradations"]["noise"]["entropy"][0] == 0
    )
    figure = picture.draw(document, tmp_path / "quality.png", "a title")
    assert Image.open(figure).size[0] > 1000


def test_pictures_as_they_are_have_the_scores_of_the_split(opened):
    """Those that are degraded go through the model as the split does: the same mean and deviation are taken out."""
    whole, pictures = score_parts([opened]).scores, score_images(opened, opened.images)
    for name in SCORES:
        np.testing.assert_allclose(pictures[name], whole[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_seed_chooses_the_images_and_their_noise(opened):
    def means(name, samples, seed):
        document = measure_quality(opened, ["norm"], [name], classes="seen", far=0.01, samples=samples, seed=seed)
        return document["degradations"][name]["scores"]["norm"]["mean"]

    assert means("resize", 30, 1) == means("resize", 30, 1) != means("resize", 30, 2)  # of others
    one, other = means("noise", 0, 1), means("noise", 0, 2)  # of all of them
    assert one[0] == other[0] and one[1:] != other[1:]


@pytest.mark.parametrize("degraded", [[], ["blur", "jpeg", "noise", "resize"]])
def test_the_key_of_the_figure_is_below_all_panels(tmp_path, monkeypatch, degraded):
    """Error curves may lie anywhere in their panel."""
    figures = []
    real = style.save
    monkeypatch.setattr(style, "save", lambda figure, path: (real(figure, path), figures.append(figure)))
    scores, x = ("norm", "max-cosine", "margin", "entropy"), [0.0, 0.5, 0.99]
    levels = {"mean": [1.0, 0.5], "spread": 1.0}
    panel = {"strengths": [None, 2.0], "unit": "pixels", "scores": dict.fromkeys(scores, levels)}
    curve = {"discarded": x, "scores": {name: [0.8, 0.4, 0.1] for name in scores}}
    curve |= {name: [0.8, 0.8, 0.8] for name in ("random", "random_low", "random_high", "best")}
    document = {"degradations": dict.fromkeys(degraded, panel), "scores": dict.fromkeys(scores), "curve": curve}
    picture.draw(document | {"far": 0.01, "fnmr": 0.8}, tmp_path / "x.png")
    (figure,) = figures
    (key,) = figure.legends
    names = ["random, 95%", "random, mean", "best possible", *scores]
    assert [text.get_text() for text in key.get_texts()] == names and len(figure.axes) == 1 + len(degraded)
    box = key.get_window_extent()
    assert box.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    none = curve | {name: [0.0] * 3 for name in ("random", "random_low", "random_high", "best")}
    none["scores"] = {name: [0.0] * 3 for name in scores}
    picture.draw(document | {"far": 0.01, "fnmr": 0.0, "curve": none}, tmp_path / "y.png")
    said = [text.get_text() for axes in figures[1].axes for text in axes.texts]
    assert said == ["no genuine pair is rejected"] and not any(axes.texts for axes in figure.axes)


def test_it_begins_where_verification_ends(opened):
    for classes, count, words in (("unseen", 3, "unseen"), ("seen", 7, "seen"), ("all", 10, "seen and unseen")):
        found = measure_quality(opened, degradations=["none"], classes=classes, far=0.01)
        units = embed_classes(opened, classes)
        (point,) = verification(units.vectors, units.labels, far=(0.01,)).points
        assert found["threshold"] == pytest.approx(point.threshold, abs=1e-6)
        assert found["achieved_fmr"] == pytest.approx(point.fmr, abs=1e-4)
        assert found["fnmr"] == pytest.approx(1 - point.tar, abs=2e-3) and found["images"] == len(units)
        assert found["measured_on"] == f"digits test, {count} {words} classes"
        assert found["classes"] == list(units.classes)
    parts = open_classes(opened, "all")
    whole = torch.cat([part.images for part in parts])
    chosen = torch.tensor([0, 3, len(parts[0].images) - 1, len(parts[0].images), 354])
    assert torch.equal(pictures(parts, chosen), whole[chosen])


def test_numbers_that_are_not_finite_are_said(opened):
    weight = next(opened.model.backbone.parameters())
    kept = weight.detach().clone()
    weight.data[:] = torch.nan
    with pytest.raises((Failed, Diverged), match="not finite"):
        measure_quality(opened, far=0.01)
    weight.data.copy_(kept)


def test_the_example_in_the_docs_is_true(capsys):
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    first, second, third = capsys.readouterr().out.splitlines()
    fnmr, after, area = map(float, first.split())
    assert after < fnmr < 0.5 and area < 0.2 * fnmr
    assert second == "better as chance" and float(third.split()[-1].strip("})")) > 0.3
