"""The linear heads: softmax cross-entropy and the focal loss over z W^T + b, and their versions for unequal classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet.losses.angles import normalize
from cifarnet.losses.base import Head
from cifarnet.losses.contract import (
    NO_LABEL,
    check_batch,
    check_features,
    check_range,
    full_precision,
    refuse_meta,
    working_type,
)
from cifarnet.losses.focal import focal_loss

NEVER_SEEN = 1e-12  # the frequency of a class without samples


class LinearHead(Head):
    """A linear classifier (weights and bias) with softmax cross-entropy, or the focal loss where `gamma` is given."""

    def __init__(
        self, in_features: int, num_classes: int, *, gamma: float | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        linear = nn.Linear(in_features, num_classes)
        self.weight, self.bias = nn.Parameter(linear.weight.detach()), nn.Parameter(linear.bias.detach())
        self.register_buffer("state", torch.empty(0))

    def reset_parameters(self) -> None:
        """Draws weights and biases anew, as nn.Linear's."""
        nn.Linear.reset_parameters(self)  # type: ignore[arg-type]

    def initialise_as_keras(self) -> None:
        """Glorot-uniform weights, biases 0."""
        super().initialise_as_keras()
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar, of features [N, D] with labels [N] (integers in [0, C))."""
        return self._loss(self._checked_logits(features, labels), labels.long())

    def loss_and_correct(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and [N] whether each sample's largest logit is its own class's."""
        logits = self._checked_logits(features, labels)
        return self._loss(logits, labels.long()), logits.detach().argmax(dim=1) == labels

    def _checked_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        check_range(check_batch(features, labels, self.weight.shape[1]), len(self.weight))
        return self.logits(features)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.gamma is not None:
            return focal_loss(logits, labels, self.gamma)
        return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, label_smoothing=self.label_smoothing)

    def logits(self, features: Tensor) -> Tensor:
        """z W^T + b, [N, C]; fp32, of float64 features float64."""
        check_features(features, self.weight.shape[1])
        refuse_meta("weight", self.weight, features)
        working = working_type(features)
        with full_precision(features.device):
            return F.linear(features.to(working), self.weight.to(working), self.bias.to(working))

    def decision(self) -> tuple[Tensor, Tensor]:
        """W [C, D] and b [C], fp32."""
        return self.weight.detach().float(), self.bias.detach().float()

    def prototypes(self) -> Tensor:
        """The rows of W on the unit sphere [C, D]."""
        return normalize(self.weight.detach().float())[0]

    def extra_repr(self) -> str:
        """The sizes and constants, for printing the module."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, {self._constants()}"

    def _constants(self) -> str:
        return f"label_smoothing={self.label_smoothing}" if self.gamma is None else f"gamma={self.gamma}"


class AdjustedHead(LinearHead):
    """A linear classifier for classes of unequal size: cross-entropy over Delta_j x_j + tau log pi_j, x = z W^T + b.

    Delta_j = (n_j / n_max)^gamma (VS loss, arXiv 2103.01550), gamma = 0: logit adjustment (arXiv 2007.07314); pi_j = n_j / sum n. The
    buffer `counts` holds n_j, 1 for each class until `count` tells. Inference uses x.
    """

    counts: Tensor

    def __init__(self, in_features: int, num_classes: int, *, gamma: float = 0.0, tau: float = 1.0) -> None:
        super().__init__(in_features, num_classes)
        self.exponent, self.tau = gamma, tau
        self.register_buffer("counts", torch.ones(num_classes, dtype=torch.int64))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        counts = self.counts.to(logits.dtype)
        frequency = (counts / counts.sum().clamp_min(1)).clamp_min(NEVER_SEEN)
        stretched = logits * (counts / counts.amax().clamp_min(1)) ** self.exponent
        return F.cross_entropy(stretched + self.tau * frequency.log(), labels, ignore_index=NO_LABEL)

    def _constants(self) -> str:
        return f"gamma={self.exponent}, tau={self.tau}"
