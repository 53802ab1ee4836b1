"""The digest of a model's weights, by which galleries and thresholds know the model that they are of."""

import hashlib
from collections.abc import Sequence

import torch

from cifarnet.losses.base import LOSS_KEY
from cifarnet.models.classifier import Classifier


def model_digests(model: Classifier) -> tuple[str, str]:
    """The model's digest, and that without its loss's name, which has no part in an embedding.

    A gallery or threshold of before `uniface` and `sphereface2` kept theirs has the second one.
    """
    return model_digest(model), model_digest(model, leave_out=(f"head.{LOSS_KEY}",))


def model_digest(model: Classifier, leave_out: Sequence[str] = ()) -> str:
    """64 hex digits over names, types, shapes and values of a model's weights: the same wherever its file lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name in leave_out:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
