"""1:N identification: search, ranks and open-set rates beside short references; what is refused."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

import cifarnet
from cifarnet.analysis.identification import search as blocks
from cifarnet.analysis.identification.gallery_file import Gallery
from cifarnet.analysis.identification.pictures import Identified, Probes
from cifarnet.analysis.identification.protocol import divide
from cifarnet.analysis.identification.rates import OpenSet, Point, check_fpir, cmc, open_set
from cifarnet.analysis.identification.search import search
from cifarnet.analysis.identification.templates import make_templates, unit_rows
from cifarnet.core.errors import Refused


def score_matrix(probes, templates):
    """Every score, from the same float32 rows, each sum rounded once."""
    matrix = []
    for probe in unit_rows(probes).tolist():
        rows = [math.fsum(a * b for a, b in zip(probe, row, strict=True)) for row in templates.vectors.tolist()]
        owners = templates.owners.tolist()
        matrix.append([max(s for s, o in zip(rows, owners, strict=True) if o == i) for i in range(len(templates))])
    return matrix


def short_reference(matrix, mates, asked):
    """(threshold, FPIR, DIR) as VERIFICATION's definitions read: every observed score is tried, the least first."""
    strangers = [max(row) for row, mate in zip(matrix, mates, strict=True) if mate < 0]
    members = [(row, mate) for row, mate in zip(matrix, mates, strict=True) if mate >= 0]
    for threshold in [*sorted({max(row) for row in matrix}), math.inf]:
        fpir = sum(score >= threshold for score in strangers) / len(strangers)
        if fpir <= asked:
            break
    hits = 0
    for row, mate in members:
        first = all(row[mate] > score for other, score in enumerate(row) if other != mate)
        hits += first and row[mate] >= threshold
    return threshold, fpir, hits / len(members)


def test_dir_at_fpir_and_cmc_equal_a_short_reference_ties_included():
    """Rows of -1, 0 and 1 in three dimensions: many scores are exactly equal, within a search and between searches."""
    random, compared, tied, infinite = np.random.default_rng(0), 0, 0, 0
    for case in range(2000):
        identities, strangers = int(random.integers(1, 7)), int(random.integers(1, 8))
        owners = np.concatenate([np.arange(identities), random.integers(0, identities, int(random.integers(0, 4)))])
        probes = int(random.integers(1, 8)) + strangers
        rows = random.integers(-1, 2, (len(owners) + probes, 3))
        rows[~rows.any(axis=1)] = (1, 1, 0)
        mates = np.where(np.arange(probes) < strangers, -1, random.integers(0, identities, probes))
        kind = "max" if case % 2 else "mean"
        try:
            templates = make_templates(rows[: len(owners)], owners, [str(i) for i in range(identities)], kind)
        except Refused:  # a mean of opposite rows
            continue
        found = search(rows[len(owners) :], templates, mates, top=3)
        matrix, asked = score_matrix(rows[len(owners) :], templates), float(random.choice([0.1, 0.2, 0.25, 0.5, 1.0]))
        ranks = [sum(s >= row[m] for s in row) if m >= 0 else 0 for row, m in zip(matrix, mates, strict=True)]
        assert found.ranks.tolist() == ranks
        by_hand = [np.mean([rank <= r for rank in ranks if rank]) for r in range(1, identities + 1)]
        assert cmc(found.ranks, identities).tolist() == pytest.approx(by_hand, abs=0)
        assert found.scores[:, 0].tolist() == [max(row) for row in matrix]
        rates = open_set(found)
        if 1 / strangers > asked:
            with pytest.raises(Refused, match=r"and there are \d"):
                rates.at(asked)
            continue
        point = rates.at(asked)
        assert (point.threshold, point.fpir, point.dir) == short_reference(matrix, mates, asked)
        assert point.fpir <= asked and point.fnir == 1 - point.dir
        compared += 1
        tied += any(row.count(max(row)) > 1 for row in matrix)
        infinite += point.threshold == math.inf
        assert point.threshold < math.inf or point.dir == point.fpir == 0
    assert compared > 1000 and tied > 500 and infinite > 20, (compared, tied, infinite)


def test_blocks_of_any_size_give_the_full_matrix(monkeypatch):
    random = np.random.default_rng(1)
    owners = np.sort(random.integers(0, 90, 400))
    owners = np.unique(owners, return_inverse=True)[1]
    names = [str(i) for i in range(owners.max() + 1)]
    gallery = random.standard_normal((400, 24)).astype(np.float32)
    gallery[np.isin(owners, (3, 7))] = gallery[0]  # two identities that look the same
    mates = random.integers(-1, len(names), 60)
    probes = random.standard_normal((60, 24)) + gallery[np.searchsorted(owners, np.maximum(mates, 0))]
    for kind in ("mean", "max"):
        templates = make_templates(gallery, owners, names, kind)
        exact = unit_rows(probes).astype(float)[:, None] * templates.vectors[None]
        full = np.stack([exact.sum(axis=2)[:, templates.owners == i].max(axis=1) for i in range(len(names))], axis=1)
        answers = []
        for size, cells in ((1024, 1 << 22), (7, 64), (1, 1), (64, 640)):
            monkeypatch.setattr(blocks, "PROBES", size)
            monkeypatch.setattr(blocks, "CELLS", cells)
            answers.append(search(probes, templates, mates, top=10))
        order = np.argsort(-full, axis=1, kind="stable")[:, :10]
        own = full[np.arange(60), mates]
        for found in answers:
            assert np.array_equal(found.candidates, order)
            assert np.array_equal(found.scores, np.take_along_axis(full, order, axis=1))
            assert np.array_equal(found.ranks, np.where(mates < 0, 0, (full >= own[:, None]).sum(axis=1)))
        assert (found.ranks[np.isin(mates, (3, 7))] > 1).all()  # a tie is no hit


