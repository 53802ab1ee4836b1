"""A running average of the weights, which generalises better than the last of them (Polyak and Juditsky, 1992)."""

import torch

from cifarnet.model import Classifier


@torch.no_grad()
def update_average(average: Classifier, model: Classifier, decay: float, step: int) -> None:
    """average <- d average + (1 - d) model, parameters and buffers; d grows to `decay`, so that the start is forgotten."""
    keep = min(decay, (1 + step) / (10 + step))
    ours, theirs = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [tensor.is_floating_point() for tensor in ours]
    torch._foreach_lerp_(
        [mine for mine, moves in zip(ours, floats, strict=True) if moves],
        [other for other, moves in zip(theirs, floats, strict=True) if moves],
        1 - keep,
    )
    for mine, other, moves in zip(ours, theirs, floats, strict=True):
        if not moves:  # BatchNorm's count of batches
            mine.copy_(other)
