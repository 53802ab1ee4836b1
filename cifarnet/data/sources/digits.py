"""scikit-learn's handwritten digits: 1,797 real images that come with the package and need no download."""

import torch

from cifarnet.core.callers_random import callers_random
from cifarnet.data.dataset import Dataset, Split, make_dataset
from cifarnet.data.request import Request

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load_digits(request: Request) -> Dataset:
    """The digits as 3 equal channels, enlarged from 8 x 8 pixels to the image size, bilinear.

    The split is fixed: every fifth image of each class is a test image (20%).
    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test part.
    """
    with callers_random():
        from sklearn.datasets import load_digits as sklearn_digits  # half a second: only for those who use it

    bunch = sklearn_digits()
    grey = torch.from_numpy(bunch.images).float().mul(255 / 16)[:, None]  # its pixels are 0 to 16
    size = request.image_size
    grey = torch.nn.functional.interpolate(grey, (size, size), mode="bilinear", antialias=True)
    images = grey.round().clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)

    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None]).flatten()  # 1, 2, ... in its class
    whole, is_test = Split(images, labels), rank % 5 == 0
    train, test = whole.subset((~is_test).nonzero().flatten()), whole.subset(is_test.nonzero().flatten())
    return make_dataset("digits", CLASSES, train, test)
