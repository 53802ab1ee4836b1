"""scikit-learn's digits, the split helpers and the statistics."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cifarnet.core.errors import Refused
from cifarnet.data import Split, hold_out, load
from cifarnet.data.dataset import channel_statistics, resize_all


def test_digits_are_sklearns_in_a_fixed_stratified_split():
    data, bunch = load("digits"), load_digits()
    assert len(data.classes) == 10 and len(data.train) + len(data.test) == 1797
    assert len(data.test) / 1797 == pytest.approx(0.2, abs=0.005)
    for split in (data.train, data.test):
        assert split.images.shape[1:] == (3, 32, 32) and split.images.dtype == torch.uint8
        counts = torch.bincount(split.labels, minlength=10)
        expected = np.bincount(bunch.target) * len(split) / 1797
        assert np.abs(counts.numpy() - expected).max() <= 1
    # averaged back to 8 x 8, each image is one of theirs with its label, and all are there
    theirs = {
        tuple(image.flatten().astype(int)): label for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    native = load("digits", image_size=8)
    ours = [
        (tuple((image[0].float() * 16 / 255).round().int().flatten().tolist()), int(label))
        for split in (native.train, native.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(ours) == 1797 and all(theirs[image] == label for image, label in ours)
    assert len(set(ours)) == len(theirs)
    assert torch.equal(load("digits").test.images, data.test.images)


def test_every_fifth_image_of_a_class_is_a_test_image():
    bunch, native = load_digits(), load("digits", image_size=8)
    places = [np.flatnonzero(bunch.target == label) for label in range(10)]
    tested = sorted(itertools.chain.from_iterable(place[4::5] for place in places))
    assert native.test.labels.tolist() == bunch.target[tested].tolist()
    found = (native.test.images[:, 0].double() * 16 / 255).round()
    assert np.array_equal(found.numpy(), bunch.images[tested])


def test_enlarged_digits_are_bilinear():
    small, large = load("digits", image_size=8).test.images[:20], load("digits").test.images[:20]
    expected = torch.nn.functional.interpolate(small.double(), (32, 32), mode="bilinear")
    assert (large - expected).abs().max() <= 1


def test_mean_and_std_are_numpys():
    data = load("digits")
    pixels = data.train.images.double().numpy() / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_statistics_do_not_depend_on_the_chunks():
    images = torch.randint(0, 256, (100, 3, 5, 7), dtype=torch.uint8)
    whole = channel_statistics([images])
    assert whole == channel_statistics(images.split(7)) == channel_statistics(images.flip(0).split(1))
    mean, std = channel_statistics([torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)])
    assert mean == pytest.approx((0.2,) * 3) and std == (1.0,) * 3  # a constant channel is not divided by 0


def test_hold_out_is_stratified_seeded_and_disjoint():
    split = load("digits").train
    marked = Split(split.images, split.labels)
    train, validation = hold_out(marked, 0.1, seed=3)
    for label in range(10):
        count = int((split.labels == label).sum())
        assert int((validation.labels == label).sum()) == round(0.1 * count)
    rows = {tuple(image.flatten().tolist()) for image in train.images}
    assert not rows & {tuple(image.flatten().tolist()) for image in validation.images}
    assert len(train) + len(validation) == len(split)
    assert torch.equal(hold_out(split, 0.1, seed=3)[1].images, validation.images)
    assert not torch.equal(hold_out(split, 0.1, seed=4)[1].images, validation.images)


def test_hold_out_keeps_every_class_on_both_sides():
    split = Split(torch.zeros(5, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 1]))
    for fraction in (0.01, 0.99):
        for part in hold_out(split, fraction, 0):
            assert part.labels.unique().tolist() == [0, 1]
    with pytest.raises(Refused, match="class 0 has a single training image"):
        hold_out(split.subset(torch.tensor([0, 2, 3])), 0.5, 0)
    with pytest.raises(
        Refused, match=r"the class hen has a single training image.*; add .* a larger `subset` or a smaller"
    ):
        hold_out(split.subset(torch.tensor([0, 1, 2])), 0.5, 0, ("cat", "hen"))
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(Refused, match="not between 0 and 1"):
            hold_out(split, fraction, 0)


def test_resize_is_pillows_as_predict_resizes():
    images = torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)
    assert resize_all(images, 32) is images
    for size in (16, 48):
        for image, resized in zip(images, resize_all(images, size), strict=True):
            pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BILINEAR)
            assert np.abs(resized.permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow)).max() <= 1


def test_bad_requests_are_refused():
    for arguments, text in (
        ({"name": "mnist"}, "choose from cifar10, cifar100, digits, folder"),
        ({"name": "digits", "coarse": True}, "coarse: digits has no such option"),
        ({"name": "digits", "image_size": 0}, "not a number of pixels"),
    ):
        with pytest.raises(Refused, match=text):
            load(**arguments)
