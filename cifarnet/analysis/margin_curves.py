"""A loss as its own objective computes it, for samples at given angles to their class: the target's logit, the boundary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.losses import MarginHead
from cifarnet.losses.angles import clamp_cosine
from cifarnet.losses.margin_loss import in_type
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Batch, OneVsAll

CLASSES = 10
# What a head keeps is given here where it decides the margin and the start says little: far into a training, |z| at its mean.
MEMORY: dict[str, dict[str, Any]] = {"sphereface": {"state": 2000}, "adaface": {"state": (20, 5)}}
NORM = 20.0
APART = 90.0  # degrees between the two prototypes of the decision boundary


@dataclass(frozen=True)
class MarginCurve:
    """A loss over the angle: its logit of the own class [360], with s; and where it decides between two classes.

    boundary: degrees from the own prototype at which training is content, where the two are `APART` degrees apart; None:
    it is so nowhere between them. Without a margin it would be `APART` / 2.
    """

    loss: str
    scale: float
    margin: float
    theta: Tensor
    logit: Tensor
    boundary: float | None


def margin_curve(loss: str, constants: Mapping[str, Any]) -> MarginCurve:
    """The curve of a loss with these constants (its own defaults where they are not given).

    Raises:
        Refused: a loss without a margin between two classes' logits, or a constant that cannot be.
    """
    if loss not in OBJECTIVES or isinstance(OBJECTIVES[loss], OneVsAll):
        known = [name for name, one in OBJECTIVES.items() if not isinstance(one, OneVsAll)]
        why = f"'{loss}' has no logit that a margin moves against another class's"
        raise Refused("loss", why, f"choose from {', '.join(known)}")
    theta = torch.linspace(0, 180, 361, dtype=torch.float64)
    objective, batch, options, _ = at_angles(loss, theta, constants, MEMORY.get(loss, {}), NORM)
    with torch.no_grad():
        scale = float(objective.scale(batch.norm, options, batch.memory)[0])
        logit = scale * objective.target(batch, options)
        near = torch.linspace(0, APART, 18_001, dtype=torch.float64)
        objective, batch, options, _ = at_angles(loss, near, constants, MEMORY.get(loss, {}), NORM)
        other = clamp_cosine((APART - near).deg2rad().cos())
        moved = objective.target(batch, options) - objective.others(other[:, None], batch, options)[:, 0]
    content = (moved > 0).nonzero()
    boundary = float(near[content[-1, 0]]) if len(content) else None
    return MarginCurve(loss, scale, float(options.margin), theta, logit, boundary)


def at_angles(
    loss: str, degrees: Tensor, constants: Mapping[str, Any], memory: Mapping[str, Any], norm: float = 1.0
) -> tuple[Any, Batch, Any, Tensor]:
    """The objective, samples at these angles to their class, the constants, and the cosines that carry the gradient.

    Args:
        degrees: angles of the samples, float64 [N].
        constants: of the loss, where they are not its defaults.
        memory: what the head keeps, by name, where it is not as at the start.
        norm: |z| of all samples.
    """
    head = MarginHead(CLASSES, CLASSES, loss, backend="torch", **constants)
    kept = {name: value.detach().clone() for name, value in in_type(torch.float64, head.memory).items()}
    for name, value in memory.items():
        if name == "counts":  # of the samples' class; all others have one sample
            kept[name][1] = value
        else:
            kept[name] = torch.tensor(value, dtype=torch.float64).expand(kept[name].shape).clone()
    cosine = degrees.deg2rad().cos().requires_grad_()
    labels, norms = torch.ones(len(degrees), dtype=torch.int64), torch.full_like(degrees, norm)
    unit = torch.zeros(len(degrees), CLASSES, dtype=torch.float64)
    batch = Batch(clamp_cosine(cosine), norms, unit, labels, kept, lambda scale: scale)
    return OBJECTIVES[loss], batch, head.options, cosine
