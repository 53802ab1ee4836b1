"""The heads: modules that own the class weights and turn features into a loss, or into logits for inference."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet.core.distributed import Ranks
from cifarnet.losses import kernels
from cifarnet.losses.angles import normalize
from cifarnet.losses.auto_scale import fitting_margin, fitting_scale
from cifarnet.losses.base import Head, StatefulHead
from cifarnet.losses.contract import check_batch, check_classes, check_range, full_precision, working_type
from cifarnet.losses.focal import focal_loss
from cifarnet.losses.margin_loss import correct, inference_logits, margin_loss, state_of_all_ranks
from cifarnet.losses.options import margin_options
from cifarnet.losses.registry import loss_constants, loss_row
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead, measure


class MarginHead(StatefulHead):
    """Normalised-cosine head with a margin loss: `head(features, labels)` is the loss, `head.logits(features)` inference.

    Args:
        in_features: D, the size of the features.
        num_classes: C, at least 2.
        loss: one of the angular rows of `LOSSES`.
        backend: auto, torch, cpu or cuda (see `cifarnet.losses.kernels`).
        constants: the loss's own, such as scale, margin, h, t_alpha, easy_margin; None or nothing takes the original
            authors' value.

    The prototypes are the parameter `weight` [C, D]; the buffer `state` is what the loss remembers between steps
    (sphereface: steps; curricularface: t; adaface: mean and std of the norms). It moves in training mode only, and not
    where the loss is not finite. With several `ranks` (see `join`) it follows the batch of all of them, and the loss is the
    mean over this rank's rows.

    The compiled backends have no second derivative and do not go through torch.func's transforms; backend="torch" does.
    Activation checkpointing must leave the head of a loss with a state out: recomputing it is refused in training.

    Raises:
        Refused: an unknown loss, a constant it does not have or that is out of range, a backend that is not there.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        loss: str = "arcface",
        *,
        backend: str = "auto",
        **constants: float | bool | None,
    ) -> None:
        super().__init__(margin_options(loss, **constants))
        self.backend = backend
        self.weight = nn.Parameter(torch.empty(check_classes(num_classes), in_features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the prototypes anew, uniformly on the unit sphere, and puts the running state back to its start."""
        self.weight.normal_()
        if not self.weight.is_meta:  # there is nothing to normalise there, and torch would import its compiler for it
            self.weight.copy_(F.normalize(self.weight, dim=1))
        self.state.copy_(self.initial_state())

    def join(self, ranks: Ranks) -> None:
        """The state follows the batch of all these ranks from now on."""
        self.ranks = ranks

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar, of features [N, D] with labels [N] (integers in [0, C))."""
        return self._loss_and_rows(features, labels)[0]

    def loss_and_correct(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and [N] whether each sample is nearest to its own class; no N x C numbers are needed for it."""
        loss, rows = self._loss_and_rows(features, labels)
        return loss, correct(rows)

    def _loss_and_rows(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        labels = check_batch(features, labels, self.weight.shape[1])
        self._refuse_recomputing()
        state, moves = self.state, self.training
        shared = self.training and self.ranks.world > 1 and len(self.state) > 0
        if shared:
            check_range(labels, len(self.weight))
            state = state_of_all_ranks(features, self.weight, labels, self.options, self.state, self.ranks)
            moves = False  # it has
        if kernels.resolve(self.backend, features.device.type, features.dtype, self.options.loss) == "torch":
            kernels.count_torch_call()
            check_range(labels, len(self.weight))
            with full_precision(features.device):
                loss, state, rows = margin_loss(features, self.weight, labels, self.options, state, moves)
        else:  # autocast passes the operator by
            loss, state, rows = kernels.margin_loss(features, self.weight, labels, self.options, state, moves)
        if self.training and len(self.state):
            with torch.no_grad():
                if shared:  # a loss that is not finite on one rank moves the state of none
                    broken = self.ranks.largest((~loss.isfinite()).float())
                    state = torch.where(broken > 0, self.state, state)
                self.state.copy_(state)
        return loss, rows

    def _refuse_recomputing(self) -> None:
        """Within a backward pass, as activation checkpointing calls it, the state is no longer the forward pass's."""
        if not self.training or not len(self.state) or torch.compiler.is_compiling():
            return
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"{self.options.loss}'s head cannot be recomputed in the backward pass: its running state has moved; "
                "leave the head out of torch.utils.checkpoint"
            )

    def measure(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Head.measure`; no N x C numbers are held."""
        return measure(features, labels, self.weight, self.options, self.classes)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] without margin or label: s cos(theta_j), for sphereface |z| cos(theta_j); their softmax is p.

        fp32, of float64 features float64.
        """
        return inference_logits(features, self.weight, self.options)

    def prototypes(self) -> Tensor:
        """The class prototypes on the unit sphere [C, D]."""
        return normalize(self.weight.detach().float())[0]

    def extra_repr(self) -> str:
        """The options, for printing the module."""
        classes, size = self.weight.shape
        return f"in_features={size}, num_classes={classes}, {self.options}"


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
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def logits(self, features: Tensor) -> Tensor:
        """z W^T + b, [N, C]; fp32, of float64 features float64."""
        working = working_type(features)
        with full_precision(features.device):
            return F.linear(features.to(working), self.weight.to(working), self.bias.to(working))

    def decision(self) -> tuple[Tensor, Tensor]:
        """W [C, D] and b [C], fp32."""
        return self.weight.detach().float(), self.bias.detach().float()

    def prototypes(self) -> Tensor:
        """The rows of W on the unit sphere [C, D]."""
        return normalize(self.weight.detach().float())[0]


def build_head(
    in_features: int,
    num_classes: int,
    loss: str,
    constants: Mapping[str, Any] | None = None,
    *,
    frozen: bool = False,
    backend: str = "auto",
    class_parallel: ClassParallelOptions | None = None,
) -> Head:
    """The head of `loss`, a row of `LOSSES`.

    Args:
        constants: the loss's own, by name; scale and margin may be "auto" (see `cifarnet.losses.auto_scale`).
        frozen: its parameters do not learn.
        class_parallel: how a margin head's classes lie on several ranks; None keeps all of them here.

    Raises:
        Refused: an unknown loss, a constant that it does not have or that is out of range.
    """
    row, chosen = loss_row(loss), loss_constants(loss, constants or {})
    if chosen.get("scale") == "auto":
        chosen["scale"] = fitting_scale(num_classes)
    if chosen.get("margin") == "auto":
        chosen["margin"] = fitting_margin(loss, float(row.defaults.get("margin", 0.0)), num_classes, in_features)
    head: Head
    if class_parallel is not None:
        head = ShardedMarginHead(in_features, num_classes, loss, class_parallel=class_parallel, **chosen)
    elif row.angular:
        head = MarginHead(in_features, num_classes, loss, backend=backend, **chosen)
    else:
        head = LinearHead(in_features, num_classes, **chosen)
    return head.requires_grad_(not frozen)
