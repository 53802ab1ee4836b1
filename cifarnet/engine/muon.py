"""Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024): momentum, made orthogonal.

The step of a matrix G = U S V' is U V': all its directions are moved alike, however unequal their gradients are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

# x -> a x + b x^3 + c x^5, five times, takes singular values from (0.001, 1] to about 0.7 to 1.2 (Jordan's coefficients)
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, nearly: the same singular vectors, singular values of 0.7 to 1.2; float [K, R, C].

    By Newton and Schulz's iteration: products only. A matrix of zeros stays zero; one so faint that its squares vanish is
    turned as any other, since the largest entry is divided by first. On a GPU it runs on the matrices, in bf16.
    Elsewhere, in fp32, it runs on the smaller Gram matrices where one side is the longer, which is the same in exact
    arithmetic and takes a quarter of the time for a ResNet's filters. Squaring loses the faint singular values, which is
    nothing in fp32 (errors of 1e-4) and would be too much in bf16.
    """
    largest = torch.linalg.vector_norm(matrices, torch.inf, dim=(1, 2), keepdim=True)
    x = matrices / largest.clamp_min(1e-37)
    x = x.bfloat16() if matrices.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-30)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    square = x.shape[2] < 2 * x.shape[1]
    x = iterate(x) if matrices.is_cuda or square else iterate_gram(x @ x.mT) @ x
    return (x if wide else x.mT).to(matrices.dtype)


def iterate(x: Tensor) -> Tensor:
    """The iteration on [K, R, C], R <= C."""
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def iterate_gram(gram: Tensor) -> Tensor:
    """The matrices [K, R, R] that the whole iteration multiplies its start by, from the start's Gram matrices.

    Each step multiplies x by P = a I + b G + c G^2, so G = x x' becomes P G P: x itself is not needed on the way.
    """
    a, b, c = COEFFICIENTS
    product: Tensor | None = None
    for step in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < ITERATIONS:
            gram = factor @ gram @ factor
    assert product is not None
    return product


class Muon(Optimizer):
    """Muon for convolution filters [out, in, kH, kW], taken as matrices [out, in kH kW]; Nesterov SGD for all the rest.

    A filter bank keeps the norm sqrt(out) that an orthogonal one has, so its learning rate is the relative size of a
    step, whatever BatchNorm makes of its scale. Both follow one learning rate and one momentum.

    Args:
        filters: of layers that a BatchNorm follows. No weight decay: their norm is fixed.
        rest: biases, norms, matrices.
        rest_lr: learning rate of the rest, in units of lr.
    """

    def __init__(
        self,
        filters: Iterable[Tensor],
        rest: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        rest_lr: float = 1.0,
    ) -> None:
        groups = [
            {"params": list(filters), "filters": True, "speed": 1.0},
            {"params": list(rest), "filters": False, "speed": rest_lr},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; nothing is read back from the device; on a GPU, where launches cost, filters of one shape go together."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            directions = self.momenta(parameters, group)
            rate = group["lr"] * group.get("speed", 1.0)  # states saved before --rest-lr lack it
            if not group["filters"]:
                move(parameters, directions, rate)
                continue
            alike: dict[torch.Size | int, list[int]] = defaultdict(list)
            for place, parameter in enumerate(parameters):  # a CPU's batched products are slower: each alone
                alike[parameter.shape if parameter.is_cuda else place].append(place)
            for places in alike.values():
                turn([parameters[i] for i in places], [directions[i] for i in places], rate)

    def momenta(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Nesterov's directions: g + m v, with the velocity v <- m v + g."""
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        if not group["filters"] and group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        return list(torch._foreach_add(gradients, velocities, alpha=group["momentum"]))


def move(parameters: list[Tensor], directions: list[Tensor], rate: float | Tensor) -> None:
    """parameters -= rate directions; a rate on the device (of a recorded step) is not read by the host."""
    if isinstance(rate, Tensor):
        directions, rate = list(torch._foreach_mul(directions, rate)), 1.0
    torch._foreach_add_(parameters, directions, alpha=-rate)


def turn(filters: list[Tensor], directions: list[Tensor], rate: float | Tensor) -> None:
    """Gives filters of one shape, K of [out, in, kH, kW], the norm sqrt(out) and takes a step of `rate` against each direction.

    The input channels become the last dimension, as they lie in memory (channels_last): nothing is moved to and fro. That
    changes the order of a matrix's columns, which is the same for the step.
    """
    factors = len(filters[0]) ** 0.5 / torch.stack(torch._foreach_norm(filters))
    torch._foreach_mul_(filters, list(factors.unbind()))
    matrices = torch.stack([direction.permute(0, 2, 3, 1) for direction in directions])  # [K, out, kH, kW, in]
    steps = orthogonalise(matrices.flatten(2)).view_as(matrices)
    move([bank.permute(0, 2, 3, 1) for bank in filters], list(steps.unbind()), rate)
