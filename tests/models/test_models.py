"""The backbones: parameter counts of the report, shapes, initialisation; the blocks against torchvision's."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models import ARCHS, build_backbone
from cifarnet.models.classifier import build_model


@pytest.mark.parametrize(
    ("arch", "parameters"), [("baseline", 122_570), ("resnet18", 11_173_962), ("resnet50", 23_520_842)]
)
def test_parameters_of_the_report(arch, parameters):
    model = build_model(TrainConfig(arch=arch), 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_same_numbers_as_torchvision(arch):
    """With the imagenet stem the net is torchvision's: its weights, copied in order, give its features."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, arch)()
    theirs.fc = torch.nn.Identity()
    ours = build_backbone(arch, "imagenet")
    pairs = list(zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True))
    with torch.no_grad():
        for (_, mine), (_, other) in pairs:
            mine.copy_(other)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_plain_nets_lack_only_the_skips(arch):
    if not arch.startswith("plainnet"):
        return
    plain = build_backbone(arch).state_dict()
    resnet = build_backbone(arch.replace("plain", "res")).state_dict()
    assert {name: v.shape for name, v in plain.items()} == {
        name: v.shape for name, v in resnet.items() if "shortcut" not in name
    }


@pytest.mark.parametrize(
    ("stem", "size", "side"), [("small", 32, 16), ("cifar", 32, 32), ("imagenet", 32, 8), ("small", 45, 23)]
)
def test_stems(stem, size, side):
    net = build_backbone("resnet18", stem)
    images = torch.randn(2, 3, size, size)
    assert net.stem(images).shape == (2, 64, side, side)
    assert net(images).shape == (2, 512)


@pytest.mark.parametrize(("stem", "pooled"), [("small", True), ("cifar", False)])
def test_small_stems_by_hand(stem, pooled):
    net, images = build_backbone("resnet18", stem).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        x = F.relu(F.conv2d(images, net.stem[0].weight, padding=1) / (1 + 1e-5) ** 0.5)  # a fresh BatchNorm
        x = F.max_pool2d(x, 3, 2, 1) if pooled else x
        torch.testing.assert_close(net.stem(images), x, rtol=1e-4, atol=1e-5)


def test_initialisation():
    net = build_backbone("resnet18")
    weight = net.stages[3][1].conv1.weight  # fan-out: 512 maps of 3x3
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert not net.stages[0][0].bn2.weight.any() and net.stages[0][0].bn1.weight.all()
    assert build_backbone("plainnet18").stages[0][0].bn2.weight.all()  # zero there would cut the net in two


def test_keras_initialisation():
    model = build_model(TrainConfig(arch="baseline", init="keras"), 10)
    limit = (6 / (1024 + 64)) ** 0.5
    weight = model.backbone.fc.weight
    assert weight.abs().max().item() <= limit and weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not model.backbone.fc.bias.any() and not model.head.bias.any()


def test_kerass_initialisation_of_a_convolution():
    """Glorot: 64 maps of 3x3 in, 64 out."""
    model = build_model(TrainConfig(arch="baseline", init="keras"), 10)
    limit = (6 / (64 * 9 + 64 * 9)) ** 0.5
    weight = model.backbone.conv3.weight
    assert weight.abs().max().item() <= limit and weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not model.backbone.conv3.bias.any()


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_model(TrainConfig(arch="baseline", seed=s), 10) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("neck", ["none", "bn"])
def test_neck_and_embedding(neck):
    model = build_model(TrainConfig(arch="resnet18", neck=neck, embed_dim=3, loss="arcface"), 10)
    images = torch.randn(4, 3, 32, 32)
    assert model.features(images).shape == (4, 3)
    assert model(images).shape == (4, 10)
    assert all(module.bias is None for module in model.neck.modules() if isinstance(module, torch.nn.Linear))


@pytest.mark.parametrize(
    ("arch", "size", "option"),
    [("resnet19", 32, "^arch: "), ("baseline", 64, "^image_size: "), ("resnet18", 16, "^image_size: ")],
)
def test_what_cannot_be_built_is_refused(arch, size, option):
    with pytest.raises(Refused, match=option):
        build_backbone(arch, image_size=size)
