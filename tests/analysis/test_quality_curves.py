"""What is said of an error-versus-discard curve, by hand."""

import numpy as np
import pytest

from cifarnet.analysis.quality.discard import DiscardCurve
from cifarnet.analysis.quality.utility import Utility, error_versus_discard


def test_the_document_of_a_curve_by_hand():
    rng = np.random.default_rng(7)
    labels, quality = np.arange(60) % 3, rng.random(60)
    flips = np.where(rng.random((60, 16)) < 0.2, -1, 1)  # of the corner of its class; cosines without rounding
    embeddings = (rng.choice([-0.25, 0.25], (3, 16))[labels] * flips).astype(np.float32)
    found = error_versus_discard(embeddings, labels, {"mine": quality}, 0.1)
    document, start = found.to_dict(), found.fnmr
    rows = [(i, j) for i in range(60) for j in range(i) if labels[i] == labels[j]]
    pairs = sorted(
        (min(quality[i], quality[j]), float(embeddings[i] @ embeddings[j]) < found.point.threshold) for i, j in rows
    )
    wrong = np.array([failed for _, failed in pairs])
    assert start == pytest.approx(wrong.mean()) and 0 < start < 1
    least = np.array([lesser for lesser, _ in pairs])
    steps = [least[least >= one] for one in np.unique(least)]  # what is kept: whole images go
    kept = min(len(one) for one in steps if len(one) >= 0.8 * len(pairs))
    assert document["scores"]["mine"]["fnmr_after_discard"] == pytest.approx(wrong[-kept:].mean())
    for limit in ("0.2", "1"):
        e, x = start, min(float(limit), start)
        assert document["random"][limit]["pauc"] == pytest.approx(e * float(limit))
        assert document["best"][limit] == pytest.approx(x + (1 - e) * np.log(1 - x))
        share = document["scores"]["mine"]["share_of_best"][limit]
        area = document["scores"]["mine"]["pauc"][limit]
        assert share == pytest.approx((e * float(limit) - area) / (e * float(limit) - document["best"][limit]))
    curve = {
        name: np.array(document["curve"][name]) for name in ("discarded", "random", "random_low", "random_high", "best")
    }
    d = curve["discarded"]
    np.testing.assert_allclose(curve["best"], np.where(d < start, (start - d) / (1 - d), 0), atol=1e-12)
    assert (curve["random_low"] <= curve["random"] + 0.05).all() and (curve["random_low"] <= curve["random_high"]).all()
    assert (curve["random_low"][20:80] < curve["random_high"][20:80]).all()
    again, other = (error_versus_discard(embeddings, labels, {"mine": quality}, 0.1, seed) for seed in (17, 18))
    assert again.chance(0.2) == found.chance(0.2) != other.chance(0.2)


def test_chance_is_that_of_the_first_fifth():
    """Better until a fifth is gone, worse from there on: the verdict is of pAUC 0.2; that up to 1 is the opposite."""

    def steps(first, then):
        return DiscardCurve(np.array([0.0, 0.2]), np.array([first, then]))

    draws = [steps(0.5 + shift, 0.5 - shift) for shift in (-0.01, 0.0, 0.01)]
    found = Utility(None, 100, 100, {"early": steps(0.3, 0.9)}, draws)
    assert found.verdict("early") == "better" and found.verdict("early", 1.0) == "worse"