def popular(similarity, mates, asked):
    """The formula of insightface before its pull request 1739, still AdaFace's (its issue 169), in our words.

    All scores with another identity, of all mated searches, in one list; the threshold is the ceil(asked × searches)-th
    largest of it. A search counts when its mate's score is above, whoever is first.
    """
    mated = similarity[mates >= 0]
    own = np.zeros(mated.shape, dtype=bool)
    own[np.arange(len(mated)), mates[mates >= 0]] = True
    impostors = np.sort(mated[~own])[::-1]
    threshold = impostors[math.ceil(asked * len(mated)) - 1]
    return threshold, (mated[own] > threshold).mean()


def test_what_the_popular_formula_gives_on_the_same_scores():
    """Ten members, of whom two look more like someone else; ten strangers. Every number can be counted by hand."""
    similarity, mates = np.full((20, 4), 0.1), np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1] + [-1] * 10)
    similarity[np.arange(10), mates[:10]] = 0.8
    similarity[0, 2] = similarity[1, 2] = 0.9
    similarity[10:, 0] = [0.85, 0.6, 0.55, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2]
    first = similarity[:10].argmax(axis=1) == mates[:10]
    ours = OpenSet(similarity[10:].max(axis=1), similarity[:10].max(axis=1), first)
    # At 10% one stranger may pass: τ = 0.8, and eight members are first and pass. At 30% three may.
    assert (ours.at(0.1).threshold, ours.at(0.1).fpir, ours.at(0.1).dir) == (0.8, 0.1, 0.8)
    assert (ours.at(0.3).threshold, ours.at(0.3).fpir, ours.at(0.3).dir) == (0.55, 0.3, 0.8)
    # The popular threshold for 10% is 0.9, the largest of all: nobody passes. That for 30% is 0.1: all strangers pass, and
    # the two members who were taken for someone else count as found.
    assert popular(similarity, mates, 0.1) == (0.9, 0.0) and ours.fpir(0.9) == 0.0
    assert popular(similarity, mates, 0.3) == (0.1, 1.0) and ours.fpir(0.1) == 1.0


def test_no_observed_score_meets_the_rate():
    rates = OpenSet(np.array([0.9, 0.9, 0.1]), np.array([0.5]), np.array([True]))
    assert rates.at(0.4) == Point(0.4, math.inf, 0.0, 0.0, True)
    assert not rates.at(1.0).threshold > 0.1 and math.isnan(
        OpenSet(np.array([0.2]), np.array([]), np.array([], bool)).at(1).dir
    )
    with pytest.raises(Refused, match=r"needs 100 probes .* there are 70; ask for 0\.0143 or more"):
        check_fpir(0.01, 70)
    check_fpir(0.0143, 70)


def test_templates_and_what_has_no_direction():
    rows = np.array([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0], [5.0, 0.0]])
    mean = make_templates(rows[:2], [0, 0], ["a"]).vectors[0]
    assert mean == pytest.approx(np.array([0.6, 1.8]) / math.hypot(0.6, 1.8), abs=1e-7)
    assert make_templates(rows[:1], [0], ["a"]).vectors.tolist() == [[np.float32(0.6), np.float32(0.8)]]
    assert make_templates(rows, [1, 0, 1, 0], ["a", "b"], "max").owners.tolist() == [0, 0, 1, 1]
    nan, zero = rows.copy(), rows.copy()
    nan[2, 1], zero[3] = np.nan, 0
    one = make_templates(rows[:1], [0], ["a"])
    for wrong, why in (
        (lambda: make_templates(rows[2:], [0, 0], ["a"]), "the embeddings of a cancel out"),
        (lambda: make_templates(rows, [0, 0, 0, 0], ["a", "b"]), "nothing is enrolled of b"),
        (lambda: make_templates(rows, [0, 1], ["a", "b"]), "labels"),
        (lambda: make_templates(rows[:0], [], []), "nothing is enrolled of the gallery"),
        (lambda: make_templates(rows, [0] * 4, ["a"], "median"), "'median' is not known"),
        (lambda: make_templates(nan, [0] * 4, ["a"]), "row 2 holds values that are not finite"),
        (lambda: search(zero, one), "row 3 has length zero"),
        (lambda: search(rows[0], one), "they are float64 [2]"),
        (lambda: search(np.ones((1, 3)), one), "the probes have 3 numbers, the templates 2"),
        (lambda: search(rows, one, [0, 1, 0, 0]), "they are not identities of the gallery"),
        (lambda: OpenSet(np.array([np.nan]), np.array([]), np.array([], bool)), "not finite"),
        (lambda: cmc([0, 0], 3), "there is no mated search"),
        (lambda: open_set(search(rows, one, [0] * 4)).at(0.5), "there is no non-mated search"),
    ):
        with pytest.raises(Refused) as error:
            wrong()
        assert why in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert search(rows[:0], one).scores.shape == (0, 1)


