"""Augmentation against torchvision, image by image with the same draw."""

import itertools

import pytest
import torch
import torchvision.transforms.functional as tvf
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.autoaugment import _apply_op

from cifarnet.data import load
from cifarnet.data.augment import autoaugment, colour_jitter
from cifarnet.data.augment import batch as augment

IDENTITY = torch.ones(3, 1), torch.zeros(3, 1)  # scale and shift that leave [0, 1]
TORCHVISION = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)


def noise(count: int, size: int = 32) -> Tensor:
    """Random images, among them grey, black, white and nearly flat ones."""
    images = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    images[0], images[1], images[2, 1:], images[3] = 0, 255, images[2, 0], images[3] % 4 + 100
    return images


def jittered(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    x = images.float().div(255)
    colour_jitter.jitter_(x.flatten(2), *colour_jitter.jitter_plan(order, factors))
    return x


@pytest.mark.parametrize("op", range(4))
def test_each_jitter_op_is_torchvisions(op):
    images = noise(64)
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(64, 1)
    factors[:, op] = torch.linspace(0.8, 1.2, 64) if op < 3 else torch.linspace(-0.1, 0.1, 64)
    order = torch.arange(4).roll(op).repeat(64, 1)
    ours = jittered(images, order, factors)
    theirs = torch.stack([TORCHVISION[op](x, float(f)) for x, f in zip(images / 255, factors[:, op], strict=True)])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-6)


def test_every_order_of_the_four_is_torchvisions():
    images, orders = noise(48), torch.tensor(list(itertools.permutations(range(4)))).repeat(2, 1)
    generator = torch.Generator().manual_seed(2)
    factors = torch.rand(48, 4, generator=generator) * torch.tensor([0.4, 0.4, 0.4, 0.2]) + torch.tensor(
        [0.8, 0.8, 0.8, -0.1]
    )
    ours = jittered(images, orders, factors)
    for image, order, factor, got in zip(images, orders.tolist(), factors.tolist(), ours, strict=True):
        x = image / 255
        for op in order:
            x = TORCHVISION[op](x, factor[op])
        torch.testing.assert_close(got, x, rtol=0, atol=1e-5)


def test_hue_of_real_colours_survives_its_whole_range():
    """Pure colours and their edges, at the limits of what the closed form allows."""
    corners = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=3)))
    for shift in (-1 / 6, -0.1, -0.05, 0.0, 0.05, 0.1, 1 / 6):
        x = corners.T.reshape(1, 3, -1).clone()
        colour_jitter.hue_(x, torch.tensor([[shift]]))
        theirs = tvf.adjust_hue(corners.T.reshape(3, 1, -1), shift)
        torch.testing.assert_close(x.view(3, 1, -1), theirs, rtol=0, atol=2e-6)


def test_crop_and_flip_are_torchvisions():
    images = noise(81 * 2)
    draws = torch.tensor(list(itertools.product(range(9), range(9), range(2))))
    top, left, flip = draws.split(1, dim=1)
    ours = augment.crop_flip(images, top, left, flip)
    for image, (y, x, mirrored), got in zip(images, draws.tolist(), ours, strict=True):
        theirs = tvf.crop(tvf.pad(image, 4), y, x, 32, 32)
        assert torch.equal(got, tvf.hflip(theirs) if mirrored else theirs)


def test_draws_cover_their_ranges():
    draws = augment.draw(100_000, seed=5, epoch=0)
    top, left, flip = augment.crop_flip_draws(draws)
    for edge in (top, left):
        torch.testing.assert_close(
            torch.bincount(edge.long().flatten()) / 1e5, torch.full((9,), 1 / 9), rtol=0, atol=5e-3
        )
    assert abs(flip.mean() - 0.5) < 5e-3
    blends, hue = colour_jitter.jitter_draws(draws)
    assert -0.1 <= hue.min() < -0.099 and 0.099 < hue.max() <= 0.1
    own = blends.view(-1, 6, 3)[:, :, 0]
    used = own[own != 1]
    assert 0.8 <= used.min() < 0.801 and 1.199 < used.max() <= 1.2
    # each image has three blends, and each of the four places of the hue is as likely
    assert int((own != 1).sum(1).max()) == 3
    torch.testing.assert_close(
        torch.bincount((own[:, :3] != 1).sum(1)) / 1e5, torch.full((4,), 0.25), rtol=0, atol=1e-2
    )
    nearly_one = torch.full((1, 8), 1 - 2**-24)
    assert augment.crop_flip_draws(nearly_one)[0].item() == 8
    assert torch.isfinite(colour_jitter.jitter_draws(nearly_one)[0]).all()


