"""SphereFace-R: multiplicative margins whose gradient is that of the plain cosine (arXiv 2109.05565)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax, held
from cifarnet.losses.objectives.originals import MAX_SCALE
from cifarnet.losses.options import MarginOptions

VARIANTS, NORMS = ("v0", "v1", "v2"), ("hard", "soft", "none")  # by these places the compiled head knows them


class SphereFaceR(Softmax, name="sphereface-r"):
    """v0: psi = (-1)^k cos(m theta_y) - 2k, k = floor(m theta_y / pi); v1: cos(min(m theta_y, pi)); v2: the others cos(theta_j / m).

    Value as said, derivative by the cosine 1 everywhere. norm=hard: s is fixed; none: s = |z|; soft: s = |z|, and the loss
    gains norm_weight | |z| - s |. The gradient reaches |z|.
    """

    def scales_by_norm(self, options: MarginOptions) -> bool:
        return bool(options["norm"] != "hard")

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return norm.clamp_max(MAX_SCALE) if self.scales_by_norm(options) else super().scale(norm, options, memory)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] == "v2":
            return batch.cosine
        wide = options.margin * batch.cosine.detach().acos()
        if options["variant"] == "v1":
            return held(wide.clamp_max(math.pi).cos(), batch.cosine)
        k = (wide / math.pi).floor()
        return held((1 - 2 * (k % 2)) * wide.cos() - 2 * k, batch.cosine)

    def others(self, cosine: Tensor, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] != "v2":
            return cosine
        return held((cosine.detach().acos() / options.margin).cos(), cosine)

    def weight(self, options: MarginOptions) -> float:
        """What the softmax part is multiplied by."""
        weighed = options["loss_weight"] > 0 and options["norm"] != "none"
        return options["loss_weight"] / options.scale if weighed else 1.0

    def weights(self, batch: Batch, options: MarginOptions) -> Tensor | None:
        weight = self.weight(options)
        return None if weight == 1 else torch.full_like(batch.norm, weight)

    def penalty(self, norm: Tensor, options: MarginOptions) -> Tensor | None:
        return options["norm_weight"] * (norm - options.scale).abs() if options["norm"] == "soft" else None

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        variant, norm = VARIANTS.index(options["variant"]), NORMS.index(options["norm"])
        constants = [float(variant), float(norm), self.weight(options), float(options["norm_weight"])]
        return Kernel(options.loss, options.scale, options.margin, constants)
