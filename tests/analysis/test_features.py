"""Feature maps against a forward pass by hand, receptive fields against gradients, class maps against formula and captum."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifarnet.analysis.cam import class_map, upsample
from cifarnet.analysis.deletion import DRAWS, STEPS, Eraser
from cifarnet.analysis.features import embed, feature_maps, layers_with_places, record
from cifarnet.analysis.receptive_field import ReceptiveField
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data.images.normalize import normalize
from cifarnet.models import ARCHS
from cifarnet.models.classifier import build_model


def model_of(arch, **options):
    return build_model(TrainConfig(arch=arch, **options), 10).eval()


@pytest.fixture
def image():
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_baseline_maps_by_hand(image):
    model = model_of("baseline")
    net, x, expected = model.backbone, image[None], {}
    with torch.no_grad():
        expected["relu1"] = F.conv2d(x, net.conv1.weight, net.conv1.bias).clamp(min=0)
        expected["max_pool1"] = expected["relu1"].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        expected["relu2"] = F.conv2d(expected["max_pool1"], net.conv2.weight, net.conv2.bias).clamp(min=0)
        expected["max_pool2"] = expected["relu2"].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        expected["relu3"] = F.conv2d(expected["max_pool2"], net.conv3.weight, net.conv3.bias).clamp(min=0)
    maps = feature_maps(model, image, ARCHS["baseline"].feature_layers)
    assert [one.name for one in maps] == list(expected)
    for one in maps:
        torch.testing.assert_close(one.values, expected[one.name][0], msg=one.name)


def test_resnet_maps_by_hand(image):
    model = model_of("resnet18")
    maps = {one.name: one.values for one in feature_maps(model, image, ARCHS["resnet18"].feature_layers)}
    assert list(maps) == ["stem"] + [f"stages.{stage}.{block}" for stage in range(4) for block in range(2)]
    with torch.no_grad():
        x = model.backbone.stem(image[None])
        torch.testing.assert_close(maps["stem"], x[0])
        for stage in range(4):
            for block in range(2):
                x = model.backbone.stages[stage][block](x)
                torch.testing.assert_close(maps[f"stages.{stage}.{block}"], x[0])


def test_named_layers_come_in_the_order_asked_for(image):
    maps = feature_maps(model_of("resnet18"), image, ["stages.1.0.conv1", "stem.0"])
    assert [(one.name, one.kind) for one in maps] == [("stages.1.0.conv1", "Conv2d"), ("stem.0", "Conv2d")]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_layers_of_a_row_are_there(arch):
    """And the maps that are looked into have places, at the smallest image and under the coarsest stem."""
    layers = list(ARCHS[arch].feature_layers)
    for options in ({}, {"stem": "imagenet"}) if "stem" in ARCHS[arch].options else ({},):
        model = model_of(arch, **options)
        maps, _ = record(model, torch.zeros(1, 3, 32, 32))
        assert [name for name in maps if name in layers] == layers
        places = [name for name in layers if maps[name].values.shape[2] * maps[name].values.shape[3] > 1]
        assert layers_with_places(model, 32, layers) == places
        assert (places == layers) == (not options)  # 32 pixels, halved five times: the last stage has one


def test_a_map_of_one_pixel_is_refused(image):
    model = model_of("speednet")
    with pytest.raises(Refused, match=r"'max_pool1' has a single pixel.*choose from .*groups\.2"):
        class_map(model, image, 0, "max_pool1")
    with pytest.raises(Refused, match="has a single pixel"):
        feature_maps(model, image, ["max_pool1"])


def test_recording_leaves_nothing_behind(image):
    model = model_of("baseline")
    feature_maps(model, image, ["relu1"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_unknown_layer_lists_the_layers(image):
    with pytest.raises(Refused, match="conv1, relu1, max_pool1, conv2"):
        feature_maps(model_of("baseline"), image, ["conv9"])


def probed_field(model, name, size, unit):
    """First and last input row and column that the unit's value depends on, over many random images."""
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)  # all paths count
        if isinstance(module, torch.nn.BatchNorm2d) and module.affine:
            torch.nn.init.ones_(module.weight)
    images = torch.rand(24, 3, size, size, requires_grad=True)
    maps, _ = record(model, images)
    maps[name].values[:, :, unit, unit].sum().backward()
    seen = (images.grad.abs().sum(dim=(0, 1)) > 0).nonzero()
    return seen.min(dim=0).values.tolist(), seen.max(dim=0).values.tolist(), maps[name].field


