"""One formula of normalisation, wherever images go into a network outside the training loop."""

import torch
import torchvision.transforms.functional as tvf

from cifarnet.data.images.normalize import normalize

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)


def test_every_pixel_is_torchvisions_to_the_bit():
    """All 256 values in each channel; a batch and its images one by one; bytes and their floats in [0, 1]."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    expected = tvf.normalize(values.float() / 255, list(MEAN), list(STD))
    for images in (values, values.float() / 255, (values / 255.0).double()):
        out = normalize(images, MEAN, STD)
        assert out.dtype == torch.float32 and torch.equal(out, expected)
        assert torch.equal(torch.stack([normalize(image, MEAN, STD) for image in images]), expected)
