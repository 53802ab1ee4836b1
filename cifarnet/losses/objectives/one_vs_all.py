"""SphereFace2 and UniFace: each class is a yes or no of its own, with one learned bias for all; no softmax.

The trained probability of class j is sigmoid(f_j); the softmax of the logits f only ranks the classes.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, OneVsAll, straight_through
from cifarnet.losses.options import MarginOptions


class SphereFace2(OneVsAll, name="sphereface2"):
    """f = r tau + b (arXiv 2108.01513), g(c) = 2 ((c+1)/2)^t - 1:

    C: tau_y = g(c_y) - m, tau_j = g(c_j) + m. A: tau_y = g(cos(min(theta_y + m, pi))), M: g(cos(min(m theta_y, pi))), both
    tau_j = g(c_j). In A and M, and in C with `detach`, the derivative of tau by the cosine is taken for 1.
    """

    def learned(self, classes: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"bias": torch.tensor([first_bias(classes, options)])}

    def kernel(self, options: MarginOptions) -> Kernel:
        variant = float("CAM".index(options["variant"]))
        constants = [*self.parts(options), options["t"], variant, float(options["detach"])]
        return Kernel("sphereface2", options.scale, options.margin, constants)

    def parts(self, options: MarginOptions) -> tuple[float, float]:
        whole = options["loss_weight"] / options.scale
        return whole * options["balance"], whole * (1 - options["balance"])

    def target_logit(self, batch: Batch, options: MarginOptions) -> Tensor:
        own = tau_of_target(batch.cosine, options)
        own = straight_through(own, batch.cosine) if self.detaches(options) else own
        return options.scale * own + batch.memory["bias"]

    def other_logits(self, cosine: Tensor, memory: Mapping[str, Tensor], options: MarginOptions) -> Tensor:
        others = spread(cosine, options["t"]) + options.margin * (options["variant"] == "C")
        others = straight_through(others, cosine) if self.detaches(options) else others
        return options.scale * others + memory["bias"]

    def detaches(self, options: MarginOptions) -> bool:
        """Is the derivative of tau by the cosine taken for 1?"""
        return bool(options["variant"] != "C" or options["detach"])

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return options.scale * spread(cosine.clamp(-1, 1), options["t"]) + memory["bias"]


class UniFace(OneVsAll, name="uniface"):
    """f_y = s (c_y - m) - b, f_j = s c_j - b (Zhou et al., ICCV 2023).

    The authors clamp f to +-s, where the target's gradient is 0 below c_y = m - 1 + b/s; here it is not clamped.
    """

    def learned(self, classes: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"bias": torch.tensor([math.log(10 * classes)])}

    def kernel(self, options: MarginOptions) -> Kernel:
        return Kernel("uniface", options.scale, options.margin, [*self.parts(options)])

    def parts(self, options: MarginOptions) -> tuple[float, float]:
        return 1.0, options["negative_weight"]

    def target_logit(self, batch: Batch, options: MarginOptions) -> Tensor:
        return options.scale * (batch.cosine - options.margin) - batch.memory["bias"]

    def other_logits(self, cosine: Tensor, memory: Mapping[str, Tensor], options: MarginOptions) -> Tensor:
        return options.scale * cosine - memory["bias"]

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return options.scale * cosine - memory["bias"]


def spread(cosine: Tensor, t: float) -> Tensor:
    """g(c) = 2 ((c+1)/2)^t - 1."""
    return 2 * ((cosine + 1) / 2) ** t - 1


def tau_of_target(cosine: Tensor, options: MarginOptions) -> Tensor:
    """tau_y of the target's cosines."""
    if options["variant"] == "C":
        return spread(cosine, options["t"]) - options.margin
    theta = cosine.detach().acos()
    wide = theta + options.margin if options["variant"] == "A" else theta * options.margin
    return spread(wide.clamp_max(math.pi).cos(), options["t"])


def first_bias(classes: int, options: MarginOptions) -> float:
    """b at which the gradients of own and other classes are equal where all cosines are 0.

    The authors' form alone loses its digits where x > 1, that is for few classes.
    """
    right = torch.zeros((), dtype=torch.float64, device="cpu")
    a_own = options.scale * float(tau_of_target(right, options))
    a_rest = options.scale * (float(spread(right, options["t"])) + options.margin * (options["variant"] == "C"))
    x = options["balance"] / ((1 - options["balance"]) * (classes - 1))
    root = math.sqrt((1 - x) ** 2 + 4 * x * math.exp(min(a_own - a_rest, 700.0)))
    if x <= 1:
        return math.log(2 * x) - a_rest - math.log(1 - x + root)
    return math.log(x - 1 + root) - math.log(2) - a_own
