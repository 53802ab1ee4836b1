"""The convolution of the smallest maps as a matrix product: torch's conv2d in float64, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from cifarnet.models.conv3x3 import Conv3x3

MAPS = [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_the_convolution(height, width, stride, layout):
    torch.manual_seed(0)
    layer = Conv3x3(5, 7, stride).double().to(memory_format=layout)
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
    layer = Conv3x3(5, 7)
    x = torch.randn(4, 5, height, width)
    with torch.profiler.profile() as profile:
        trained = layer(x)
    assert sum(event.name == "aten::conv2d" for event in profile.events()) == convolutions
    torch.testing.assert_close(trained, layer.eval()(x))


def test_bf16_is_as_near_to_float64_as_the_library():
    torch.manual_seed(0)
    layer = Conv3x3(64, 64)
    x = torch.randn(32, 64, 2, 2)
    exact = F.conv2d(x.double(), layer.weight.double(), padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), layer.eval()(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert (ours - exact).abs().max() <= 1.5 * (theirs - exact).abs().max()
