"""The pictures that an exported file is checked on come from all of the split."""

import numpy as np

from cifarnet.analysis.export import images
from cifarnet.analysis.export.images import pictures_of, spread_over
from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.models.classifier import build_model
from cifarnet.models.model_info import ModelInfo


def test_places_are_evenly_spread():
    assert spread_over(30_000, 32, 10_000).tolist() == list(range(0, 30_000, 3))
    assert spread_over(7, 32, 10_000).tolist() == list(range(7))
    steps = np.diff([*spread_over(1797, 32, 500).tolist(), 1797])
    assert len(steps) == 500 and set(steps) == {3, 4}
    large = spread_over(30_000, 1024, 10_000)  # 64 of them have as many pixels as may be held
    assert len(large) == 64 and large[-1] > 29_000


def test_the_pictures_are_those_at_these_places(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "CHECKED", 71)  # of 355
    monkeypatch.setattr(images, "FITTED", 100)
    digits, config = load("digits"), TrainConfig(arch="baseline", dataset="digits", precision="fp32")
    info = ModelInfo(config, digits.classes, digits.mean, digits.std)
    checked, fitted = pictures_of(tmp_path / "x.safetensors", build_model(config, 10), info, None, fit=True)
    np.testing.assert_array_equal(checked.images, digits.test.images[::5].permute(0, 2, 3, 1))
    assert checked.labels.tolist() == digits.test.labels[::5].tolist()
    places = [number * len(digits.train) // 100 for number in range(100)]
    np.testing.assert_array_equal(fitted, digits.train.images[places].permute(0, 2, 3, 1))
