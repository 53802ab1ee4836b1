"""Counted costs against the report's Table 3.9, formulas written out here, and what autograd really keeps."""

import gc

import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from cifarnet.analysis.complexity import measure
from cifarnet.analysis.diagram import diagram
from cifarnet.analysis.stages import by_size, depth, described
from cifarnet.analysis.timing import measure_time
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models.classifier import build_model

# Table 3.9: parameters, "TMACs" (in truth GMACs of two images), "TFLOPs" (GFLOPs of two images).
TABLE_3_9 = {
    "baseline": (122_570, 0.0091, 0.0184),
    "resnet18": (11_173_962, 0.2804, 0.5621),
    "resnet50": (23_520_842, 0.6516, 1.3086),
}
COUNTED = {"baseline": 0.0090972, "resnet18": 0.2803732, "resnet50": 0.6515999}


@pytest.mark.parametrize("arch", TABLE_3_9)
def test_table_3_9(arch):
    cost = measure(TrainConfig(arch=arch), 10, batch=2)
    parameters, gmacs, _ = TABLE_3_9[arch]
    assert cost.parameters == parameters
    assert f"{cost.macs / 1e9:.4f}" == f"{gmacs:.4f}"
    assert f"{cost.macs / 1e9:.7f}" == f"{COUNTED[arch]:.7f}"
    assert cost.flops == 2 * cost.macs


@pytest.mark.parametrize("arch", ["speednet", "resnet50", "plainnet34", "baseline"])
@pytest.mark.parametrize("neck", ["none", "bn"])
def test_the_layers_have_all_parameters(arch, neck):
    cost = measure(TrainConfig(arch=arch, loss="arcface", neck=neck, embed_dim=8 if neck == "bn" else 0), 10)
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters


def test_ratios_of_table_3_9():
    baseline = measure(TrainConfig(arch="baseline"), 10)
    ratios = [measure(TrainConfig(arch=arch), 10).to_dict(baseline)["parameters_ratio"] for arch in COUNTED]
    assert [round(ratio) for ratio in ratios] == [1, 91, 192]


def conv_macs(channels, out, size, kernel):
    return channels * out * kernel * kernel * size * size


def test_baseline_layers_by_hand():
    cost = measure(TrainConfig(arch="baseline"), 10, batch=3)
    expected = {
        "backbone.conv1": conv_macs(3, 32, 30, 3),
        "backbone.conv2": conv_macs(32, 64, 13, 3),
        "backbone.conv3": conv_macs(64, 64, 4, 3),
        "backbone.fc": 1024 * 64,
        "head": 64 * 10,
    }
    computes = [layer for layer in cost.layers if layer.macs]
    assert {layer.name: layer.macs for layer in computes} == {name: 3 * macs for name, macs in expected.items()}
    assert {layer.name: layer.parameters for layer in cost.layers}["head"] == 650
    assert [layer.output for layer in computes] == [(32, 30, 30), (64, 13, 13), (64, 4, 4), (64,), (10,)]
    windows = [(layer.kernel, layer.stride, layer.padding) for layer in cost.layers if layer.kernel]
    assert windows == [(3, 1, 0), (2, 2, 0), (3, 1, 0), (2, 2, 0), (3, 1, 0)]  # the report's Table 2.1
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters


