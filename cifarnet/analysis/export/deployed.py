"""A model as other programs take it: uint8 pictures in; probabilities, logits and a unit embedding out."""

import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet import __version__
from cifarnet.data.identity import parse_identity
from cifarnet.models.classifier import Classifier
from cifarnet.models.digest import model_digest
from cifarnet.models.model_info import ModelInfo

INPUT, OUTPUTS = "images", ("probabilities", "logits", "embedding")
FORMAT = "cifarnet-export-1"


class Deployed(nn.Module):
    """uint8 RGB [N, H, W, 3] -> probabilities [N, C], logits [N, C], embedding [N, E] of length 1; all fp32.

    Normalisation and the temperature are inside. The head is the pure-torch one, as inference always has it.

    Args:
        model, info: as `load_model` returns them.
        half: backbone and neck compute in fp16; the head stays fp32. `model` itself is changed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier, info: ModelInfo, half: bool = False) -> None:
        super().__init__()
        self.model, self.working = model.eval(), torch.float16 if half else torch.float32
        self.temperature = info.calibration.temperature if info.calibration else 1.0
        for name, values in (("mean", info.mean), ("std", info.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])
        if half:
            model.backbone.half()
            model.neck.half()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        features = self.model.features(((pixels - self.mean) / self.std).to(self.working)).float()
        logits = self.model.head.logits(features)
        return (logits / self.temperature).softmax(dim=1), logits, F.normalize(features, dim=1)


def describe(model: Classifier, info: ModelInfo, precision: str) -> dict[str, str]:
    """The metadata of an exported file, all of it text: names as they are, numbers and lists as JSON.

    Args:
        precision: fp32, fp16 or int8.
    """
    config, data = info.config, parse_identity(info.data)
    values: dict[str, Any] = {
        "format": FORMAT,
        "cifarnet": __version__,
        "torch": torch.__version__,
        "checkpoint": model_digest(model),
        "arch": config.arch,
        "loss": config.loss,
        "precision": precision,
        "dataset": config.dataset,
        "data": data.digests if data else "",
        "epoch": info.epoch,
        "seed": config.seed,
        "classes": list(info.classes),
        "mean": info.mean,
        "std": info.std,
        "image_size": config.image_size,
        "embedding_size": model.head.in_features,
        "temperature": info.calibration.temperature if info.calibration else None,
        "unknown_at": info.calibration.unknown_at if info.calibration else None,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
