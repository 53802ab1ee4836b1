"""The heads: modules that own the class weights and turn features into a loss, or into logits for inference."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_count
from cifarnet.losses import kernels
from cifarnet.losses.angles import normalize
from cifarnet.losses.auto_scale import fitting_margin, fitting_scale
from cifarnet.losses.base import Head, StatefulHead
from cifarnet.losses.compiled import compiled_loss
from cifarnet.losses.contract import (
    check_batch,
    check_classes,
    check_range,
    checked_labels,
    full_precision,
    refuse_meta,
)
from cifarnet.losses.linear import AdjustedHead, LinearHead
from cifarnet.losses.margin_loss import correct, inference_logits, margin_loss
from cifarnet.losses.options import margin_options
from cifarnet.losses.prototypes import fix_prototypes
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

    The prototypes are the parameter `weight` [C, D] (subcenter-arcface's [C, K, D]); the buffer `state` is what the loss remembers
    between steps (sphereface: steps; curricularface: t; adaface: mean and std of the norms). It moves in training mode only,
    and not where the loss is not finite. Some losses keep tables beside it (`Objective.tables`), such as the class counts. With several `ranks` (see `join`) it follows the batch of all of them, and the loss is the
    mean over this rank's rows.

    The compiled backends have no second derivative and do not go through torch.func's transforms; backend="torch" does, in
    training that of a loss without a state. Activation checkpointing must leave the head of a loss with a state out:
    recomputing it is refused in training.

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
        options = margin_options(loss, **constants)
        check_count("in_features", in_features)
        if backend != "auto":  # else the environment decides, at each call
            kernels.asked(backend)
        super().__init__(options, check_classes(num_classes), in_features)
        self.backend = backend
        self.weight = nn.Parameter(torch.empty(self.objective.shape(num_classes, in_features, options)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the prototypes anew, uniformly on the unit sphere, and puts the running state back to its start."""
        self.weight.normal_()
        if not self.weight.is_meta:  # there is nothing to normalise there, and torch would import its compiler for it
            self.weight.copy_(F.normalize(self.weight, dim=-1))
        self._reset_memory()

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
        labels = check_batch(features, labels, self.shape[1])
        refuse_meta("weight", self.weight, features)
        self.check_order()
        widest = torch.promote_types(features.dtype, self.weight.dtype)
        where = kernels.resolve(self.backend, features.device.type, widest, self.options.loss)
        if where == "torch":
            kernels.count_torch_call()
            check_range(labels, len(self.weight))
        run = margin_loss if where == "torch" else compiled_loss  # autocast passes the operators by
        loss, rows, moved = run(features, self.weight, labels, self.options, self.memory, self.training, self.ranks)
        if moved:
            self._keep(moved)
        return loss, rows

    def measure(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Head.measure`; no N x C numbers are held, but where a class has several prototypes."""
        if self.objective.centres:
            return super().measure(features, labels)
        labels = checked_labels(features, labels, self.in_features, self.num_classes)
        refuse_meta("weight", self.weight, features)
        with full_precision(features.device):
            return measure(features, labels, self.weight, self.options, self.memory, self.classes)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] without margin or label: s cos(theta_j), for sphereface |z| cos(theta_j); their softmax is p.

        fp32, of float64 features float64. Of sphereface2 and uniface the probability of class j is sigmoid(f_j).
        """
        return inference_logits(features, self.weight, self.options, self.memory)

    def prototypes(self) -> Tensor:
        """The class prototypes on the unit sphere [C, D]. Raises Refused where a class has several."""
        weight = self.weight.detach().float()
        if weight.dim() == 3:
            if weight.shape[1] > 1:
                why = f"has {weight.shape[1]} prototypes a class, and this needs one"
                raise Refused(self.options.loss, why, "use a model trained with `subcenters=1`, or with `loss=arcface`")
            weight = weight.squeeze(1)
        return normalize(weight)[0]

    def extra_repr(self) -> str:
        """The options, for printing the module."""
        classes, size = self.shape
        return f"in_features={size}, num_classes={classes}, {self.options}"


def build_head(
    in_features: int,
    num_classes: int,
    loss: str,
    constants: Mapping[str, Any] | None = None,
    *,
    frozen: bool = False,
    simplex: bool = False,
    backend: str = "auto",
    class_parallel: ClassParallelOptions | None = None,
) -> Head:
    """The head of `loss`, a row of `LOSSES`.

    Args:
        constants: the loss's own, by name; scale and margin may be "auto" (see `cifarnet.losses.auto_scale`).
        frozen: its parameters do not learn.
        simplex: the prototypes stand as far apart as they can and do not learn; in_features is at least C - 1.
        class_parallel: how a margin head's classes lie on several ranks; None keeps all of them here.

    Raises:
        Refused: an unknown loss, a constant that it does not have or that is out of range.
    """
    row, chosen = loss_row(loss), loss_constants(loss, constants or {})
    if row.angular:
        check_classes(num_classes)
    if chosen.get("scale") == "auto":
        chosen["scale"] = fitting_scale(num_classes)
    if chosen.get("margin") == "auto":
        authors = row.with_defaults({name: value for name, value in chosen.items() if name != "margin"})
        chosen["margin"] = fitting_margin(loss, float(authors["margin"]), num_classes, in_features)
    head: Head
    if class_parallel is not None:
        head = ShardedMarginHead(
            in_features, num_classes, loss, backend=backend, class_parallel=class_parallel, **chosen
        )
    elif row.angular:
        head = MarginHead(in_features, num_classes, loss, backend=backend, **chosen)
    elif row.kernels:
        head = LinearHead(in_features, num_classes, **chosen)
    else:
        head = AdjustedHead(in_features, num_classes, **chosen)
    if simplex:
        fix_prototypes(head)
    return head.requires_grad_(False) if frozen else head
