"""The margins in pure torch, a class each: the reference whose gradients come from autograd.

A margin loss is softmax cross-entropy over scaled cosines in which a margin changes the target's logit; CurricularFace
changes the other logits as well. Shapes: N samples. What a class does not name is the base class's.
"""

import math

import torch
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.angles import Angles
from cifarnet.losses.options import MarginOptions

MAX_SCALE = 1e31  # SphereFace's scale |z| grows no further, so that value and gradients stay finite
CLIP_EPS = 1e-3  # AdaFace's epsilon: of the angle, of the norm's std, and the least norm
MAX_NORM = 100.0  # AdaFace clips norms to [CLIP_EPS, MAX_NORM]
CURRICULUM_RATE = 0.01  # CurricularFace's EMA rate of t
MAGFACE_LOW, MAGFACE_HIGH = 10.0, 110.0  # l_a, u_a: the range of norms that MagFace tells apart
MAGFACE_MARGIN_LOW, MAGFACE_MARGIN_HIGH = 0.45, 0.8  # l_m, u_m
MAGFACE_WEIGHT = 35.0  # lambda_g
SPHEREFACE_BASE, SPHEREFACE_DECAY, SPHEREFACE_LEAST = 1000.0, 0.12, 5.0  # the annealing of lambda

MARGINS: dict[str, "Margin"] = {}  # by the class's name in small letters, as in LOSSES


class Margin:
    """The plain normalised softmax: no margin, scale s, no state."""

    scales_by_norm = False  # s is the features' norm

    def __init_subclass__(cls) -> None:
        MARGINS[cls.__name__.lower()] = cls()

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        """psi [N], the cosine that takes the place of the target's."""
        return angles.cosine

    def scale(self, norm: Tensor, options: MarginOptions) -> Tensor:
        """s [N], of the features' norms [N]."""
        return torch.full_like(norm, options.scale)

    def threshold(self, angles: Angles, options: MarginOptions) -> Tensor | None:
        """[N], above which another class's cosine c becomes c (t + c), t the first number of the state; None: never."""
        return None

    def penalty(self, norm: Tensor) -> Tensor | None:
        """[N], added to each sample's loss, or None."""
        return None

    def next_state(self, angles: Angles, options: MarginOptions, ranks: Ranks = ALONE) -> Tensor:
        """The running state after a training step, used by that very step (rule 2 of each paper's code).

        With several ranks the statistics are those of the batch of all ranks, of which `angles` are this one's.
        """
        return angles.state


class CosFace(Margin):
    """psi = c_y - m (CosFace, arXiv 1801.09414, eq. 4)."""

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        return angles.cosine - options.margin


class ArcFace(Margin):
    """psi = cos(theta_y + m) (ArcFace, arXiv 1801.07698, eq. 3), with its true derivative."""

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        return angular_margin(angles, options.margin, bool(options["easy_margin"]))


class CurricularFace(Margin):
    """psi as ArcFace's; what is harder than it counts more, the more so the better the model (arXiv 2004.00288, eq. 9)."""

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        return angular_margin(angles, options.margin, easy=False)

    def threshold(self, angles: Angles, options: MarginOptions) -> Tensor:
        cosine, sine = angles.cosine.detach(), angles.sine.detach()
        return cosine * math.cos(options.margin) - sine * math.sin(options.margin)

    def next_state(self, angles: Angles, options: MarginOptions, ranks: Ranks = ALONE) -> Tensor:
        """Eq. 10."""
        return CURRICULUM_RATE * mean_and_std(angles.cosine, ranks)[0] + (1 - CURRICULUM_RATE) * angles.state


