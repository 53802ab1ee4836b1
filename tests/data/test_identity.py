"""The identity of data: a digest by hand from the definition, what changes it and what does not."""

import hashlib
import struct

import pytest
import torch

from cifarnet.core.class_names import Numbers
from cifarnet.data.dataset import Split
from cifarnet.data.identity import differences, identity_of, identity_of_split, parse_identity
from cifarnet.data.sources.synthetic import Identities, make_identities

CLASSES = ("cat", "dog", "ship")


def split(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 5, 7), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(3, (count,), generator=generator))


def content_of(part):
    return identity_of_split(part).content


def changed(part, index=3, label=None, pixel=None):
    images, labels = part.images.clone(), part.labels.clone()
    if label is not None:
        labels[index] = label
    if pixel is not None:
        images[index, 1, 2, 3] = pixel
    return Split(images, labels)


def test_the_digest_is_that_of_the_definition():
    part, total = split(), 0
    for image, label in zip(part.images, part.labels.tolist(), strict=True):
        pixels = hashlib.sha256(struct.pack("<II", 5, 7) + bytes(image.flatten().tolist())).digest()
        total += int.from_bytes(hashlib.sha256(struct.pack("<I", label) + pixels).digest(), "little")
    assert content_of(part) == f"{total % 2**256:064x}"


def test_order_does_not_change_it_and_a_pixel_or_a_label_does():
    part = split()
    mixed = part.subset(torch.randperm(20))
    assert content_of(mixed) == content_of(part)
    others = [changed(part, label=(int(part.labels[3]) + 1) % 3), changed(part, pixel=int(part.images[3, 1, 2, 3]) ^ 1)]
    others.append(part.subset(torch.arange(19)))
    assert len({content_of(one) for one in [part, *others]}) == 4


def test_what_differs_is_said_in_words():
    part, test = split(), split(8, seed=1)
    was = identity_of(CLASSES, part, test)
    assert differences(was, identity_of(CLASSES, part, test)) == []
    assert differences(was, identity_of(("cat", "fox", "ship"), part, test)) == ["class 1 was dog and is fox"]
    assert differences(was, identity_of((*CLASSES, "frog"), part, test)) == ["it had 3 classes and has 4"]
    fewer = identity_of(CLASSES, part.subset(torch.arange(19)), test)
    assert differences(was, fewer) == ["there were 20 training images and are 19"]
    pixel = identity_of(CLASSES, part, changed(test, pixel=int(test.images[3, 1, 2, 3]) ^ 1))
    assert differences(was, pixel) == ["the test images are others"]
    label = identity_of(CLASSES, changed(part, label=(int(part.labels[3]) + 1) % 3), test)
    assert differences(was, label) == ["the training images have other labels, or another order"]
    # In another order: also where images of one class changed places, so that the labels stand as they stood.
    first, second = (part.labels == 0).nonzero().flatten()[:2].tolist()
    swapped = list(range(20))
    swapped[first], swapped[second] = second, first
    for order in (torch.tensor(swapped), torch.arange(20).flip(0)):
        moved = identity_of(CLASSES, part.subset(order), test)
        assert differences(was, moved) == ["the training images are in another order"] and moved.digest == was.digest
        assert moved.digest_in_order != was.digest_in_order
    elsewhere = identity_of(CLASSES, part, test, source=fewer)
    assert differences(was, elsewhere) == [
        f"they were taken from the data set {was.digest} and now from {fewer.digest}"
    ]
    assert len({one.digest for one in (was, fewer, pixel, label)}) == 4


def test_as_text_and_back():
    was = identity_of(CLASSES, split(), split(8, seed=1))
    assert parse_identity(was.to_json()) == was
    for text in (None, "", "{", "[]", "{}", was.to_json().replace('"version": 2', '"version": 1'), was.to_json()[:-1]):
        assert parse_identity(text) is None
    assert parse_identity(was.to_json().replace('"images": 20', '"images": "20"')) is None


def test_data_made_by_a_formula_is_known_by_it():
    def made(**changes):
        data = make_identities(Identities(**{"classes": 10, "dim": 4, "spread": 20.0, "seed": 1} | changes))
        assert isinstance(data.classes, Numbers)
        return identity_of(data.classes, data.train, data.test)

    assert made() == made() and made() != made(seed=2) and made() != made(spread=21.0)


def test_a_split_without_identity_is_an_error():
    with pytest.raises(TypeError):
        identity_of_split(object.__new__(type("Other", (), {"labels": torch.zeros(1)})))