def test_each_choice_has_a_number_of_its_own():
    """Changing one of the eight numbers changes one choice: no two choices are correlated."""

    def choices(draws: Tensor) -> list[float]:
        top, left, flip = augment.crop_flip_draws(draws)
        blends, hue = colour_jitter.jitter_draws(draws)
        order = int((blends.view(6, 3)[:3, 0] != 1).sum())  # how many ops come before the hue
        own, grey, mean = blends.view(6, 3).unbind(1)
        light, strong, rich = own[(own != 1) & (grey == 0) & (mean == 0)], mean.sum(), grey.sum()
        return [float(x) for x in (top, left, flip, order, light, strong, rich, hue)]

    base = torch.full((1, 8), 0.1)
    for column in range(8):
        draws = base.clone()
        draws[0, column] = 0.9
        changed = [i for i, (a, b) in enumerate(zip(choices(base), choices(draws), strict=True)) if a != b]
        assert changed == [column]


@pytest.mark.parametrize("policy", augment.POLICIES)
@pytest.mark.parametrize("cutout", [0, 8])
def test_what_is_off_is_neither_drawn_nor_worked_out(policy, cutout, monkeypatch):
    """And what is on gets the numbers that it always got, whatever else is on."""
    purposes, worked_out = [], []
    whole, generator_for = augment.draw(50, 3, 2), augment.generator_for
    monkeypatch.setattr(augment, "generator_for", lambda name, *key: purposes.append(name) or generator_for(name, *key))
    for name in ("crop_flip_draws", "jitter_draws"):
        function = getattr(augment, name)
        note = lambda *given, name=name, function=function: worked_out.append(name) or function(*given)  # noqa: E731
        monkeypatch.setattr(augment, name, note)
    draws = augment.draw(50, 3, 2, policy, cutout)
    assert purposes == ["augment"] * (policy != "none") + ["cutout"] * (cutout > 0)
    few = augment.augment(policy, noise(50), draws, *IDENTITY, cutout)
    assert worked_out == ["crop_flip_draws"] * (policy != "none") + ["jitter_draws"] * (policy == "report")
    assert torch.equal(few, augment.augment(policy, noise(50), whole, *IDENTITY, cutout))


def test_draws_depend_on_seed_and_epoch_alone():
    assert torch.equal(augment.draw(10, 1, 2), augment.draw(10, 1, 2))
    assert torch.equal(augment.draw(10, 1, 2), augment.draw(20, 1, 2)[:10])
    different = [augment.draw(10, *key) for key in ((1, 2), (2, 1), (1, 3), (0, 2))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(different, 2))


@pytest.mark.parametrize("name", sorted({op for policy in autoaugment.SUBPOLICIES for op, _, _ in policy}))
def test_autoaugment_operation_is_torchvisions(name):
    """At every level the policy uses, in both signs, on noise and on real images."""
    images = torch.cat([noise(24), load("digits").test.images[:24]])
    levels = {level for policy in autoaugment.SUBPOLICIES for op, _, level in policy if op == name}
    space = AutoAugment(AutoAugmentPolicy.CIFAR10)._augmentation_space(10, (32, 32))[name][0]
    for level, sign in itertools.product(levels, (1, -1)):
        if sign == -1 and name not in autoaugment.SIGNED:
            continue
        theirs = 0.0 if level is None else sign * float(space[level])
        magnitude = sign * autoaugment.magnitudes(name, torch.Size((32, 32)))[level or 0]
        ours = autoaugment.OPERATIONS[name](images, magnitude.expand(len(images)).view(-1, 1, 1, 1))
        for image, got in zip(images, ours, strict=True):
            assert torch.equal(got, _apply_op(image, name, theirs, tvf.InterpolationMode.NEAREST, None)), (level, sign)


def test_autoaugment_policy_is_torchvisions(monkeypatch):
    """The table, and whole sub-policies under given draws."""
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    assert tuple(policy.policies) == autoaugment.SUBPOLICIES
    generator = torch.Generator().manual_seed(3)
    draws = torch.rand(400, 5, generator=generator)
    images = noise(400)
    ours = autoaugment.autoaugment(images.clone(), draws)
    for image, (choice, first, second, *signs), got in zip(images, draws.tolist(), ours, strict=True):
        params = int(choice * 25), torch.tensor([first, second]), torch.tensor([0 if s < 0.5 else 1 for s in signs])
        monkeypatch.setattr(AutoAugment, "get_params", staticmethod(lambda _, params=params: params))
        assert torch.equal(got, policy(image)), params


def test_autoaugment_is_crop_flip_then_a_sub_policy_of_draws_of_its_own(monkeypatch):
    policy, images, draws = AutoAugment(AutoAugmentPolicy.CIFAR10), noise(200), augment.draw(200, 7, 0)
    top, left, flip = augment.crop_flip_draws(draws)
    ours = augment.augment("autoaugment", images.clone(), draws, *IDENTITY)
    for i, (choice, first, second, *signs) in enumerate(draws[:, 3:8].tolist()):
        x = tvf.crop(tvf.pad(images[i], 4), int(top[i]), int(left[i]), 32, 32)
        params = int(choice * 25), torch.tensor([first, second]), torch.tensor([0 if s < 0.5 else 1 for s in signs])
        monkeypatch.setattr(AutoAugment, "get_params", staticmethod(lambda _, params=params: params))
        torch.testing.assert_close(ours[i], policy(tvf.hflip(x) if flip[i] else x) / 255, rtol=0, atol=1e-6)