def test_resnet18_by_hand():
    """Every convolution of ResNet-18 at 32 pixels with the small stem, and the head."""
    macs = conv_macs(3, 64, 32, 3) + 4 * conv_macs(64, 64, 16, 3)
    for width, size in ((128, 8), (256, 4), (512, 2)):
        macs += conv_macs(width // 2, width, size, 3) + 3 * conv_macs(width, width, size, 3)
        macs += conv_macs(width // 2, width, size, 1)
    assert measure(TrainConfig(arch="resnet18"), 10).macs == macs + 512 * 10


class ElementCounter(TorchDispatchMode):
    """FLOPs of what has no weights: BatchNorm 2, ReLU 1 and pooling 1 an element that goes in."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        each = {"native_batch_norm": 2, "relu": 1, "max_pool2d_with_indices": 1, "mean": 1}.get(name, 0)
        self.flops += each * args[0].numel() if each else 0
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("arch", TABLE_3_9)
def test_the_reports_flops_count_elements_too(arch):
    cost = measure(TrainConfig(arch=arch), 10, batch=2)
    model = build_model(TrainConfig(arch=arch), 10).eval()
    with ElementCounter() as counter, torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    assert (cost.flops + counter.flops) / 1e9 == pytest.approx(TABLE_3_9[arch][2], abs=1e-4)


# The report's Table 3.1, which is that of arXiv 1512.03385: blocks in each stage.
TABLE_3_1 = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def test_stages_are_those_of_the_paper_and_of_torchvision():
    networks = [
        diagram(TrainConfig(arch=f"resnet{number}", stem="imagenet", image_size=224), 1000) for number in TABLE_3_1
    ]
    assert [size for size, _ in by_size(networks)] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7), ()]
    assert [depth(network) for network in networks] == list(TABLE_3_1)
    for number, network in zip(TABLE_3_1, networks, strict=True):
        with torch.device("meta"):
            theirs, images = getattr(torchvision.models, f"resnet{number}")(), torch.empty(1, 3, 224, 224)
        x = theirs.maxpool(theirs.conv1(images))
        ours = [stage for stage in described(network) if stage["blocks"]]
        assert tuple(stage["blocks"] for stage in ours) == TABLE_3_1[number]
        for index, stage in enumerate(ours, start=1):
            blocks = getattr(theirs, f"layer{index}")
            x = blocks(x)
            convs = [one for name, one in blocks[0].named_children() if name.startswith("conv")]
            found = [layer for layer in stage["layers"] if layer["kernel"]]
            assert [(layer["kernel"], layer["output"][0]) for layer in found] == [
                (conv.kernel_size[0], conv.out_channels) for conv in convs
            ]
            assert len(blocks) == stage["blocks"] and stage["output"] == tuple(x.shape[1:])
            assert stage["parameters"] == sum(parameter.numel() for parameter in blocks.parameters())
    small = diagram(TrainConfig(arch="baseline"), 10)  # the report's Table 2.1: three convolutions and two dense layers
    assert depth(small) == 5 and by_size([small])[0][0] == (30, 30)


def test_operators_without_a_formula_are_listed():
    assert measure(TrainConfig(arch="baseline"), 10).uncounted == {"relu": 4, "max_pool2d_with_indices": 2}
    resnet = measure(TrainConfig(arch="resnet18"), 10).uncounted
    assert resnet["native_batch_norm"] == 20 and resnet["add"] == 8


def test_activations_of_the_baseline_by_hand():
    """Kept for backward: the input, each ReLU's and pool's output (fp32), and the pools' indices (int64)."""
    floats = 3 * 32**2 + 32 * 30**2 + 32 * 15**2 + 64 * 13**2 + 64 * 6**2 + 64 * 4**2 + 64
    indices = 32 * 15**2 + 64 * 6**2
    for batch in (1, 2, 7):
        expected = batch * (4 * floats + 8 * indices)
        assert measure(TrainConfig(arch="baseline"), 10, batch).activation_bytes == expected


def test_margin_head_and_embedding_are_counted():
    cost = measure(TrainConfig(arch="baseline", loss="arcface", embed_dim=3), 10)
    layers = {layer.name: layer for layer in cost.layers}
    assert layers["neck"].macs == 64 * 3 and layers["head"].macs == 3 * 10
    assert layers["head"].parameters == 30


def test_counting_leaves_torch_as_it_was():
    before = torch.random.get_rng_state()
    measure(TrainConfig(arch="resnet50"), 10)
    assert torch.equal(before, torch.random.get_rng_state())
    assert type(torch.zeros(1)) is torch.Tensor


def test_counting_again_and_again_keeps_nothing():
    """A tensor that a hook returns for itself is a cycle through C++, which no garbage collector of Python's sees."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(one), FakeTensor) for one in gc.get_objects())  # isinstance would ask lazy modules

    measure(TrainConfig(), 10)
    before = tensors()
    for _ in range(3):
        measure(TrainConfig(), 10)
    assert tensors() == before


def test_bad_size_is_refused():
    with pytest.raises(Refused, match="32x32"):
        measure(TrainConfig(arch="baseline", image_size=64), 10)


def test_time_is_that_of_the_passes():
    timing = measure_time(TrainConfig(arch="baseline"), 10, 4, torch.device("cpu"), "fp32", seconds=0.05)
    assert timing.repeats >= 5
    assert timing.images_per_second == pytest.approx(4 / (timing.milliseconds / 1000))
