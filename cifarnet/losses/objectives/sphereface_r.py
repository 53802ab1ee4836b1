"""SphereFace-R: multiplicative margins whose gradient is that of the plain cosine (arXiv 2109.05565)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax, straight_through
from cifarnet.losses.objectives.originals import MAX_SCALE
from cifarnet.losses.options import MarginOptions

VARIANTS, NORMS = ("v0", "v1", "v2"), ("hard", "soft", "none")  # by these places the compiled head knows them


class SphereFaceR(Softmax, name="sphereface-r"):
    """v0: psi = (-1)^k cos(m theta_y) - 2k, k = floor(m theta_y / pi); v1: cos(min(m theta_y, pi)); v2: the others cos(theta_j / m).

    Value as said, derivative by the cosine 1 everywhere. norm=hard: s is fixed; none: s = |z|; soft: s = |z|, and the loss
    gains norm_weight | |z| - s |. The gradient reaches |z|.

    With margin_step m grows from 1 to what it is else: 1 + margin_step times the milestones passed, which the table `passed` [1]
    holds. The authors' code has that sum, and no published configuration of it: here the milestones are at equal parts of the
    epochs, as many as m needs.
    """

    def tables(self, classes: int, size: int, options: MarginOptions) -> dict[str, Tensor]:
        return {"passed": torch.zeros(1)} if options["margin_step"] > 0 else {}

    def begin_epoch(
        self, epoch: int, epochs: int, memory: Mapping[str, Tensor], options: MarginOptions
    ) -> dict[str, Tensor]:
        if options["margin_step"] == 0:
            return {}
        milestones = math.ceil((options.margin - 1) / options["margin_step"] - 1e-6)
        return {"passed": torch.full_like(memory["passed"], (milestones + 1) * epoch // epochs)}

    def margin(self, batch: Batch, options: MarginOptions) -> Tensor | float:
        """m, [1] where it grows."""
        if options["margin_step"] == 0:
            return options.margin
        return (1 + options["margin_step"] * batch.memory["passed"]).clamp_max(options.margin)

    def scales_by_norm(self, options: MarginOptions) -> bool:
        return bool(options["norm"] != "hard")

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return norm.clamp_max(MAX_SCALE) if self.scales_by_norm(options) else super().scale(norm, options, memory)

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] == "v2":
            return batch.cosine
        wide = self.margin(batch, options) * batch.cosine.detach().acos()
        if options["variant"] == "v1":
            return straight_through(wide.clamp_max(math.pi).cos(), batch.cosine)
        k = (wide / math.pi).floor()
        return straight_through((1 - 2 * (k % 2)) * wide.cos() - 2 * k, batch.cosine)

    def others(self, cosine: Tensor, batch: Batch, options: MarginOptions) -> Tensor:
        if options["variant"] != "v2":
            return cosine
        return straight_through((cosine.detach().acos() / self.margin(batch, options)).cos(), cosine)

    def weight(self, options: MarginOptions) -> float:
        """The factor of the softmax part."""
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
        margin = self.margin(batch, options)
        margins = margin.expand(len(batch.labels)) if isinstance(margin, Tensor) else None
        return Kernel(options.loss, options.scale, options.margin, constants, margins)
