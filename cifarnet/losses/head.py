"""The heads: modules that own the class weights and turn features into a loss, or into logits for inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet import kernels
from cifarnet.distributed import ALONE, Ranks
from cifarnet.losses import LOSSES, loss_constants
from cifarnet.losses.fit import fitting_margin, fitting_scale
from cifarnet.losses.focal import focal_loss
from cifarnet.losses.margins import inference_logits, margin_loss, normalize, state_of_all_ranks
from cifarnet.losses.options import margin_options
from cifarnet.losses.sharded import ShardedMarginHead, Spread


class MarginHead(nn.Module):
    """Normalised-cosine head with a margin loss: `head(features, labels)` is the loss, `head.logits(features)` inference.

    Args:
        in_features: D, the size of the features.
        num_classes: C, at least 2.
        loss: one of the angular rows of `LOSSES`.
        scale, margin, h, t_alpha, easy_margin: the loss's constants; None takes the original authors' value.
        backend: auto, torch, cpu or cuda (see `cifarnet.kernels`).

    The prototypes are the parameter `weight` [C, D]; the buffer `state` is what the loss remembers between steps
    (sphereface: steps; curricularface: t; adaface: mean and std of the norms) and moves in training mode only. With
    several `ranks` (an attribute) it follows the batch of all of them, and the loss is the mean over this rank's rows.

    Raises:
        Refused: an unknown loss, a constant it does not have or that is out of range, a backend that is not there.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        loss: str = "arcface",
        *,
        scale: float | None = None,
        margin: float | None = None,
        h: float | None = None,
        t_alpha: float | None = None,
        easy_margin: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.options, state = margin_options(
            num_classes, loss, scale=scale, margin=margin, h=h, t_alpha=t_alpha, easy_margin=easy_margin
        )
        self.backend = backend
        self.ranks: Ranks = ALONE
        weight = torch.randn(num_classes, in_features)
        # On the meta device there is nothing to normalise, and torch would import its compiler for it: a second.
        self.weight = nn.Parameter(weight if weight.is_meta else F.normalize(weight, dim=1))
        self.register_buffer("state", state)
        self.state: Tensor

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar, of features [N, D] with labels [N] (int64 in [0, C))."""
        self._check_shapes(features, labels)
        state, moves = self.state, self.training
        if self.training and self.ranks.world > 1 and len(self.state):
            state = state_of_all_ranks(features, self.weight, labels, self.options, self.state, self.ranks)
            moves = False  # it has
        if kernels.resolve(self.backend, features.device.type, features.dtype) == "torch":
            kernels.count_torch_call()
            with torch.autocast(features.device.type, enabled=False):
                loss, state = margin_loss(features, self.weight, labels, self.options, state, moves)
        else:  # autocast passes the operator by
            loss, state = kernels.margin_loss(features, self.weight, labels, self.options, state, moves)
        if self.training and len(self.state):
            with torch.no_grad():
                self.state.copy_(state)
        return loss

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] without margin or label: s cos(theta_j), for sphereface |z| cos(theta_j); their softmax is p."""
        return inference_logits(features, self.weight, self.options)

    def prototypes(self) -> Tensor:
        """The class prototypes on the unit sphere [C, D]."""
        return normalize(self.weight.detach().float())[0]

    def extra_repr(self) -> str:
        """The options, for printing the module."""
        classes, size = self.weight.shape
        return f"in_features={size}, num_classes={classes}, {self.options}"

    def _check_shapes(self, features: Tensor, labels: Tensor) -> None:
        size = self.weight.shape[1]
        if features.dim() != 2 or features.shape[1] != size or len(features) == 0:
            raise ValueError(f"features must be [N, {size}] with N >= 1, not {list(features.shape)}")
        if labels.shape != features.shape[:1]:
            raise ValueError(f"labels must be [{len(features)}], not {list(labels.shape)}")

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def, override]
        # A running mean with rate 0.01 stands still in bf16: the state stays fp32 when the module is cast.
        super()._apply(fn, recurse)
        self.state = self.state.float()
        return self


class LinearHead(nn.Module):
    """A linear classifier (weights and bias) with softmax cross-entropy, or the focal loss where `gamma` is given."""

    def __init__(
        self, in_features: int, num_classes: int, *, gamma: float | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        linear = nn.Linear(in_features, num_classes)
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("state", torch.empty(0))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar, of features [N, D] with labels [N]."""
        logits = self.logits(features)
        if self.gamma is not None:
            return focal_loss(logits, labels, self.gamma)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def logits(self, features: Tensor) -> Tensor:
        """z W^T + b, [N, C]."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight.float(), self.bias.float())

    def prototypes(self) -> Tensor:
        """The rows of W on the unit sphere [C, D]."""
        return normalize(self.weight.detach().float())[0]


Head = MarginHead | LinearHead | ShardedMarginHead


def build_head(
    in_features: int,
    num_classes: int,
    loss: str,
    *,
    scale: float | str | None = None,
    margin: float | str | None = None,
    h: float | None = None,
    t_alpha: float | None = None,
    easy_margin: bool = False,
    gamma: float | None = None,
    label_smoothing: float = 0.0,
    frozen: bool = False,
    backend: str = "auto",
    spread: Spread | None = None,
) -> Head:
    """The head of `loss`; a constant that the loss does not have is refused.

    `scale` and `margin` may be "auto" (see `cifarnet.losses.fit`). `frozen`: its parameters do not learn.
    `spread`: how a margin head's classes lie on several ranks; None keeps all of them here.
    """
    if scale == "auto":
        scale = fitting_scale(num_classes)
    if margin == "auto":
        default = LOSSES[loss].defaults.get("margin", 0.0) if loss in LOSSES else 0.0
        margin = fitting_margin(loss, default, num_classes, in_features)
    constants = loss_constants(
        loss, scale=scale, margin=margin, h=h, t_alpha=t_alpha, easy_margin=easy_margin, gamma=gamma
    )
    head: Head
    if spread is not None:
        head = ShardedMarginHead(in_features, num_classes, loss, spread=spread, **constants)
    elif LOSSES[loss].angular:
        head = MarginHead(in_features, num_classes, loss, backend=backend, **constants)
    else:
        head = LinearHead(in_features, num_classes, **constants, label_smoothing=label_smoothing)
    return head.requires_grad_(not frozen)
