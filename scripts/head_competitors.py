"""ArcFace as others compute it: what scripts/bench_head.py times the compiled head against."""

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from cifarnet import kernels
from cifarnet.config import MarginOptions
from cifarnet.losses import margins

SCALE, MARGIN = 64.0, 0.5
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def reference(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The pure-torch head, which torch.compile also gets."""
    return margins.margin_loss(z, w, y, MarginOptions("arcface", SCALE, MARGIN), z.new_empty(0), True)[0]


@cache
def no_state(device: torch.device) -> Tensor:
    """ArcFace's state, made once, outside the time that is taken."""
    return torch.empty(0, device=device)


def ours(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return kernels.margin_loss(z, w, y, MarginOptions("arcface", SCALE, MARGIN), no_state(z.device), True)[0]


def textbook(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """As most code, the report's classes among it: acos, one-hot, cross-entropy over N x C logits."""
    cosine = F.linear(F.normalize(z.float()), F.normalize(w)).clamp(-1 + 1e-7, 1 - 1e-7)
    own = F.one_hot(y, len(w)).to(cosine.dtype)
    theta = torch.acos(cosine)
    within = (theta + MARGIN < math.pi).to(cosine.dtype)
    shifted = within * torch.cos(theta + MARGIN) + (1 - within) * (cosine - MARGIN * math.sin(MARGIN))
    return F.cross_entropy(SCALE * (own * shifted + (1 - own) * cosine), y)


def autocast(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The same with bf16 products and cosines."""
    with torch.autocast(z.device.type, torch.bfloat16):
        return textbook(z, w, y)


def insightface(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """ArcFace as insightface's recognition/arcface_torch: the target is shifted without gradient, so that its gradient is
    the identity's and not sin(theta + m) / sin(theta)."""
    cosine = F.linear(F.normalize(z.float()), F.normalize(w)).clamp(-1, 1)
    rows = torch.arange(len(z), device=z.device)
    with torch.no_grad():
        target = cosine[rows, y]
        sine = (1 - target * target).sqrt()
        shifted = torch.where(
            target > math.cos(math.pi - MARGIN),
            target * math.cos(MARGIN) - sine * math.sin(MARGIN),
            target - math.sin(math.pi - MARGIN) * MARGIN,
        )
    logits = cosine.index_put((rows, y), cosine[rows, y] + (shifted - target))
    return F.cross_entropy(SCALE * logits, y)


def metric_learning() -> Loss | None:
    """pytorch-metric-learning's ArcFaceLoss (margin in degrees, its weight [D, C]), where it is installed."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        return None
    heads: dict[Tensor, torch.nn.Module] = {}

    def loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        if w not in heads:
            heads.clear()
            head = ArcFaceLoss(len(w), w.shape[1], margin=math.degrees(MARGIN), scale=SCALE).to(w.device)
            del head.W
            heads[w] = head
        heads[w].W = w.T
        return heads[w](z.float(), y)

    return loss


def competitors(device: str, classes: int) -> dict[str, Loss]:
    """By name; those that cannot run at this size are left out."""
    found: dict[str, Loss] = {"cifarnet": ours}
    if classes > 1_000_000:
        return found
    found["eager"] = reference
    if classes <= 1000 or device == "cuda":
        found["torch.compile"] = torch.compile(reference, dynamic=False)
        if device == "cuda":
            found["torch.compile, CUDA graph"] = torch.compile(reference, dynamic=False, mode="reduce-overhead")
    if classes <= 100_000:
        found |= {"textbook": textbook, "textbook, autocast": autocast, "insightface": insightface}
    peer = metric_learning() if classes <= 1000 else None
    if peer:
        found["metric-learning"] = peer
    return found


def floor(z: Tensor, w: Tensor, y: Tensor) -> None:
    """The three products that forward and backward cannot do without."""
    w = w.to(z.dtype)
    cosine = z @ w.T
    cosine @ w, cosine.T @ z
