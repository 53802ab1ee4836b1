"""Features and prototypes on the unit sphere: lengths, cosines and sines that stay finite and keep their digits."""

import torch
from torch import Tensor

NORM_FLOOR = 1e-31  # a vector as short has no direction: its cosines and its gradient are 0
NORM_CEILING = {torch.float32: 3e38, torch.float64: 1.7e308}  # a norm too large for its type counts as it
COSINE_LIMIT = 1 - 1e-7  # beyond it value and derivative are those at the limit


def normalize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors [N, D] and norms [N] of `vectors` [N, D], fp32 or float64, of any finite magnitude; a vector without
    direction stays 0.

    Dividing by the largest entry first keeps the squares in range; it is a constant to autograd, since the result does
    not depend on it. A vector with a direction then has a length of 1 or more: the bound of a half never meets it, since a
    clamped value has no gradient at the bound itself.
    """
    largest = vectors.detach().abs().amax(dim=1, keepdim=True)
    bounded = vectors / largest.clamp_min(1e-36)
    length = torch.linalg.vector_norm(bounded, dim=1, keepdim=True)
    norm = length * largest
    short = norm <= NORM_FLOOR
    unit = bounded * torch.where(short, 0.0, 1 / length.clamp_min(0.5))
    return unit, torch.where(short, NORM_FLOOR, norm.clamp_max(NORM_CEILING[norm.dtype])).squeeze(1)


def clamp_cosine(cosine: Tensor) -> Tensor:
    """Cosines clamped to +-(1 - 1e-7); the gradient passes straight through, so that beyond it is the one at the clamp."""
    return cosine + (cosine.detach().clamp(-COSINE_LIMIT, COSINE_LIMIT) - cosine.detach())
