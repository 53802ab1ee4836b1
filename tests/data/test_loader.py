"""Batches: their order, their draws, and what they do not depend on."""

import itertools

import pytest
import torch
import torchvision.transforms.functional as tvf
from torch.utils._python_dispatch import TorchDispatchMode

from cifarnet.data import Loader, Split, load
from cifarnet.data.augment.batch import POLICIES
from cifarnet.data.sources.synthetic import Identities, make_identities

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def numbered(count: int) -> Split:
    """Image i is filled with i, and has the label i."""
    values = torch.arange(count)
    return Split(values.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), values)


def make(split: Split, batch_size: int = 10, **options) -> Loader:
    return Loader(split, batch_size, "cpu", mean=MEAN, std=STD, **options)


def test_evaluation_gives_every_image_once_in_order_normalised_as_torchvision_does():
    split = load("digits").test
    loader = make(split, 100, shuffle=False)
    images, labels = zip(*loader.epoch(0), strict=True)
    assert len(images) == len(loader) == 4 and images[0].dtype == torch.float32
    assert torch.equal(torch.cat(labels), split.labels)
    torch.testing.assert_close(torch.cat(images), tvf.normalize(split.images / 255, MEAN, STD), rtol=0, atol=1e-6)


def test_each_epoch_is_a_permutation_with_labels_that_belong_to_their_images():
    loader = make(numbered(95))
    orders = []
    for epoch in range(3):
        images, labels = (torch.cat(part) for part in zip(*loader.epoch(epoch), strict=True))
        assert sorted(labels.tolist()) == list(range(95))
        pixels = (images[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255
        assert torch.equal(pixels.round().long(), labels)
        orders.append(labels.tolist())
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != torch.cat([y for _, y in make(numbered(95), seed=1).epoch(0)]).tolist()


@pytest.mark.parametrize("policy", POLICIES)
def test_an_epoch_entered_later_is_bitwise_the_same(policy):
    split = load("digits").train
    torch.manual_seed(0)
    whole = list(make(split, 128, augment=policy, cutout=8, seed=9).epoch(4))
    torch.manual_seed(123)  # no other generator plays a part
    list(make(split, 128, augment=policy, cutout=8, seed=9).epoch(3))
    for start in (0, 1, 7, len(whole)):
        again = list(make(split, 128, augment=policy, cutout=8, seed=9).epoch(4, start))
        assert len(again) == len(whole) - start
        for (x, y), (u, v) in zip(whole[start:], again, strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)
    other = next(iter(make(split, 128, augment=policy, cutout=8, seed=9).epoch(5)))
    assert not torch.equal(other[0], whole[0][0])


def test_alternating_flips_show_each_image_and_its_mirror_image_in_turn():
    """By image, though its position changes; images with a mark at one side tell which way they are shown."""
    pixels = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    pixels[:, :, :, 5:] = 255
    loader = make(Split(pixels, torch.arange(200)), 64, augment="alternate", seed=3)
    shown = []
    for epoch in range(6):
        images, labels = (torch.cat(part) for part in zip(*loader.epoch(epoch), strict=True))
        mirrored = images[:, 0, :, :4].sum((1, 2)) > images[:, 0, :, 4:].sum((1, 2))
        shown.append(mirrored[labels.argsort()])
    for before, after in itertools.pairwise(shown):
        assert torch.equal(before, ~after)
    assert 0.3 < shown[0].float().mean() < 0.7  # which comes first is a coin of the image
    other = make(Split(pixels, torch.arange(200)), 200, augment="alternate", seed=4)
    images, labels = next(iter(other.epoch(0)))
    again = (images[:, 0, :, :4].sum((1, 2)) > images[:, 0, :, 4:].sum((1, 2)))[labels.argsort()]
    assert not torch.equal(again, shown[0])


def test_each_epoch_draws_anew():
    loader = make(load("digits").test, 100, augment="basic", shuffle=False)
    first, second = (torch.cat([x for x, _ in loader.epoch(epoch)]) for epoch in (0, 1))
    same = (first == second).flatten(1).all(1)
    assert same.float().mean() < 0.1  # 1 in 162 has the same crop and flip again


def test_each_epoch_erases_other_squares():
    """Of white images at the same places in the order: 1 in 64 has the centre of its square where it was."""
    white = Split(torch.full((200, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(200, dtype=torch.int64))
    loader = make(white, 200, cutout=4, shuffle=False)
    first, second = (next(loader.epoch(epoch))[0] == 0 for epoch in (0, 1))
    assert first.flatten(1).any(1).all() and second.flatten(1).any(1).all()
    assert (first == second).flatten(1).all(1).float().mean() < 0.15


@pytest.mark.parametrize("options", [*({"augment": policy} for policy in POLICIES[1:]), {"cutout": 8}], ids=str)
def test_another_seed_draws_other_pixels(options):
    split = load("digits").test
    loaders = [make(split, 100, shuffle=False, seed=seed, **options) for seed in (1, 1, 2)]
    first, again, other = (next(loader.epoch(0))[0] for loader in loaders)
    assert torch.equal(first, again)
    assert (first == other).flatten(1).all(1).float().mean() < 0.1


def test_another_seed_shows_features_in_another_order():
    split = make_identities(Identities(10, 8, 20.0, 3)).train
    one, other = (torch.cat([y for _, y in make(split, 30, seed=seed).epoch(0)]).tolist() for seed in (1, 2))
    assert one != other and sorted(one) == sorted(other)


def test_features_come_in_a_new_order_each_epoch_and_an_epoch_is_entered_later():
    loader = make(make_identities(Identities(10, 8, 20.0, 3)).train, 30)
    one, other = (torch.cat([x for x, _ in loader.epoch(epoch)]) for epoch in (0, 1))
    assert not torch.equal(one, other) and torch.equal(one.sum(1).sort().values, other.sum(1).sort().values)
    whole, later = list(loader.epoch(1)), list(loader.epoch(1, 2))
    assert len(later) == len(whole) - 2
    assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(whole[2:], later, strict=True))


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    list(make(numbered(20), augment="report").epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("count", "batch", "shuffle", "sizes"), [
    (21, 10, True, [10, 10]),  # a single last image is dropped
    (21, 10, False, [10, 10, 1]),  # but never in evaluation
    (22, 10, True, [10, 10, 2]),
    (20, 10, True, [10, 10]),
    (1, 10, True, [1]),  # nor when it is all there is
    (3, 1, True, [1, 1, 1]),
    (5, 10, True, [5]),
])  # fmt: skip
def test_sizes_of_the_last_batch(count, batch, shuffle, sizes):
    loader = make(numbered(count), batch, shuffle=shuffle)
    assert [len(y) for _, y in loader.epoch(0)] == sizes and len(loader) == len(sizes)


def test_augmentation_belongs_to_the_position_not_to_the_batch_size():
    split = load("digits").train
    first, second = (
        torch.cat([x for x, _ in make(split, size, augment="basic").epoch(0)])[:1400] for size in (64, 100)
    )
    assert torch.equal(first, second)


def test_on_a_device_without_values_nothing_is_read_back():
    for policy in POLICIES:
        loader = Loader(numbered(30), 10, "meta", mean=MEAN, std=STD, augment=policy)
        assert [x.shape for x, _ in loader.epoch(0)] == [(10, 3, 8, 8)] * 3


def test_unknown_policy():
    with pytest.raises(ValueError, match="none, basic, alternate, report, autoaugment"):
        make(numbered(3), augment="strong")


class Copies(TorchDispatchMode):
    """Counts the tensors that go from the CPU to the meta device, which stands in for a GPU here."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and out.is_meta:
            self.count += any(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in args)
        return out


# Of each batch: nothing where nothing is drawn; the choices in one copy; AutoAugment's two steps, each in two more.
@pytest.mark.parametrize(
    ("policy", "cutout", "each"), [("none", 0, 0), ("none", 4, 1), ("report", 4, 1), ("autoaugment", 0, 5)]
)
def test_the_order_goes_to_the_device_once_an_epoch(policy, cutout, each):
    loader = Loader(load("digits").train, 100, "meta", mean=MEAN, std=STD, augment=policy, cutout=cutout)
    with Copies() as copies:
        batches = list(loader.epoch(0, start=3))
    assert len(batches) == len(loader) - 3 and copies.count == 1 + each * len(batches)
    assert [len(labels) for _, labels in batches] == [loader.size(batch) for batch in range(3, len(loader))]


def test_features_need_no_copy_but_that_of_their_order():
    loader = Loader(make_identities(Identities(10, 8, 20.0, 3)).train, 30, "meta", mean=MEAN, std=STD)
    with Copies() as copies:
        assert len(list(loader.epoch(0))) == 4
    assert copies.count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("policy", [*POLICIES, "features"])
def test_an_epoch_never_waits_for_the_gpu(policy):
    split = make_identities(Identities(100, 16, 20.0, 3)).train if policy == "features" else load("digits").train
    options = {} if policy == "features" else {"augment": policy, "cutout": 8}
    loaders = [Loader(split, 100, device, mean=MEAN, std=STD, **options) for device in ("cpu", "cuda")]
    list(loaders[1].epoch(0))  # what is made once
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = list(loaders[1].epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for (x, y), (u, v) in zip(loaders[0].epoch(1), there, strict=True):
        assert torch.equal(y, v.cpu())
        torch.testing.assert_close(u.cpu(), x, rtol=1e-4, atol=1e-4)
