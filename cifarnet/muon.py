"""Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024): momentum, made orthogonal.

The step of a matrix G = U S V' is U V': all its directions are moved alike, however unequal their gradients are.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# x -> a x + b x^3 + c x^5, five times, takes singular values from (0.001, 1] to about 0.7 to 1.2 (Jordan's coefficients)
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix, nearly: the same singular vectors, singular values of 0.7 to 1.2; float [R, C].

    By Newton and Schulz's iteration: products only. A matrix of zeros stays zero. On a GPU it runs on the matrix, in bf16.
    Elsewhere, in fp32, it runs on the smaller Gram matrix where one side is the longer, which is the same in exact
    arithmetic and takes a quarter of the time for a ResNet's filters. Squaring loses the faint singular values, which is
    nothing in fp32 (errors of 1e-4) and would be too much in bf16.
    """
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    x = x / (x.norm() + 1e-30)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    square = x.shape[1] < 2 * x.shape[0]
    x = iterate(x) if matrix.is_cuda or square else iterate_gram(x @ x.T) @ x
    return (x if wide else x.T).to(matrix.dtype)


def iterate(x: Tensor) -> Tensor:
    """The iteration on [R, C], R <= C."""
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def iterate_gram(gram: Tensor) -> Tensor:
    """The matrix [R, R] that the whole iteration multiplies its start by, from the start's Gram matrix.

    Each step multiplies x by P = a I + b G + c G^2, so G = x x' becomes P G P: x itself is not needed on the way.
    """
    a, b, c = COEFFICIENTS
    product: Tensor | None = None
    for step in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
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
        """One step; nothing is read back from the device."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                direction = self.momentum(parameter, group)
                if group["filters"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    direction = orthogonalise(direction.flatten(1)).view(parameter.shape)
                parameter.add_(
                    direction, alpha=-group["lr"] * group.get("speed", 1.0)
                )  # states saved before --rest-lr lack it

    def momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Nesterov's direction: g + m v, with the velocity v <- m v + g."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not group["filters"] and group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        return gradient.add(velocity, alpha=group["momentum"])
