"""Degraded images: how strong, of which seed, and what is said of their scores."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms.v2 import functional as tv

from cifarnet.analysis.quality.degrade import DEGRADATIONS, degrade
from cifarnet.analysis.quality.degraded import Degraded, measure_degraded
from cifarnet.analysis.quality.scores import SCORES


def test_strengths_go_from_mild_to_strong():
    ramp = torch.arange(32, dtype=torch.float32) * 8
    images = (
        (ramp[:, None] * 0.5 + ramp.flip(0) * 0.5 + 40 * (ramp[:, None] > ramp))
        .clamp(0, 255)
        .to(torch.uint8)
        .expand(1, 3, 32, 32)
    )
    images = images.contiguous()
    for name, row in DEGRADATIONS.items():
        made = [degrade(images, name, strength, torch.Generator().manual_seed(1)) for strength in row.strengths]
        errors = [float((one.double() - images).square().mean()) for one in made]
        assert errors == sorted(errors) and errors[0] < errors[-1], name


@pytest.mark.parametrize("side", [16, 64, 96])
def test_strengths_in_pixels_grow_with_the_side(side):
    images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    blurred = degrade(images, "blur", 1.0, torch.Generator())
    sigma = side / 32
    expected = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3)
    assert abs(blurred.double().numpy() - expected).max() <= 1
    small = tv.resize(images, [side // 4] * 2, tv.InterpolationMode.BILINEAR, antialias=True)  # 8 of 32
    large = tv.resize(small, [side] * 2, tv.InterpolationMode.BILINEAR, antialias=True)
    assert torch.equal(degrade(images, "resize", 8, torch.Generator()), large)


def test_another_seed_draws_other_noise():
    images = torch.full((4, 3, 8, 8), 128, dtype=torch.uint8)

    def score(chunk):
        return dict.fromkeys(SCORES, chunk.double().flatten(1).std(dim=1).numpy())

    one, again, other = (measure_degraded(images, ["noise"], score, seed)[0].values["norm"][1:] for seed in (3, 3, 4))
    assert np.array_equal(one, again) and not (one == other).any()


def test_what_is_said_of_degraded_scores_is_numpys():
    values = np.random.default_rng(8).gamma(2.0, size=(4, 101))
    row = Degraded("resize", {"norm": values}).to_dict()["scores"]["norm"]
    np.testing.assert_allclose(row["mean"], values.mean(axis=1))
    np.testing.assert_allclose(row["quartiles"], np.percentile(values, [25, 50, 75], axis=1).T)
    assert row["spread"] == pytest.approx(values[0].std())