def test_report_policy_is_crop_flip_jitter_then_normalise():
    """`augment` as a whole, against its parts, over several cache blocks."""
    images, draws = noise(200), augment.draw(200, 7, 0)
    scale, shift = torch.tensor([[2.0], [3.0], [4.0]]), torch.tensor([[-1.0], [-2.0], [0.5]])
    ours = augment.augment("report", images, draws, scale, shift)
    top, left, flip = augment.crop_flip_draws(draws)
    order = colour_jitter.ORDERS[(draws[:, 3] * 24).long()]
    low, width = torch.tensor([0.8, 0.8, 0.8, -0.1]), torch.tensor([0.4, 0.4, 0.4, 0.2])
    for i in range(200):
        x = tvf.crop(tvf.pad(images[i], 4), int(top[i]), int(left[i]), 32, 32)
        x = (tvf.hflip(x) if flip[i] else x) / 255
        for op in order[i].tolist():
            x = TORCHVISION[op](x, float((low + width * draws[i, 4 : augment.DRAWS])[op]))
        torch.testing.assert_close(ours[i], x * scale[:, None] + shift[:, None], rtol=0, atol=5e-5)


def test_shift_is_a_crop_of_the_reflected_image():
    images = noise(25 * 2)
    draws = torch.tensor(list(itertools.product(range(-2, 3), range(-2, 3), range(2))))
    ours = augment.shift_flip(images, *draws.split(1, dim=1))
    for image, (down, right, mirrored), got in zip(images, draws.tolist(), ours, strict=True):
        theirs = tvf.crop(tvf.pad(image, 2, padding_mode="reflect"), down + 2, right + 2, 32, 32)
        assert torch.equal(got, tvf.hflip(theirs) if mirrored else theirs)


def test_alternate_moves_by_up_to_two_pixels_each_way():
    """Each pixel's value is its place, so that one pixel tells the shift: -2 to 2, each as often, down and right."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(5000, 3, 16, 16).contiguous()
    draws = augment.draw(5000, 3, 0, "alternate", 0)
    draws[:, 2] = 0.75  # not mirrored
    shown = (255 * augment.augment("alternate", images, draws, *IDENTITY)[:, 0, 8, 8]).round().long()
    for moved in (shown // 16 - 8, shown % 16 - 8):
        rates = torch.bincount(moved + 2, minlength=5) / 5000
        torch.testing.assert_close(rates, torch.full((5,), 0.2), rtol=0, atol=0.03)


@pytest.mark.parametrize("side", [1, 7, 16, 40])
def test_cutout_erases_the_square_around_each_centre(side):
    """Against the authors' steps, an image and a row at a time; the square is clipped at the edges."""
    images = torch.rand(120, 3, 32, 24) + 1
    centres = augment.draw(120, 3, 0)[:, augment.DRAWS :]
    ours = images.clone()
    augment.cut_out_(ours, centres, side)
    for image, (y, x), got in zip(images, centres.tolist(), ours, strict=True):
        top, left = int(y * 32) - side // 2, int(x * 24) - side // 2
        for row in range(max(top, 0), min(top + side, 32)):
            image[:, row, max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(got, image)


def test_cutout_comes_last_and_is_anywhere():
    """What is not erased is what it was without; each pixel is erased as often as its place allows."""
    images, draws = noise(4000), augment.draw(4000, 7, 0)
    shift = torch.full((3, 1), 2.0)
    plain = augment.augment("report", images, draws, torch.ones(3, 1), shift)
    cut = augment.augment("report", images, draws, torch.ones(3, 1), shift, cutout=8)
    erased = cut == 0
    assert torch.equal(erased.any(1), erased.all(1)) and torch.equal(cut[~erased], plain[~erased])
    rate = erased[:, 0].float().mean(0)
    assert rate[4:28, 4:28].sub(64 / 1024).abs().max() < 0.02 and rate[0, 0].item() == pytest.approx(
        16 / 1024, abs=0.01
    )


@pytest.mark.parametrize("policy", augment.POLICIES)
def test_any_image_size_and_a_single_image(policy):
    for count, size in ((1, 32), (3, 48), (2, 224)):
        images = noise(4, size)[-count:]
        out = augment.augment(policy, images.clone(), augment.draw(count, 0, 0), *IDENTITY)
        assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
        if policy == "none":
            assert torch.equal(out, images / 255)


@pytest.mark.parametrize("policy", augment.POLICIES)
def test_nothing_waits_for_the_device(policy):
    """A meta tensor has no values: whatever would read one back from a device (`.item()`, a mask) raises."""
    images = torch.empty(16, 3, 32, 32, dtype=torch.uint8, device="meta")
    scale = torch.ones(3, 1, device="meta")
    assert augment.augment(policy, images, augment.draw(16, 0, 0), scale, scale, 8).shape == images.shape