@pytest.mark.parametrize(
    ("arch", "options", "size", "name", "unit"),
    [
        ("baseline", {}, 32, "relu1", 4),
        ("baseline", {}, 32, "max_pool1", 4),
        ("baseline", {}, 32, "relu2", 3),
        ("baseline", {}, 32, "max_pool2", 2),
        ("baseline", {}, 32, "relu3", 1),
        ("resnet18", {}, 64, "stem", 12),
        ("resnet18", {}, 64, "stages.0.0", 12),
        ("resnet18", {}, 64, "stages.0.1", 12),
        ("resnet18", {}, 80, "stages.1.0", 9),
        ("resnet18", {"stem": "imagenet"}, 96, "stem", 10),
        ("plainnet18", {"stem": "cifar"}, 40, "stages.1.0", 9),
        ("resnet50", {}, 48, "stages.0.1", 10),
        ("speednet", {}, 32, "whitening", 5),
        ("speednet", {}, 32, "groups.0", 6),
    ],
)
def test_receptive_fields_against_a_gradient_probe(arch, options, size, name, unit):
    torch.manual_seed(0)
    model = model_of(arch, **options)
    first, last, field = probed_field(model, name, size, unit)
    centre = field.start + unit * field.step
    low, high = centre - (field.size - 1) / 2, centre + (field.size - 1) / 2
    assert first == [max(low, 0)] * 2 and last == [min(high, size - 1)] * 2


def test_a_sum_sees_what_both_branches_see():
    narrow, wide = ReceptiveField(3, 2, 4.0), ReceptiveField(9, 2, 4.0)
    assert narrow.joined(wide) == wide == wide.joined(narrow)
    assert ReceptiveField(3, 1, 0.0).joined(ReceptiveField(3, 1, 4.0)) == ReceptiveField(7, 1, 2.0)


@pytest.mark.parametrize("loss", ["ce", "arcface"])
def test_class_maps_by_their_formulas(image, loss):
    """arXiv 1610.02391 eq. 1 and 2, doi 10.1109/TIP.2021.3089943 eq. 4 to 6, pixel by pixel in float64."""
    model = model_of("baseline", loss=loss).double()
    net, image = model.backbone, image.double()
    with torch.no_grad():
        x = F.max_pool2d(F.relu(net.conv1(image[None])), 2)
        x = F.max_pool2d(F.relu(net.conv2(x)), 2)
    maps = F.relu(net.conv3(x)).detach().requires_grad_()
    logits = model.head.logits(F.relu(net.fc(maps.flatten(1))))
    for target in (0, 7):
        (gradient,) = torch.autograd.grad(logits[0, target], maps, retain_graph=True)
        g, a = gradient[0].numpy(), maps[0].detach().numpy()
        by_layer = np.array(
            [[sum(max(g[k, i, j], 0) * a[k, i, j] for k in range(64)) for j in range(4)] for i in range(4)]
        )
        expected = {"grad-cam": sum(g[k].mean() * a[k] for k in range(64)).clip(0), "layer-cam": by_layer.clip(0)}
        for method, heat in expected.items():
            ours = class_map(model, image, target, "relu3", method).numpy()
            np.testing.assert_allclose(ours, heat, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("arch", "layer"), [("baseline", "conv3"), ("resnet18", "stages.2.1"), ("speednet", "groups.2")]
)
def test_class_maps_against_captum(image, arch, layer):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    from captum._utils.gradient import compute_layer_gradients_and_eval

    model, image = model_of(arch).double(), image.double()
    module = model.backbone.get_submodule(layer)
    theirs = captum.LayerGradCam(model, module).attribute(image[None], target=3, relu_attributions=True)
    torch.testing.assert_close(class_map(model, image, 3, layer), theirs[0, 0].detach().float(), rtol=1e-5, atol=1e-9)
    (gradient,), (maps,), *_ = compute_layer_gradients_and_eval(model, module, image[None], 3)
    expected = (gradient.clamp(min=0) * maps).sum(dim=1)[0].clamp(min=0).detach().float()
    torch.testing.assert_close(class_map(model, image, 3, layer, "layer-cam"), expected, rtol=1e-5, atol=1e-9)


def test_class_map_of_a_frozen_model(image):
    model = model_of("baseline").requires_grad_(False)
    assert class_map(model, image, 0, "relu3").shape == (4, 4)


