"""SphereFace-R: multiplicative margins whose gradient is that of the plain cosine (arXiv 2109.05565)."""

import math
from collections.abc import Mapping

from torch import Tensor

from cifarnet.losses.margins import MAX_SCALE
from cifarnet.losses.objectives.base import Batch, Objective, held
from cifarnet.losses.options import MarginOptions


class SphereFaceR(Objective, name="sphereface-r"):
    """v0: psi = (-1)^k cos(m theta_y) - 2k, k = floor(m theta_y / pi); v1: cos(min(m theta_y, pi)); v2: the others cos(theta_j / m).

    Value as said, derivative by the cosine 1 everywhere. norm=hard: s is fixed; none: s = |z|; soft: s = |z|, and the loss
    gains norm_weight | |z| - s |. The gradient reaches |z|.
    """

    def scale(self, batch: Batch, options: MarginOptions) -> Tensor:
        return super().scale(batch, options) if options["norm"] == "hard" else batch.norm.clamp_max(MAX_SCALE)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] == "v2":
            return batch.target
        wide = options.margin * batch.target.detach().acos()
        if options["variant"] == "v1":
            return held(wide.clamp_max(math.pi).cos(), batch.target)
        k = (wide / math.pi).floor()
        return held((1 - 2 * (k % 2)) * wide.cos() - 2 * k, batch.target)

    def others(self, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] != "v2":
            return batch.cosine
        return held((batch.cosine.detach().acos() / options.margin).cos(), batch.cosine)

    def losses(self, batch: Batch, options: MarginOptions) -> Tensor:
        losses, norm = super().losses(batch, options), options["norm"]
        if options["loss_weight"] > 0 and norm != "none":
            losses = losses * (options["loss_weight"] / options.scale)
        if norm == "soft":
            losses = losses + options["norm_weight"] * (batch.norm - options.scale).abs()
        return losses

    def logits(self, cosine: Tensor, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        if options["norm"] == "hard":
            return options.scale * cosine
        return norm.clamp_max(MAX_SCALE)[:, None] * cosine
