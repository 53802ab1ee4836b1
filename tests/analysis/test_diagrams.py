"""The diagram of a network against the model's parameters and the papers' tables, boundaries against their closed forms."""

from math import acos, cos, degrees, radians, sin, sqrt

import pytest

from cifarnet.analysis.complexity import measure
from cifarnet.analysis.diagram import diagram
from cifarnet.analysis.margin_curves import margin_curve
from cifarnet.analysis.plots import margins, network
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models.classifier import build_model


def test_stages_hold_all_parameters():
    for arch in ("baseline", "resnet18", "resnet50", "speednet", "plainnet18"):
        config = TrainConfig(arch=arch)
        drawn = diagram(config, 10)
        expected = sum(parameter.numel() for parameter in build_model(config, 10).parameters())
        assert drawn.parameters == sum(stage.parameters for stage in drawn.stages) == expected, arch


def test_resnet50_is_the_papers(tmp_path):
    drawn = diagram(TrainConfig(arch="resnet50"), 10)
    blocks = [stage for stage in drawn.stages if stage.count]
    assert [stage.count for stage in blocks] == [3, 4, 6, 3]  # arXiv 1512.03385, table 1
    assert [stage.output for stage in blocks] == [(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]
    windows = [step.words for step in blocks[1].steps if step.kind == "conv"]
    assert windows == ["conv 1×1, 128", "conv 3×3, 128, /2", "conv 1×1, 512"]
    projection, identity = drawn.blocks
    assert identity.shortcut == () and [step.words for step in projection.shortcut] == ["conv 1×1, 256", "BN"]
    assert network.draw(drawn, tmp_path / "n.svg").read_text().count("Bottleneck") == 6  # four stages, two blocks
    (plain,) = diagram(TrainConfig(arch="plainnet18"), 10).blocks
    assert plain.shortcut is None


def test_boundaries_of_two_prototypes_at_a_right_angle(tmp_path):
    cosface = margin_curve("cosface", {"margin": 0.2, "scale": 30})
    arcface = margin_curve("arcface", {"margin": 0.3, "scale": 30})
    # cos t - m = sin t, and t + m = 90 degrees - t
    assert cosface.boundary == pytest.approx(degrees(acos(0.2 / sqrt(2))) - 45, abs=0.01)
    assert arcface.boundary == pytest.approx((90 - degrees(0.3)) / 2, abs=0.01)
    assert float(cosface.logit[120]) == pytest.approx(30 * (cos(radians(60)) - 0.2))
    assert margins.draw([cosface, arcface], tmp_path / "m.svg").stat().st_size > 0
    for loss in ("ce", "sphereface2", "nothing"):
        with pytest.raises(Refused, match="loss"):
            margin_curve(loss, {})


def test_boundaries_of_losses_that_keep_something():
    """AdaFace at its mean norm is CosFace; SphereFace ends at lambda 5: (5 cos t + cos 4t) / 6 = sin t below 45°."""
    adaface = margin_curve("adaface", {"margin": 0.4})
    assert adaface.boundary == pytest.approx(degrees(acos(0.4 / sqrt(2))) - 45, abs=0.01)
    sphereface = margin_curve("sphereface", {"margin": 4})
    t = radians(sphereface.boundary)
    assert sphereface.boundary < 45 and (5 * cos(t) + cos(4 * t)) / 6 == pytest.approx(sin(t), abs=5e-4)
    assert sphereface.scale == 20 and float(sphereface.logit[0]) == pytest.approx(20, abs=1e-4)


def test_windows_of_the_reports_table():
    rows = measure(TrainConfig(arch="baseline"), 10).layers
    windows = [(row.kernel, row.stride, row.padding) for row in rows]
    assert windows == [(3, 1, 0), (2, 2, 0), (3, 1, 0), (2, 2, 0), (3, 1, 0), (None,) * 3, (None,) * 3]