def test_deletion_against_captum(image):
    """FeatureAblation tells what the probability loses as the first n pixels become 0; and the areas by scikit-learn."""
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    from sklearn.metrics import auc

    model = model_of("baseline", loss="arcface")
    heat = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(1)).view(32, 32).float()
    eraser = Eraser(model, image, (4, 4))
    found = eraser.score(heat, 4)

    def curve(order):
        """The class's probability without the first n of the pixels in this order."""
        ablation = captum.FeatureAblation(lambda images: model(images).softmax(dim=1))
        with torch.no_grad():
            whole, values = model(image[None]).softmax(dim=1)[0, 4].item(), []
            for count in range(0, 32 * 32 + 1, 32 * 32 // STEPS):
                mask = torch.zeros(32 * 32, dtype=torch.int64)
                mask[order[:count]] = 1
                mask = mask.view(1, 1, 32, 32)
                lost = ablation.attribute(image[None], target=4, baselines=0, feature_mask=mask)
                lost = lost[0, 0][mask[0, 0] == 1]
                values.append(whole - (lost[0].item() if len(lost) else 0.0))
        return values

    np.testing.assert_allclose(found.probabilities, curve(heat.flatten().argsort(descending=True)), atol=1e-6)
    np.testing.assert_allclose(found.random[2], curve(eraser.orders[2]), atol=1e-6)
    removed = np.linspace(0, 1, STEPS + 1)
    assert found.area == pytest.approx(auc(removed, found.probabilities), abs=1e-9)
    assert len(found.random) == len(found.random_maps) == DRAWS
    for name, curves in (("random", found.random), ("random_map", found.random_maps)):
        areas = [auc(removed, one) for one in curves]
        assert found.to_dict()[f"{name}_areas"] == pytest.approx(areas, abs=1e-9)
        assert found.to_dict()[f"{name}_area"] == pytest.approx(np.mean(areas), abs=1e-9)
    # A map without heat says nothing: it is as good as a random order.
    assert eraser.score(torch.zeros(32, 32), 4).area == found.areas(found.random)[0]


def test_random_orders_and_maps_differ_and_their_curves_are_averaged():
    model = build_model(TrainConfig(arch="baseline"), 10).eval()
    eraser = Eraser(model, torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)), (4, 4))
    assert len({tuple(order.tolist()) for order in eraser.orders}) == DRAWS
    found = eraser.score(torch.rand(32, 32), 4)
    for name, curves in (("random", found.random), ("random_map", found.random_maps)):
        assert len(set(found.to_dict()[f"{name}_areas"])) == DRAWS
        np.testing.assert_allclose(found.to_dict()[f"{name}_probabilities"], curves.numpy().mean(axis=0))


def test_deletion_of_a_network_that_counts_pixels():
    """The probability by arithmetic: a network whose logit is the sum of its pixels, of an image of any size."""

    class Counter(torch.nn.Module):
        def forward(self, images):
            return torch.stack([images.sum(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1)

    image = torch.full((3, 33, 33), 1 / 3 / 100)  # a pixel is worth 0.01
    found = Eraser(Counter(), image, (2, 2)).score(torch.zeros(33, 33), 0)
    left = 1089 - np.round(np.linspace(0, 1089, STEPS + 1))
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-0.01 * left)), atol=1e-5)
    np.testing.assert_allclose(found.removed, 1 - left / 1089)


def test_upsampled_heat_ends_at_one():
    heat = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    large = upsample(heat, 8)
    assert large.shape == (8, 8) and large.max() == 1 and large[0, 7] == 1 and large[7, 0] == 0
    assert upsample(torch.zeros(2, 2), 8).max() == 0


def test_heat_is_enlarged_between_the_middles_of_its_pixels():
    """The middle of a pixel of 4 lies at -1/4, 1/4, 3/4, 5/4 of 2: beyond the outer middles the value stays."""
    across = torch.tensor([0.0, 0.25, 0.75, 1.0])
    found = upsample(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), 4)
    torch.testing.assert_close(found, across.flip(0)[:, None] * across)


def test_normalized_as_stated():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    out = normalize(image, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    expected = [(0 - 0.1) / 0.5, (128 / 255 - 0.2) / 0.25, (1 - 0.3) / 2]
    torch.testing.assert_close(out[:, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize("loss", ["ce", "cosface"])
def test_embeddings_are_those_of_the_model(loss):
    model = model_of("baseline", loss=loss, embed_dim=3)
    images, labels = torch.randn(10, 3, 32, 32), torch.arange(10)
    found = embed(model, [(images[:6], labels[:6]), (images[6:], labels[6:])], torch.device("cpu"), "fp32")
    with torch.no_grad():
        torch.testing.assert_close(found.features, model.features(images))
        # in the same batches: another size may sum in another order, and the scale of 64 magnifies that rounding
        torch.testing.assert_close(found.logits, torch.cat([model(images[:6]), model(images[6:])]))
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.predictions, model(images).argmax(1))
