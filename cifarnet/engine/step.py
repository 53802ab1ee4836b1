"""The part of a training step that torch.compile takes, and DistributedDataParallel: forward, loss and hits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import autocast
from cifarnet.losses import kernels
from cifarnet.models.classifier import Classifier

Mixture = tuple[Tensor, Tensor]  # labels [n] of the images that are mixed in, and the share [] of an image's own label
Forward = Callable[[Tensor, Tensor, Mixture | None], tuple[Tensor, Tensor]]


class TrainingStep(nn.Module):
    """(images, labels, mixture) -> (mean loss with its graph, hits): the part of a step that torch.compile takes."""

    def __init__(self, model: Classifier, device: torch.device, precision: str) -> None:
        super().__init__()
        self.model, self.device, self.precision = model, device, precision

    def forward(self, images: Tensor, labels: Tensor, mixture: Mixture | None) -> tuple[Tensor, Tensor]:
        """`mixture` where images [n, 3, H, W] are mixed with others, else None; labels [n]."""
        head = self.model.head
        with autocast(self.device, self.precision):
            features = self.model.features(images)
        loss, hits = head.loss_and_hits(features, labels)
        if mixture is not None:
            others, share = mixture
            loss = share * loss + (1 - share) * head(features, others)
        return loss, hits.sum()


class SharedStep(TrainingStep):
    """The step as DistributedDataParallel takes it; without arguments a rehearsal that reaches each parameter."""

    def forward(self, *batch):  # type: ignore[no-untyped-def, override]
        """As TrainingStep's, or a sum over all parameters that learn."""
        if batch:
            return super().forward(*batch)
        return torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum()


def compiled(step: nn.Module, config: TrainConfig) -> Forward:
    """The step, compiled where that is asked for."""
    if not config.compile:
        return step
    torch.compiler.config.cache_key_tag = kernels.build_tag()
    return torch.compile(step)