def test_identification_of_anyones_embeddings():
    random = np.random.default_rng(2)
    centres = random.standard_normal((40, 16))
    labels = random.integers(0, 40, 600)
    rows = centres[labels] + 0.4 * random.standard_normal((600, 16))
    enrolled = labels < 25
    gallery = np.flatnonzero(enrolled)[:120]
    probes = np.setdiff1d(np.arange(600), gallery)
    found = cifarnet.identification(rows[gallery], labels[gallery], rows[probes], labels[probes])
    document = json.loads(json.dumps(found.to_dict()))
    assert document["identities"] == 25 and len(document["cmc"]) == 20 and document["cmc"][0] > 0.9
    assert document["mated_searches"] + document["non_mated_searches"] == len(probes)
    assert [point["fpir_asked"] for point in document["operating_points"]] == [0.01, 0.1]
    texts = np.array([f"person {n:02}" for n in range(40)])[labels]
    again = cifarnet.identification(rows[gallery], texts[gallery], rows[probes], texts[probes])
    assert again.to_dict() == found.to_dict() and again.templates.names[3] == "person 03"
    learnt = torch.tensor(rows, requires_grad=True)
    again = cifarnet.identification(
        learnt[gallery], torch.tensor(labels)[gallery], learnt[probes], labels[probes].tolist()
    )
    assert again.to_dict() == found.to_dict()
    with pytest.raises(Refused, match="labels of one kind"):
        cifarnet.identification(rows[gallery], texts[gallery], rows[probes], labels[probes])


@pytest.mark.parametrize("top", [1, 3, 7])
def test_a_probe_has_as_many_candidates_as_are_asked_for(top):
    random = np.random.default_rng(4)
    gallery, probes = random.standard_normal((9, 16)), random.standard_normal((20, 16))
    found = cifarnet.identification(gallery, np.arange(9), probes, np.arange(20) % 12, fpir=(), top=top).searches
    cosines = cosine_similarity(probes, gallery)
    np.testing.assert_array_equal(found.candidates, np.argsort(-cosines, axis=1)[:, :top])
    np.testing.assert_allclose(found.scores, -np.sort(-cosines, axis=1)[:, :top], atol=1e-6)


def test_the_page_shows_what_its_code_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "identification.md").read_text(encoding="utf-8")
    [code], [shown] = (
        re.findall(r"```python\n(.*?)```", page, re.DOTALL),
        re.findall(r"```text\n(.*?)```", page, re.DOTALL),
    )
    exec(code, {})
    assert capsys.readouterr().out == shown


def test_a_labelled_set_is_divided():
    labels = np.repeat(np.arange(10), 7)
    gallery, probes = divide(labels, images=3, strangers=0.4, seed=5)
    assert sorted([*gallery, *probes]) == list(range(70))
    counts = np.bincount(labels[gallery], minlength=10)
    assert sorted(counts) == [0] * 4 + [3] * 6
    assert np.array_equal(divide(labels, 3, 0.4, 5)[0], gallery) and not np.array_equal(
        divide(labels, 3, 0.4, 6)[0], gallery
    )
    assert len(divide(labels, images=50, strangers=0)[1]) == 10  # of each one is left
    with pytest.raises(Refused, match="each has one image"):
        divide(np.arange(10))


def test_a_kept_threshold_accepts_the_search_that_it_was_observed_of():
    """The same picture, embedded alone, scores 3e-7 less; where the threshold is set on these probes it is exact."""
    templates = make_templates(np.eye(3), [0, 1, 2], ["a", "b", "c"])
    found = search([[0.8, 0.6, 0.0], [0.0, 0.6, 0.8]], templates, [0, -1], 1)
    probes, best = Probes(["p", "q"], ["a", "x"], found), float(found.scores[0, 0])
    for above, point, answers, rates in (
        (3e-7, False, ["a", "c"], {"fpir": 1.0, "dir": 1.0}),
        (3e-7, True, [None, None], {"fpir": 0.0, "dir": 0.0}),
        (1e-5, False, [None, None], {"fpir": 0.0, "dir": 0.0}),
    ):
        points = (Point(0.5, best + above, 0.0, 0.0, True),) if point else ()
        kept = Gallery(templates, "0" * 64, False, 3, (), best + above)
        result = Identified(kept, probes, points, best + above, "kept in the gallery")
        assert result.answers == answers and result.at_threshold == rates
