"""The margin losses in pure torch: the reference whose gradients come from autograd.

Every loss here is softmax cross-entropy over scaled cosines in which a margin changes the target's logit; curricularface
changes the other logits as well. With `c` [N, C] the cosines, `c_y` [N] the target's, `s` the scale, `psi` [N] the
transformed target and `n` [N, C] the others, the loss of a sample is `softplus(log S - s psi)`, S the sum over j != y of
exp(s n_j): written so, it does not cancel once the model is trained. S is held as exp(s peak) rest, peak the largest n_j, so
that cosines are subtracted before they are scaled: s (peak - psi) keeps its digits at any s. Shapes: N samples, D feature
size, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.config import MarginOptions
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.contract import full_precision, working_type

NORM_FLOOR = 1e-31  # a vector as short has no direction: its cosines and its gradient are 0
MAX_SCALE = 1e31  # SphereFace's scale |z| grows no further, so that value and gradients stay finite
COSINE_LIMIT = 1 - 1e-7  # beyond it value and derivative are those at the limit
CLIP_EPS = 1e-3  # AdaFace's epsilon: of the angle, of the norm's std, and the least norm
MAX_NORM = 100.0  # AdaFace clips norms to [CLIP_EPS, MAX_NORM]
CURRICULUM_RATE = 0.01  # CurricularFace's EMA rate of t
MAGFACE_LOW, MAGFACE_HIGH = 10.0, 110.0  # l_a, u_a: the range of norms that MagFace tells apart
MAGFACE_MARGIN_LOW, MAGFACE_MARGIN_HIGH = 0.45, 0.8  # l_m, u_m
MAGFACE_WEIGHT = 35.0  # lambda_g
SPHEREFACE_BASE, SPHEREFACE_DECAY, SPHEREFACE_LEAST = 1000.0, 0.12, 5.0  # the annealing of lambda


@dataclass
class Angles:
    """What a margin sees of a batch: `cosine` [N] to the target, `norm` [N] of the features, the head's `state`."""

    cosine: Tensor
    norm: Tensor
    state: Tensor

    @property
    def sine(self) -> Tensor:
        """sin(theta_y) [N], positive; (1-c)(1+c) keeps its digits where 1 - c^2 loses them."""
        return ((1 - self.cosine) * (1 + self.cosine)).clamp_min(torch.finfo(self.cosine.dtype).tiny).sqrt()


