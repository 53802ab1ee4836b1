"""Focal loss (arXiv 1708.02002)."""

import torch.nn.functional as F
from torch import Tensor

from cifarnet.losses.contract import NO_LABEL


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """mean_i (1 - p_i)^gamma CE_i (eq. 4), the weight per sample, p_i the target's probability.

    Args:
        logits: [N, C]; labels: [N] int64; gamma >= 0 (0 is cross-entropy).

    Returns:
        A scalar. 1 - p is taken as -expm1(-CE), which keeps its digits and its gradient where p is close to 1.
    """
    entropy = F.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="none")
    if gamma == 0:
        return entropy.mean()
    return ((-(-entropy).expm1()).clamp_min(1e-12) ** gamma * entropy).mean()
