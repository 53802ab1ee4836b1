"""The margins of version 1: SphereFace, CosFace, ArcFace, CurricularFace, AdaFace, MagFace. Shapes: N samples."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.objectives.base import Batch, Kernel, Softmax
from cifarnet.losses.options import MarginOptions

MAX_SCALE = 1e31  # SphereFace's scale |z| grows no further, so that value and gradients stay finite
CLIP_EPS = 1e-3  # AdaFace's epsilon: of the angle, of the norm's std, and the least norm
MAX_NORM = 100.0  # AdaFace clips norms to [CLIP_EPS, MAX_NORM]
CURRICULUM_RATE = 0.01  # CurricularFace's EMA rate of t
MAGFACE_LOW, MAGFACE_HIGH = 10.0, 110.0  # l_a, u_a: the range of norms that MagFace tells apart
MAGFACE_MARGIN_LOW, MAGFACE_MARGIN_HIGH = 0.45, 0.8  # l_m, u_m
MAGFACE_WEIGHT = 35.0  # lambda_g
SPHEREFACE_BASE, SPHEREFACE_DECAY, SPHEREFACE_LEAST = 1000.0, 0.12, 5.0  # the annealing of lambda


class Original(Softmax):
    """Its number in the compiled head is that of its name, its constants those of its row."""

    def kernel(self, batch: Batch, options: MarginOptions) -> Kernel:
        return Kernel(options.loss, options.scale, options.margin, options.others)


class CosFace(Original, name="cosface"):
    """psi = c_y - m (CosFace, arXiv 1801.09414, eq. 4)."""

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return batch.cosine - options.margin


class ArcFace(Original, name="arcface"):
    """psi = cos(theta_y + m) (ArcFace, arXiv 1801.07698, eq. 3), with its true derivative."""

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return angular_margin(batch, options.margin, bool(options["easy_margin"]))


class CurricularFace(Original, name="curricularface"):
    """psi as ArcFace's; what is harder than it counts more, the more so the better the model (arXiv 2004.00288, eq. 9)."""

    moves = True

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return angular_margin(batch, options.margin, easy=False)

    def others(self, cosine: Tensor, batch: Batch, options: MarginOptions) -> Tensor:
        """c (t + c) above cos(theta_y + m), t the state."""
        own, sine = batch.cosine.detach(), batch.sine.detach()
        threshold = own * math.cos(options.margin) - sine * math.sin(options.margin)
        return torch.where(cosine.detach() > threshold[:, None], cosine * (batch.state + cosine), cosine)

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        """Eq. 10."""
        mean, _ = mean_and_std(batch.cosine, batch.ranks)
        return {"state": CURRICULUM_RATE * mean + (1 - CURRICULUM_RATE) * batch.state}


class SphereFace(Original, name="sphereface"):
    """psi = (lambda c + (-1)^k cos(m theta) - 2k) / (1 + lambda), k = floor(m theta / pi) (arXiv 1704.08063, eq. 7).

    cos(m theta) is the Chebyshev polynomial of c, so nothing divides by sin(theta). The scale is |z|; the state counts steps.
    """

    moves = True

    def scales_by_norm(self, options: MarginOptions) -> bool:
        return True

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        multiple = int(options.margin)
        lower, current = torch.ones_like(batch.cosine), batch.cosine
        for _ in range(multiple - 1):
            lower, current = current, 2 * batch.cosine * current - lower
        k = (multiple * batch.cosine.detach().acos() / math.pi).floor().clamp_max(multiple - 1)
        folded = (1 - 2 * (k % 2)) * current - 2 * k
        blend = (SPHEREFACE_BASE / (1 + SPHEREFACE_DECAY * batch.state[0])).clamp_min(SPHEREFACE_LEAST)
        return (blend * batch.cosine + folded) / (1 + blend)

    def scale(self, norm: Tensor, options: MarginOptions, memory: Mapping[str, Tensor]) -> Tensor:
        return norm.clamp_max(MAX_SCALE)

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        # Sorted, which one number is already, it is what torch.compile keeps for the backward pass. Of the sum alone it keeps the
        # state and adds 1 once more, after the state has moved: the gradient of the next step's lambda.
        return {"state": (batch.state + 1).sort().values}


class AdaFace(Original, name="adaface"):
    """psi = cos(clip(theta + g_angle)) - g_add, both margins following the norm (AdaFace, arXiv 2204.00964, eq. 13-14).

    The state holds mu and sigma, EMA of mean and std of the norms (the report's Eq. 3.18 divides by sigma, as here).
    """

    moves = True

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        mean, std = batch.state[0], batch.state[1]
        norm = batch.norm.detach().clamp(CLIP_EPS, MAX_NORM)
        quality = (options["h"] * (norm - mean) / (std + CLIP_EPS)).clamp(-1, 1)
        shifted = (batch.cosine.acos() - options.margin * quality).clamp(CLIP_EPS, math.pi - CLIP_EPS)
        return shifted.cos() - (options.margin * quality + options.margin)

    def next(self, batch: Batch, options: MarginOptions) -> dict[str, Tensor]:
        rate = options["t_alpha"]
        mean, std = mean_and_std(batch.norm.clamp(CLIP_EPS, MAX_NORM), batch.ranks)
        if std is None:
            std = batch.state[1]
        return {"state": rate * torch.stack([mean, std]) + (1 - rate) * batch.state}


class MagFace(Original, name="magface"):
    """psi = cos(theta_y + m(|z|)), easy margin as in the authors' code; the gradient reaches the norm (arXiv 2103.06627)."""

    def target(self, batch: Batch, options: MarginOptions) -> Tensor:
        return angular_margin(batch, magface_margin(batch.norm)[0], easy=True)

    def penalty(self, norm: Tensor, options: MarginOptions) -> Tensor:
        return MAGFACE_WEIGHT * magface_margin(norm)[1]


def angular_margin(batch: Batch, margin: Tensor | float, easy: bool) -> Tensor:
    """psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0.

    No theta is past it with m <= 0, which a drawn margin can be, and each is with m >= pi.
    """
    if not isinstance(margin, Tensor):
        margin = torch.full_like(batch.cosine[:1], margin)  # filled there: a copy would wait for the device
    shifted = batch.cosine * margin.cos() - batch.sine * margin.sin()
    if easy:
        return torch.where(batch.cosine > 0, shifted, batch.cosine)
    least = -margin.clamp(0, math.pi).cos()
    return torch.where(batch.cosine > least, shifted, batch.cosine - margin * margin.sin())


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
