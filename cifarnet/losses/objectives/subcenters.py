"""Sub-center ArcFace: several prototypes a class, of which the nearest counts (Deng et al., ECCV 2020)."""

import torch
from torch import Tensor

from cifarnet.losses.angles import normalize
from cifarnet.losses.objectives.base import Batch, Kernel, Softmax
from cifarnet.losses.objectives.originals import angular_margin
from cifarnet.losses.options import MarginOptions


class SubcenterArcFace(Softmax, name="subcenter-arcface"):
    """psi = cos(theta_y + m), every class's cosine the largest of its K sub-centres'; W is [C, K, D].

    Only the nearest sub-centre of a class gets a gradient; one that is never nearest stays where it is.
    """

    centres = True

    def shape(self, classes: int, size: int, options: MarginOptions) -> tuple[int, ...]:
        return classes, int(options["subcenters"]), size

    def cosines(self, unit: Tensor, weight: Tensor) -> Tensor:
        classes, centres, size = weight.shape
        every = unit @ normalize(weight.reshape(-1, size))[0].T
        return torch.max(every.unflatten(1, (classes, centres)), dim=2).values

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return angular_margin(batch, options.margin, easy=False)

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        return Kernel("arcface", options.scale, options.margin, [0.0])
