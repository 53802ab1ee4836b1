"""MV-Softmax: a margin, and more weight for the classes that a sample is taken for (arXiv 1912.00833)."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from cifarnet.losses.objectives.base import Batch, Kernel, Softmax
from cifarnet.losses.options import MarginOptions


class MisclassifiedVectors(Softmax):
    """With psi the target's cosine under the margin, another cosine c above psi becomes (1+t) c + t.

    easy: the target itself has its margin only where c_y > 0; which classes are hard does not change by it.
    """

    @abstractmethod
    def under_margin(self, batch: Batch, margin: float) -> Tensor:
        """psi [N]."""

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        shifted = self.under_margin(batch, options.margin)
        return torch.where(batch.cosine > 0, shifted, batch.cosine) if options["easy"] else shifted

    def others(self, cosine: Tensor, batch: Batch, options: MarginOptions) -> Tensor:
        hard = cosine.detach() > self.under_margin(batch, options.margin).detach()[:, None]
        return torch.where(hard, (1 + options["t"]) * cosine + options["t"], cosine)

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        constants = [float(options["t"]), float(options["easy"])]
        return Kernel(options.loss, options.scale, options.margin, constants)


class MVArcFace(MisclassifiedVectors, name="mv-arcface"):
    """psi = cos(theta_y + m)."""

    def under_margin(self, batch: Batch, margin: float) -> Tensor:
        return batch.cosine * math.cos(margin) - batch.sine * math.sin(margin)


class MVCosFace(MisclassifiedVectors, name="mv-cosface"):
    """psi = c_y - m."""

    def under_margin(self, batch: Batch, margin: float) -> Tensor:
        return batch.cosine - margin
