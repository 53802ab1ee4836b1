"""Prototypes that need not be learned: the corners of a simplex, as far apart as C directions can be.

Maximal separation (Kasarla et al., arXiv 2206.08704): every two of them have the cosine -1/(C-1).
"""

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.losses.base import Head

MOST_CLASSES = 10_000  # C (C-1) numbers: 400 MB


@torch.no_grad()
def fix_prototypes(head: Head) -> None:
    """The head's weights become the simplex, its bias 0; neither learns any more. What else it learns goes on.

    Raises:
        Refused: two classes, too many, features of fewer than C - 1 dimensions, a class with several prototypes.
    """
    classes, size, weight = head.num_classes, head.in_features, head.weight
    if classes == 2:
        why = "simplex gives two classes one dimension, where all cosines are 1 or -1 and nothing is learned"
        raise Refused("prototypes", why, "use `prototypes=learned`")
    if classes > MOST_CLASSES:
        why = f"a simplex of {classes:,} classes is a matrix of as many columns"
        raise Refused("prototypes", why, f"use it with {MOST_CLASSES:,} classes at most")
    if weight.dim() != 2:
        raise Refused("prototypes", "simplex has one prototype a class, and this loss several", "use `loss=arcface`")
    if size < classes - 1:
        why = f"a simplex of {classes} classes needs {classes - 1} dimensions, the features have {size}"
        raise Refused("prototypes", why, "put a linear map before the head")
    if not weight.is_meta:
        weight.zero_()[:, : classes - 1].copy_(simplex(classes))
    weight.requires_grad_(False)
    bias = getattr(head, "bias", None)
    if head.options is None and bias is not None:
        bias.zero_().requires_grad_(False)


def simplex(classes: int) -> Tensor:
    """P [C, C-1], unit rows with cosines -1/(C-1), float64: the paper's recursion, unrolled.

    In the i-th dimension class i stands at f_i and the later ones at -f_i / k, k = C - 1 - i; f_i is what is left of a unit
    vector: f_{i+1} = f_i sqrt(1 - 1/k^2).
    """
    k = torch.arange(classes - 1, 0, -1, dtype=torch.float64, device="cpu")
    left = torch.ones_like(k)
    left[1:] = (1 - 1 / k[:-1] ** 2).sqrt().cumprod(0)
    below = torch.ones(classes, classes - 1, dtype=torch.float64, device="cpu").tril_(-1)
    corners = below.mul_(-left / k)
    corners.diagonal().copy_(left)
    return corners
