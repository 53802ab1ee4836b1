"""The bounds on scale and margin, against geometry: simplexes, polygons, the known best packings of the sphere."""

import math

import numpy as np
import pytest
import torch

from cifarnet.losses import MarginHead
from cifarnet.losses.auto_scale import fitting_margin, fitting_scale, least_scale, misfits, widest_angle, widest_margin
from cifarnet.losses.options import margin_options


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_least_scale_gives_the_probability_on_a_simplex(classes):
    corners = np.eye(classes) - 1 / classes
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    logits = least_scale(classes) * corners @ corners[0]
    assert np.exp(logits[0]) / np.exp(logits).sum() == pytest.approx(0.99, rel=1e-9)


@pytest.mark.parametrize("classes", [3, 10, 50])
def test_the_circle(classes):
    assert widest_angle(classes, 2) == pytest.approx(2 * math.pi / classes)
    assert widest_margin("cosface", classes, 2) == pytest.approx(1 - math.cos(2 * math.pi / classes))


@pytest.mark.parametrize("classes", [4, 10])
def test_the_simplex(classes):
    assert widest_margin("cosface", classes, 512) == pytest.approx(classes / (classes - 1))


# Tammes's problem: the largest least angle of C points on the sphere, degrees (Fejes Toth, Schutte, van der Waerden, Danzer).
TAMMES = {5: 90.0, 6: 90.0, 8: 74.8585, 10: 66.1468, 12: 63.4349, 24: 43.6908}


@pytest.mark.parametrize("classes", TAMMES)
def test_the_sphere_is_bounded_from_above_and_not_by_much(classes):
    best = math.radians(TAMMES[classes])
    assert best - 1e-9 <= widest_angle(classes, 3) <= 1.25 * best


def test_more_directions_than_a_simplex_has_leave_a_right_angle_at_most():
    """Rankin: exact for the cross-polytope's 2 D corners, and for all numbers between D + 2 and that."""
    for size, classes in ((3, 5), (3, 6), (4, 8), (64, 100), (512, 514), (512, 1024)):
        corners = np.concatenate([np.eye(size), -np.eye(size)])[:classes]
        cosines = corners @ corners.T
        assert widest_angle(classes, size) == pytest.approx(math.acos(np.triu(cosines, 1).max()))
        assert widest_margin("cosface", classes, size) == pytest.approx(1)


def test_auto_is_inside_the_bounds():
    for classes, size in ((10, 2), (10, 3), (10, 512), (1000, 512), (100_000, 16)):
        for loss in ("cosface", "arcface", "curricularface", "adaface"):
            head = MarginHead(
                size, classes, loss, scale=fitting_scale(classes), margin=fitting_margin(loss, 0.4, classes, size)
            )
            assert misfits(head.options, classes, size) == []


@pytest.mark.parametrize("loss", ["cosface", "arcface"])
@pytest.mark.parametrize("classes", [10, 1000])
def test_a_fitted_margin_at_most_doubles_the_first_loss(loss, classes):
    prototypes = torch.eye(classes, classes + 1)  # features at right angles to all of them, as at the start
    features = torch.eye(classes + 1)[-1:].expand(classes, -1)
    losses = []
    for margin in (0.0, fitting_margin(loss, 0.9, classes, classes + 1)):
        head = MarginHead(classes + 1, classes, loss, scale=fitting_scale(classes), margin=margin, backend="torch")
        head.weight.data = prototypes
        losses.append(head(features, torch.arange(classes)).item())
    assert losses[0] == pytest.approx(math.log(classes), rel=1e-5)
    assert losses[1] == pytest.approx(2 * losses[0], rel=0.03)


def test_what_cannot_be_met_is_said():
    assert "6.1" in misfits(margin_options("arcface", scale=5.0, margin=0.3), 10, 512)[0]
    assert "0.19" in misfits(margin_options("cosface"), 10, 2)[0]
    assert misfits(margin_options("cosface"), 10, 512) == []
