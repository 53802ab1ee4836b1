"""The convolution of the smallest maps as a matrix product: torch's conv2d in float64, values and gradients; a plain nn.Conv2d."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifarnet.models import ARCHS, build_backbone
from cifarnet.models.conv3x3 import conv3x3

MAPS = [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_the_convolution(height, width, stride, layout):
    torch.manual_seed(0)
    layer = conv3x3(5, 7, stride).double().to(memory_format=layout)
    x = torch.randn(4, 5, height, width, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    ours, theirs = layer(x), F.conv2d(twin, weight, stride=stride, padding=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(theirs)
    ours.backward(upstream)
    theirs.backward(upstream)
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "convolutions"), [(2, 2, 0), (1, 1, 0), (3, 2, 1), (4, 4, 1)])
def test_only_maps_that_every_window_covers_become_products(height, width, convolutions):
    layer = conv3x3(5, 7)
    x = torch.randn(4, 5, height, width)
    with torch.profiler.profile() as profile:
        trained = layer(x)
    assert sum(event.name == "aten::conv2d" for event in profile.events()) == convolutions
    torch.testing.assert_close(trained, layer.eval()(x))


def test_bf16_is_as_near_to_float64_as_the_library():
    torch.manual_seed(0)
    layer = conv3x3(64, 64)
    x = torch.randn(32, 64, 2, 2)
    exact = F.conv2d(x.double(), layer.weight.double(), padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), layer.eval()(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert (ours - exact).abs().max() <= 1.5 * (theirs - exact).abs().max()


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch != "speednet"])  # whose first layer is its own
def test_a_counter_that_knows_exact_classes_sees_every_mac(arch):
    """As thop and ptflops do: a hook on each module whose class is one of torch's own. Training, where the fast path is."""
    counted = []

    def count(module, inputs, output):
        taps = module.weight[0].numel()  # multiplications for each number of the output
        counted.append(taps * output.numel())

    net = build_backbone(arch).train()
    for module in net.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.register_forward_hook(count)
    with FlopCounterMode(display=False) as torchs, torch.no_grad():
        net.eval()(torch.zeros(2, 3, 32, 32))
    assert sum(counted) == torchs.get_total_flops() / 2
    counted.clear()
    net.train()(torch.zeros(2, 3, 32, 32))
    assert sum(counted) == torchs.get_total_flops() / 2


def test_resnet18_has_its_known_macs():
    """By hand: 4 stages of maps 16, 8, 4, 2 with 64, 128, 256, 512 channels, 4 convolutions each; stem; 1x1 shortcuts."""
    macs = 9 * 3 * 64 * 32**2  # the stem
    for stage, side in enumerate((16, 8, 4, 2)):
        width = 64 * 2**stage
        first = width if stage == 0 else width // 2
        macs += 9 * width * side**2 * (first + 3 * width) + (0 if stage == 0 else first * width * side**2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_backbone("resnet18").eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2 == macs


def test_it_is_torchs_own_class_and_prints_and_saves_as_one():
    layer, plain = conv3x3(5, 7, 2), nn.Conv2d(5, 7, 3, 2, padding=1, bias=False)
    assert type(layer) is nn.Conv2d and repr(layer) == repr(plain)
    assert layer.state_dict().keys() == plain.state_dict().keys() == {"weight"}
    assert not any(type(module).__name__ == "Conv3x3" for module in build_backbone("resnet18").modules())
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 5, 2, 2)
    torch.testing.assert_close(layer(x), plain(x))


def pickled(layer):
    """Saved whole and read again."""
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_has_its_own_weight_and_mode(duplicate):
    layer, x = conv3x3(5, 7), torch.randn(3, 5, 2, 2)
    other = duplicate(layer)
    assert type(other) is nn.Conv2d and torch.equal(other(x), layer(x))
    with torch.no_grad():
        other.weight.zero_()
    layer.eval()
    with torch.profiler.profile() as profile:
        assert not other(x).any()
    assert not any(event.name == "aten::conv2d" for event in profile.events())  # it trains, whatever the first one does
    assert layer(x).any()
    zeros = {"weight": torch.zeros_like(layer.weight)}
    assert not torch.func.functional_call(layer.train(), zeros, (x,)).any()


def test_hooks_run_where_the_fast_path_does():
    layer, seen = conv3x3(5, 7), []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    layer.register_full_backward_hook(lambda module, before, after: seen.append(after[0].shape))
    layer(torch.randn(3, 5, 2, 2, requires_grad=True)).sum().backward()
    assert seen == [(3, 5, 2, 2), (3, 7, 2, 2), (3, 7, 2, 2)]


def test_compiled_whole_it_follows_the_mode():
    net = nn.Sequential(conv3x3(5, 7), nn.ReLU(), conv3x3(7, 5, 2))
    twin = copy.deepcopy(net)
    whole = torch.compile(net, backend="aot_eager", fullgraph=True)
    for side, training in ((2, True), (2, False), (4, True), (2, True)):
        net.train(training)
        twin.train(training)
        x = torch.randn(3, 5, side, side)
        ours, theirs = whole(x), twin(x)
        torch.testing.assert_close(ours, theirs)
        ours.sum().backward()
        theirs.sum().backward()
        torch.testing.assert_close(net[0].weight.grad, twin[0].weight.grad)