class SphereFace(Margin):
    """psi = (lambda c + (-1)^k cos(m theta) - 2k) / (1 + lambda), k = floor(m theta / pi) (arXiv 1704.08063, eq. 7).

    cos(m theta) is the Chebyshev polynomial of c, so nothing divides by sin(theta). The scale is |z|; the state counts steps.
    """

    scales_by_norm = True

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        multiple = int(options.margin)
        lower, current = torch.ones_like(angles.cosine), angles.cosine
        for _ in range(multiple - 1):
            lower, current = current, 2 * angles.cosine * current - lower
        k = (multiple * angles.cosine.detach().acos() / math.pi).floor().clamp_max(multiple - 1)
        folded = (1 - 2 * (k % 2)) * current - 2 * k
        blend = (SPHEREFACE_BASE / (1 + SPHEREFACE_DECAY * angles.state[0])).clamp_min(SPHEREFACE_LEAST)
        return (blend * angles.cosine + folded) / (1 + blend)

    def scale(self, norm: Tensor, options: MarginOptions) -> Tensor:
        return norm.clamp_max(MAX_SCALE)

    def next_state(self, angles: Angles, options: MarginOptions, ranks: Ranks = ALONE) -> Tensor:
        return angles.state + 1


class AdaFace(Margin):
    """psi = cos(clip(theta + g_angle)) - g_add, both margins following the norm (AdaFace, arXiv 2204.00964, eq. 13-14).

    The state holds mu and sigma, EMA of mean and std of the norms (the report's Eq. 3.18 divides by sigma, as here).
    """

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        mean, std = angles.state[0], angles.state[1]
        norm = angles.norm.detach().clamp(CLIP_EPS, MAX_NORM)
        quality = (options["h"] * (norm - mean) / (std + CLIP_EPS)).clamp(-1, 1)
        shifted = (angles.cosine.acos() - options.margin * quality).clamp(CLIP_EPS, math.pi - CLIP_EPS)
        return shifted.cos() - (options.margin * quality + options.margin)

    def next_state(self, angles: Angles, options: MarginOptions, ranks: Ranks = ALONE) -> Tensor:
        norm, rate = angles.norm.clamp(CLIP_EPS, MAX_NORM), options["t_alpha"]
        mean, std = mean_and_std(norm, ranks)
        if std is None:
            std = angles.state[1].to(norm.dtype)
        return rate * torch.stack([mean, std]) + (1 - rate) * angles.state


class MagFace(Margin):
    """psi = cos(theta_y + m(|z|)), easy margin as in the authors' code; the gradient reaches the norm (arXiv 2103.06627)."""

    def target(self, angles: Angles, options: MarginOptions) -> Tensor:
        return angular_margin(angles, magface_margin(angles.norm)[0], easy=True)

    def penalty(self, norm: Tensor) -> Tensor:
        return MAGFACE_WEIGHT * magface_margin(norm)[1]


def angular_margin(angles: Angles, margin: Tensor | float, easy: bool) -> Tensor:
    """psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0."""
    if not isinstance(margin, Tensor):
        margin = torch.full_like(angles.cosine[:1], margin)  # filled there: a copy would wait for the device
    shifted = angles.cosine * margin.cos() - angles.sine * margin.sin()
    if easy:
        return torch.where(angles.cosine > 0, shifted, angles.cosine)
    return torch.where(angles.cosine > -margin.cos(), shifted, angles.cosine - margin * margin.sin())


def magface_margin(norm: Tensor) -> tuple[Tensor, Tensor]:
    """m(a) [N] and the regulariser g(a) [N] of the clipped norms a (MagFace, arXiv 2103.06627, section 3.1)."""
    bounded = norm.clamp(MAGFACE_LOW, MAGFACE_HIGH)
    slope = (MAGFACE_MARGIN_HIGH - MAGFACE_MARGIN_LOW) / (MAGFACE_HIGH - MAGFACE_LOW)
    return slope * (bounded - MAGFACE_LOW) + MAGFACE_MARGIN_LOW, bounded / MAGFACE_HIGH**2 + 1 / bounded


def mean_and_std(values: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor | None]:
    """Mean and unbiased standard deviation of `values` [n] of all ranks; one value has no deviation.

    The mean comes first and then the squares of what remains: their difference from a sum of squares would lose digits.
    """
    if ranks.world == 1:
        return values.mean(), values.std() if len(values) > 1 else None
    exact = values.double()
    count, total = ranks.sum(torch.stack([torch.full_like(exact[0], len(values)), exact.sum()]))
    mean = total / count
    squares = ranks.sum((exact - mean).square().sum())
    return mean.to(values.dtype), (squares / (count - 1)).sqrt().to(values.dtype)
