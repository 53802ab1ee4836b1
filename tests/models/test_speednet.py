"""SpeedNet: its whitening against the sample covariance, its start, its place in a training run."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.dataset import Split, make_dataset
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.recipes import recipe_values
from cifarnet.engine.setup import build_run
from cifarnet.models.speednet import RIDGE, FastNorm, Group, SpeedNet, Whitening
from cifarnet.storage.open_run import open_run

DIGITS = load("digits")


def smooth_colours(count: int) -> torch.Tensor:
    """Images whose neighbouring pixels and channels go together, as those of photographs do."""
    noise = torch.randn(count, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    noise = noise + 2 * noise.mean(1, keepdim=True)
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1)


def test_whitened_patches_have_the_identity_as_covariance():
    images = 3 * smooth_colours(200)
    layer = Whitening()
    layer.fit(images)
    out = layer(images)
    assert out.shape == (200, 24, 17, 17)
    torch.testing.assert_close(out[:, :12], -out[:, 12:])
    covariance = out[:, :12].transpose(0, 1).flatten(1).detach().double().cov()
    patches = torch.nn.functional.unfold(images, 2).transpose(0, 1).flatten(1).double()
    # The ridge leaves variance v at v / (v + ridge).
    shrunk = 1 - RIDGE / (torch.linalg.eigvalsh(patches.cov()) + RIDGE)
    torch.testing.assert_close(covariance, shrunk.diag(), rtol=0, atol=1e-4)
    assert (covariance - torch.eye(12)).abs().max() < 0.05


def test_a_constant_channel_gives_finite_filters():
    layer = Whitening()
    layer.fit(torch.zeros(4, 3, 8, 8))
    assert torch.isfinite(layer.weight).all()


def test_the_ridge_of_the_whitening_is_page_and_jordans():
    """Patches without any variance: each direction, of length 1, is divided by the root of 5e-4 (arXiv 2404.00498)."""
    layer = Whitening()
    layer.fit(torch.zeros(4, 3, 8, 8))
    lengths = layer.weight.flatten(1).norm(dim=1).detach()
    torch.testing.assert_close(lengths, torch.full((24,), 5e-4**-0.5))


def test_convolutions_begin_as_the_identity():
    group = Group(24, 64)
    x = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(group.conv1(x)[:, :24], x)
    torch.testing.assert_close(group.conv2(group.conv1(x))[:, :24], x)


def test_features_by_hand():
    """GELU after the whitening; half the largest value of each map."""
    torch.manual_seed(0)
    net, images = SpeedNet().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        patches = F.conv2d(images, net.whitening.weight) + net.whitening.bias.view(1, -1, 1, 1)
        maps = net.groups(patches * torch.distributions.Normal(0, 1).cdf(patches))
        torch.testing.assert_close(net(images), maps.flatten(2).max(2).values / 2)


def test_a_norms_bias_counts_32_times_and_two_fifths_of_a_batch_enter_its_statistics():
    norm, x = FastNorm(4), torch.randn(64, 4, 5, 5) * 3 + 2
    norm.bias.data.fill_(0.25)
    out = norm(x)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.full((4,), 8.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-2)
    torch.testing.assert_close(norm.norm.running_mean, 0.4 * x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.norm.running_var, 0.6 + 0.4 * x.var((0, 2, 3)))


def test_a_group_pools_before_its_norm():
    group, x = Group(24, 64), torch.randn(8, 24, 8, 8)
    group(x)
    pooled = F.max_pool2d(group.conv1(x), 2)
    torch.testing.assert_close(
        group.norm1.norm.running_mean, 0.4 * pooled.mean((0, 2, 3)).detach(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("side", [16, 20, 32, 45])
def test_any_side_from_16(side):
    assert SpeedNet()(torch.randn(2, 3, side, side)).shape == (2, 256)


CONFIG = TrainConfig.from_dict(
    recipe_values("speed") | {"dataset": "digits", "epochs": 2, "batch_size": 32, "precision": "fp32"}
)


class StopAt(Watcher):
    def __init__(self, steps, stop):
        self.left, self.stop = steps, stop

    def step(self, *_):
        self.left -= 1
        if self.left == 0:
            self.stop.number = 15


def run(folder, images, steps=0, resume=False):
    """Trains on some images; the summary."""
    few = {"train": DIGITS.train.subset(torch.arange(images)), "test": DIGITS.test.subset(torch.arange(100))}
    session = build_run(CONFIG, dataclasses.replace(DIGITS, **few))
    with open_run(folder, resume=resume, overwrite=False) as files, StopRequest() as stop:
        if resume:
            session.load(files.state)
        return train(session, files, StopAt(steps, stop), stop)


def test_the_recipe_learns(tmp_path):
    assert run(tmp_path / "run", 320)["test"]["accuracy"] > 0.4  # after 20 steps; 0.1 is chance


def test_it_resumes_bitwise_and_keeps_its_first_layer(tmp_path):
    run(tmp_path / "whole", 96)
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", 96, steps=4)
    run(tmp_path / "broken", 96, resume=True)
    for name in ("last", "state"):
        one, two = (load_file(tmp_path / path / f"{name}.safetensors") for path in ("whole", "broken"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    saved = load_file(tmp_path / "whole" / "last.safetensors")["backbone.whitening.weight"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (DIGITS.mean, DIGITS.std))
    layer = Whitening()
    layer.fit((DIGITS.train.images[:96] / 255 - mean) / std)
    torch.testing.assert_close(saved, layer.weight.detach(), rtol=1e-4, atol=1e-4)
    # --init-from keeps the first layer that those weights were trained on
    other = dataclasses.replace(DIGITS, train=DIGITS.train.subset(torch.arange(50)))
    begun = build_run(CONFIG, other, tmp_path / "whole" / "last.safetensors")
    assert torch.equal(begun.model.backbone.whitening.weight, saved)


def test_muon_needs_batch_norm():
    with pytest.raises(Refused, match="BatchNorm"):
        build_run(dataclasses.replace(CONFIG, arch="baseline"), DIGITS)


def test_a_compiled_step_in_bf16_is_as_close_to_fp32_as_an_eager_one():
    """On coloured images: of grey ones two thirds of the whitened maps are rounding alone, and so are their gradients."""
    colours = (128 + 90 * smooth_colours(100)).clamp(0, 255).to(torch.uint8)
    part = Split(colours, torch.arange(100) % 10)
    data = make_dataset("digits", DIGITS.classes, part, part)
    config = TrainConfig.from_dict(recipe_values("speed"))
    images = (colours / 255 - 0.5) / 0.22
    gradients = []
    for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
        session = build_run(dataclasses.replace(config, precision=precision, compile=compiled), data)
        session.forward(images, part.labels, None)[0].backward()
        named = session.model.named_parameters()
        gradients.append({name: p.grad for name, p in named if p.grad is not None})
    for name, exact in gradients[0].items():
        eager, compiled = ((found[name] - exact).norm() / exact.norm() for found in gradients[1:])
        assert 0 < eager < 0.3 and compiled < 2 * eager, (name, eager, compiled)