def normalize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors [N, D] and norms [N] of `vectors` [N, D] of any finite magnitude; a vector without direction stays 0.

    Dividing by the largest entry first keeps the squares in range; it is a constant to autograd, since the result does
    not depend on it.
    """
    largest = vectors.detach().abs().amax(dim=1, keepdim=True)
    bounded = vectors / largest.clamp_min(1e-36)
    length = torch.linalg.vector_norm(bounded, dim=1, keepdim=True)
    norm = length * largest
    short = norm <= NORM_FLOOR
    unit = bounded * torch.where(short, 0.0, 1 / length.clamp_min(1.0))
    return unit, torch.where(short, NORM_FLOOR, norm).squeeze(1)


def clamp_cosine(cosine: Tensor) -> Tensor:
    """Cosines clamped to +-(1 - 1e-7); the gradient passes straight through, so that beyond it is the one at the clamp."""
    return cosine + (cosine.detach().clamp(-COSINE_LIMIT, COSINE_LIMIT) - cosine.detach())


def angular_margin(angles: Angles, margin: Tensor | float, easy: bool) -> Tensor:
    """psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0."""
    if not isinstance(margin, Tensor):
        margin = torch.full_like(angles.cosine[:1], margin)  # filled there: a copy would wait for the device
    shifted = angles.cosine * margin.cos() - angles.sine * margin.sin()
    if easy:
        return torch.where(angles.cosine > 0, shifted, angles.cosine)
    return torch.where(angles.cosine > -margin.cos(), shifted, angles.cosine - margin * margin.sin())


def cosface(angles: Angles, options: MarginOptions) -> Tensor:
    """psi = c_y - m (CosFace, arXiv 1801.09414, eq. 4)."""
    return angles.cosine - options.margin


def arcface(angles: Angles, options: MarginOptions) -> Tensor:
    """psi = cos(theta_y + m) (ArcFace, arXiv 1801.07698, eq. 3), with its true derivative."""
    return angular_margin(angles, options.margin, options.easy_margin)


def sphereface(angles: Angles, options: MarginOptions) -> Tensor:
    """psi = (lambda c + (-1)^k cos(m theta) - 2k) / (1 + lambda), k = floor(m theta / pi) (arXiv 1704.08063, eq. 7).

    cos(m theta) is the Chebyshev polynomial of c, so nothing divides by sin(theta).
    """
    multiple = int(options.margin)
    lower, current = torch.ones_like(angles.cosine), angles.cosine
    for _ in range(multiple - 1):
        lower, current = current, 2 * angles.cosine * current - lower
    k = (multiple * angles.cosine.detach().acos() / math.pi).floor().clamp_max(multiple - 1)
    folded = (1 - 2 * (k % 2)) * current - 2 * k
    steps = angles.state[0]
    blend = (SPHEREFACE_BASE / (1 + SPHEREFACE_DECAY * steps)).clamp_min(SPHEREFACE_LEAST)
    return (blend * angles.cosine + folded) / (1 + blend)


def adaface(angles: Angles, options: MarginOptions) -> Tensor:
    """psi = cos(clip(theta + g_angle)) - g_add, both margins following the norm (AdaFace, arXiv 2204.00964, eq. 13-14).

    The state holds mu and sigma, EMA of mean and std of the norms (the report's Eq. 3.18 divides by sigma, as here).
    """
    mean, std = angles.state[0], angles.state[1]
    norm = angles.norm.detach().clamp(CLIP_EPS, MAX_NORM)
    quality = (options.h * (norm - mean) / (std + CLIP_EPS)).clamp(-1, 1)
    shifted = (angles.cosine.acos() - options.margin * quality).clamp(CLIP_EPS, math.pi - CLIP_EPS)
    return shifted.cos() - (options.margin * quality + options.margin)


def magface_margin(norm: Tensor) -> tuple[Tensor, Tensor]:
    """m(a) [N] and the regulariser g(a) [N] of the clipped norms a (MagFace, arXiv 2103.06627, section 3.1)."""
    bounded = norm.clamp(MAGFACE_LOW, MAGFACE_HIGH)
    slope = (MAGFACE_MARGIN_HIGH - MAGFACE_MARGIN_LOW) / (MAGFACE_HIGH - MAGFACE_LOW)
    return slope * (bounded - MAGFACE_LOW) + MAGFACE_MARGIN_LOW, bounded / MAGFACE_HIGH**2 + 1 / bounded


def magface(angles: Angles, options: MarginOptions) -> Tensor:
    """psi = cos(theta_y + m(|z|)), easy margin as in the authors' code; the gradient reaches the norm."""
    return angular_margin(angles, magface_margin(angles.norm)[0], easy=True)


TARGETS: dict[str, Callable[[Angles, MarginOptions], Tensor]] = {
    "sphereface": sphereface,
    "cosface": cosface,
    "arcface": arcface,
    "curricularface": arcface,
    "adaface": adaface,
    "magface": magface,
}


@dataclass
class Targets:
    """What the margin makes of a batch, all [N] but `t`: a sample's loss is softplus(log S - scale psi), S over the others.

    threshold: curricularface's, above which another class's cosine c becomes c (t + c), t [1]; None for every other loss.
    """

    psi: Tensor
    scale: Tensor
    threshold: Tensor | None
    t: Tensor

    def others(self, cosine: Tensor) -> Tensor:
        """The cosines [N, C] as the other classes' logits take them (CurricularFace, arXiv 2004.00288, eq. 9)."""
        if self.threshold is None:
            return cosine
        return torch.where(cosine.detach() > self.threshold[:, None], cosine * (self.t + cosine), cosine)

    def losses(self, peak: Tensor, log_rest: Tensor) -> Tensor:
        """softplus(log S - s psi) [N], log S = s peak + log_rest."""
        return F.softplus(self.scale * (peak - self.psi) + log_rest, threshold=40)


def targets_of(angles: Angles, options: MarginOptions) -> Targets:
    """The margin's work, everything of a loss that knows which loss it is, but MagFace's regulariser."""
    scale = torch.full_like(angles.norm, options.scale)
    threshold = None
    if options.loss == "sphereface":
        scale = angles.norm.clamp_max(MAX_SCALE)
    if options.loss == "curricularface":  # what is harder than the target with its margin
        cosine, sine = angles.cosine.detach(), angles.sine.detach()
        threshold = cosine * math.cos(options.margin) - sine * math.sin(options.margin)
    return Targets(TARGETS[options.loss](angles, options), scale, threshold, angles.state[:1])


def penalties(norm: Tensor, options: MarginOptions) -> Tensor:
    """What is added to each sample's loss [N]: MagFace's regulariser of the norm, else 0."""
    return MAGFACE_WEIGHT * magface_margin(norm)[1] if options.loss == "magface" else torch.zeros_like(norm)


@torch.no_grad()
def next_state(loss: str, options: MarginOptions, angles: Angles, ranks: Ranks = ALONE) -> Tensor:
    """The running state after a training step, used by that very step (rule 2 of each paper's code).

    With several ranks the statistics are those of the batch of all ranks, of which `angles` are this one's.
    """
    state = angles.state
    if loss == "sphereface":
        return state + 1
    if loss == "curricularface":  # eq. 10
        return CURRICULUM_RATE * mean_and_std(angles.cosine, ranks)[0] + (1 - CURRICULUM_RATE) * state
    if loss == "adaface":
        norm = angles.norm.clamp(CLIP_EPS, MAX_NORM)
        mean, std = mean_and_std(norm, ranks)
        if std is None:
            std = state[1].to(norm.dtype)
        return options.t_alpha * torch.stack([mean, std]) + (1 - options.t_alpha) * state
    return state


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


@torch.no_grad()
def state_of_all_ranks(
    features: Tensor, weight: Tensor, labels: Tensor, options: MarginOptions, state: Tensor, ranks: Ranks
) -> Tensor:
    """The running state after a step whose batch lies on several ranks; arguments as `margin_loss`, of this rank."""
    working = working_type(features)
    unit, norm = normalize(features.to(working))
    target = clamp_cosine((unit * normalize(weight[labels].to(working))[0]).sum(dim=1))
    return next_state(options.loss, options, Angles(target, norm, state.to(working)), ranks).to(state.dtype)


def inference_logits(features: Tensor, weight: Tensor, options: MarginOptions) -> Tensor:
    """Logits [N, C] without margin or label: s cos(theta_j), for sphereface |z| cos(theta_j); their softmax is p.

    fp32, of float64 features float64.
    """
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        cosine = unit @ normalize(weight.to(working))[0].T
        return cosine * (norm[:, None] if options.loss == "sphereface" else options.scale)


def margin_loss(
    features: Tensor, weight: Tensor, labels: Tensor, options: MarginOptions, state: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, averaged, the new running state, and what is known of the rows.

    Args:
        features: z [N, D], any float dtype and any norm; computed in fp32 at least.
        weight: class prototypes W [C, D], any norm.
        labels: y [N], int64 in [0, C).
        options: the loss and its constants.
        state: running state of the loss (see `LOSSES`), an fp32 vector.
        training: whether the state moves; it does not where the loss is not finite.

    Returns:
        loss: a scalar, fp32 (float64 for float64 features); state: as it should be stored; rows [N, 3], detached: |z|, c_y
        and the largest other cosine (see `hits`).
    """
    working = working_type(features)
    unit_features, norm = normalize(features.to(working))
    unit_weight, _ = normalize(weight.to(working))
    cosine = clamp_cosine(unit_features @ unit_weight.T)
    target = cosine.gather(1, labels[:, None]).squeeze(1)
    angles = Angles(target, norm, state.to(working))
    if training:
        angles.state = next_state(options.loss, options, Angles(target.detach(), norm.detach(), angles.state))

    targets = targets_of(angles, options)
    own = torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, labels[:, None], True)
    others = targets.others(cosine)
    peak = others.detach().masked_fill(own, -math.inf).amax(dim=1)
    highest = peak if others is cosine else cosine.detach().masked_fill(own, -math.inf).amax(dim=1)
    logits = targets.scale[:, None] * (others - peak[:, None])
    losses = targets.losses(peak, logits.masked_fill(own, -math.inf).logsumexp(dim=1))
    loss = losses.mean()
    if options.loss == "magface":
        loss = loss + penalties(norm, options).mean()
    moved = torch.where(loss.detach().isfinite(), angles.state.to(state.dtype), state)
    return loss, moved, torch.stack([norm.detach(), target.detach(), highest], dim=1)


def hits(rows: Tensor) -> Tensor:
    """Of rows [N, 3 or more], as a loss returns them, whether each sample is nearest to its own class [N]; a tie is none."""
    return rows[:, 1].clamp(max=COSINE_LIMIT) > rows[:, 2]  # as the others are
