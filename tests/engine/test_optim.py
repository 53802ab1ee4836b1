"""Learning rates against torch's own schedulers, optimizers against what the configuration says."""

import copy
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR

from cifarnet.core.config import TrainConfig
from cifarnet.engine.optim import build_optimizer, learning_rate


def rates_of(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("warmup", "total"), [(0.3, 100), (0.0, 100), (0.0, 2), (0.3, 3), (0.1, 7), (1.0, 20)])
def test_onecycle_is_torchs(warmup, total):
    """From the first step to the last but one, also where the warm-up is shorter than a step."""
    expected = rates_of(lambda o: OneCycleLR(o, 0.4, total_steps=total, pct_start=warmup), total - 1)
    config = TrainConfig(schedule="onecycle", lr=0.4, warmup=warmup)
    assert [learning_rate(config, step, total) for step in range(total - 1)] == pytest.approx(expected, rel=1e-9)


def test_onecycle_begins_at_the_top_where_the_warm_up_is_one_step():
    """torch divides by zero there."""
    config = TrainConfig(schedule="onecycle", lr=0.4, warmup=0.1)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[0] == 0.4 and rates == sorted(rates, reverse=True)


def test_cosine_is_torchs_linear_then_cosine():
    def make(optimizer):
        warm = LinearLR(optimizer, start_factor=1 / 30, total_iters=29)
        return SequentialLR(optimizer, [warm, CosineAnnealingLR(optimizer, T_max=71)], milestones=[29])

    config = TrainConfig(schedule="cosine", lr=0.4, warmup=0.3)
    ours = [learning_rate(config, step, 100) for step in range(100)]
    assert ours == pytest.approx(rates_of(make, 100), rel=1e-9)
    assert max(ours) == ours[29] == 0.4


def test_linear_is_torchs_up_then_down():
    def make(optimizer):
        warm = LinearLR(optimizer, start_factor=1 / 30, total_iters=29)
        return SequentialLR(optimizer, [warm, LinearLR(optimizer, 1.0, 0.0, total_iters=71)], milestones=[29])

    config = TrainConfig(schedule="linear", lr=0.4, warmup=0.3)
    assert [learning_rate(config, step, 100) for step in range(100)] == pytest.approx(rates_of(make, 100), rel=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 50])
def test_rates_stay_in_range(schedule, total, warmup):
    config = TrainConfig(schedule=schedule, lr=0.4, warmup=warmup)
    assert all(0 <= learning_rate(config, step, total) <= 0.4 * (1 + 1e-12) for step in range(total))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_one_step_is_the_textbooks(name):
    """First steps in closed form: Adam moves by lr in the gradient's sign, Nesterov SGD by lr (1 + momentum) g."""
    model = torch.nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=0.1, weight_decay=0.0))
    (model.weight * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    optimizer.step()
    gradient = torch.tensor([1.0, -2.0, 3.0]).expand(2, 3)
    expected = before - (0.1 * 1.9 * gradient if name == "sgd" else 0.1 * gradient.sign())
    torch.testing.assert_close(model.weight.detach(), expected)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    ],
)
def test_steps_with_weight_decay_are_torchs(name, theirs):
    mine = torch.nn.Linear(3, 2)
    other = copy.deepcopy(mine)
    optimizer = build_optimizer(mine, TrainConfig(optimizer=name, lr=0.1, weight_decay=0.1))
    for model, steps in ((mine, optimizer), (other, theirs(other.parameters(), lr=0.1, weight_decay=0.1))):
        for _ in range(2):
            steps.zero_grad()
            model(torch.tensor([1.0, -2.0, 3.0])).square().sum().backward()
            steps.step()
    torch.testing.assert_close(mine.state_dict(), other.state_dict())


def test_frozen_parameters_are_not_optimised():
    model = torch.nn.Linear(3, 2).requires_grad_(False)
    model.bias.requires_grad_(True)
    optimizer = build_optimizer(model, TrainConfig())
    assert [p for group in optimizer.param_groups for p in group["params"]] == [model.bias]
