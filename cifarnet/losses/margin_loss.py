"""The loss of a batch under a margin, in pure torch, and the logits of inference.

With `c` [N, C] the cosines, `c_y` [N] the target's, `s` the scale, `psi` [N] the transformed target and `n` [N, C] the
others, the loss of a sample is `softplus(log S - s psi)`, S the sum over j != y of exp(s n_j): written so, it does not
cancel once the model is trained. S is held as exp(s peak) rest, peak the largest n_j, so that cosines are subtracted before
they are scaled: s (peak - psi) keeps its digits at any s. Shapes: N samples, D feature size, C classes.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.angles import COSINE_LIMIT, Angles, clamp_cosine, normalize
from cifarnet.losses.contract import full_precision, working_type
from cifarnet.losses.margins import MARGINS
from cifarnet.losses.options import MarginOptions


@dataclass
class Targets:
    """A batch under its margin, all [N] but `t`: a sample's loss is softplus(log S - scale psi), S over the others.

    threshold, t [1]: above it another class's cosine c becomes c (t + c); None for a loss that leaves the others alone.
    """

    psi: Tensor
    scale: Tensor
    threshold: Tensor | None = None
    t: Tensor | None = None

    def others(self, cosine: Tensor) -> Tensor:
        """The cosines [N, C] as the other classes' logits take them (CurricularFace, arXiv 2004.00288, eq. 9)."""
        if self.threshold is None:
            return cosine
        assert self.t is not None
        return torch.where(cosine.detach() > self.threshold[:, None], cosine * (self.t + cosine), cosine)

    def losses(self, peak: Tensor, log_rest: Tensor) -> Tensor:
        """softplus(log S - s psi) [N], log S = s peak + log_rest."""
        return F.softplus(self.scale * (peak - self.psi) + log_rest, threshold=40)


def targets_of(angles: Angles, options: MarginOptions) -> Targets:
    """A batch's angles under the margin of `options`."""
    margin = MARGINS[options.loss]
    scale, threshold = margin.scale(angles.norm, options), margin.threshold(angles, options)
    return Targets(margin.target(angles, options), scale, threshold, angles.state[:1])


def margin_loss(
    features: Tensor, weight: Tensor, labels: Tensor, options: MarginOptions, state: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, averaged, the new running state, and three numbers of each row.

    Args:
        features: z [N, D], any float dtype and any norm; computed in fp32 at least.
        weight: class prototypes W [C, D], any norm.
        labels: y [N], int64 in [0, C).
        options: the loss and its constants.
        state: running state of the loss (see `LOSSES`), an fp32 vector.
        training: whether the state moves; it does not where the loss is not finite.

    Returns:
        loss: a scalar, fp32 (float64 for float64 features); state: as it should be stored; rows [N, 3], detached: |z|, c_y
        and the largest other cosine (see `correct`).
    """
    margin = MARGINS[options.loss]
    working = working_type(features)
    unit_features, norm = normalize(features.to(working))
    unit_weight, _ = normalize(weight.to(working))
    cosine = clamp_cosine(unit_features @ unit_weight.T)
    target = cosine.gather(1, labels[:, None]).squeeze(1)
    angles = Angles(target, norm, state.to(working))
    if training:
        with torch.no_grad():
            angles.state = margin.next_state(Angles(target.detach(), norm.detach(), angles.state), options)

    targets = targets_of(angles, options)
    own = torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, labels[:, None], True)
    others = targets.others(cosine)
    losses, peak = softmax_losses(own, targets.psi, targets.scale, others)
    highest = peak if others is cosine else cosine.detach().masked_fill(own, -math.inf).amax(dim=1)
    loss = losses.mean()
    penalty = margin.penalty(norm)
    if penalty is not None:
        loss = loss + penalty.mean()
    moved = torch.where(loss.detach().isfinite(), angles.state.to(state.dtype), state)
    return loss, moved, torch.stack([norm.detach(), target.detach(), highest], dim=1)


def softmax_losses(own: Tensor, psi: Tensor, scale: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each sample [N], and the largest of its others [N], detached.

    Args:
        own: [N, C], true for each sample's own class; psi, scale: [N]; others: [N, C], of which the own class's is not read.
    """
    peak = others.detach().masked_fill(own, -math.inf).amax(dim=1)
    logits = scale[:, None] * (others - peak[:, None])
    return Targets(psi, scale).losses(peak, logits.masked_fill(own, -math.inf).logsumexp(dim=1)), peak


def correct(rows: Tensor) -> Tensor:
    """Of rows [N, 3 or more], as a loss returns them: is each sample nearest to its own class [N]? A tie is not."""
    return rows[:, 1].clamp(max=COSINE_LIMIT) > rows[:, 2]  # as the others are


@torch.no_grad()
def state_of_all_ranks(
    features: Tensor, weight: Tensor, labels: Tensor, options: MarginOptions, state: Tensor, ranks: Ranks
) -> Tensor:
    """The running state after a step whose batch lies on several ranks; arguments as `margin_loss`, of this rank."""
    working = working_type(features)
    unit, norm = normalize(features.to(working))
    target = clamp_cosine((unit * normalize(weight[labels].to(working))[0]).sum(dim=1))
    angles = Angles(target, norm, state.to(working))
    return MARGINS[options.loss].next_state(angles, options, ranks).to(state.dtype)


def inference_logits(features: Tensor, weight: Tensor, options: MarginOptions) -> Tensor:
    """Logits [N, C] without margin or label: s cos(theta_j), for sphereface |z| cos(theta_j); their softmax is p.

    fp32, of float64 features float64.
    """
    working = working_type(features)
    with full_precision(features.device):
        unit, norm = normalize(features.to(working))
        cosine = unit @ normalize(weight.to(working))[0].T
        return cosine * MARGINS[options.loss].scale(norm, options)[:, None]
