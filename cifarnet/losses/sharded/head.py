"""A margin head whose classes are spread over ranks: each holds its rows of W, and the loss is the one of all classes.

What crosses the wire in a step, N samples over all ranks: the unit features and norms (all-gather, N (D + 1) numbers), the
labels (N), each target's cosine (all-reduce, N), the largest other cosine, the peak and the sum of the others (all-reduce, N each), the features'
gradient (reduce-scatter, N D). The gradient of W crosses no wire. One rank, or no process group, is one shard that holds
every class: then this is the margin loss in little memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused, plural
from cifarnet.losses.angles import COSINE_LIMIT, Angles, clamp_cosine, normalize
from cifarnet.losses.base import StatefulHead
from cifarnet.losses.contract import check_batch, check_classes, check_range, full_precision, working_type
from cifarnet.losses.margin_loss import Targets, inference_logits, targets_of
from cifarnet.losses.margins import MARGINS, MAX_SCALE
from cifarnet.losses.options import MarginOptions, margin_options
from cifarnet.losses.registry import LOSSES
from cifarnet.losses.sharded.blocks import Others, others_of, shard_gradients, target_cosines
from cifarnet.losses.sharded.collectives import Batch, gathered, sum_of_own
from cifarnet.losses.sharded.partial_fc import draw_classes


@dataclass(frozen=True)
class ClassParallelOptions:
    """How the classes of a head lie on several ranks.

    ranks: this process among those that share it; sample: the part of each shard's classes that a training step takes,
    in (0, 1] (see `cifarnet.losses.sharded.partial_fc`); seed: of those drawn.
    """

    ranks: Ranks = ALONE
    sample: float = 1.0
    seed: int = 0


class ShardedMarginHead(StatefulHead):
    """A `MarginHead` of which this rank holds the classes `classes`; the loss is that of all C classes, exactly.

    `head(features, labels)` takes this rank's samples and returns the mean over the samples of ALL ranks, the same number
    on each. Its gradients: `weight` gets the gradient of that mean (no averaging over ranks may follow), the features get
    R times it, `ranks.world` of them, so that after DistributedDataParallel has averaged the backbone's gradients they are
    those of one process with the whole batch, also where ranks have different numbers of samples. Each rank must call
    forward and backward together with the others, and scale the loss alike.

    Args:
        in_features: D; num_classes: C of all ranks, at least one each.
        loss: one of the angular rows of `LOSSES`; scale, margin, h, t_alpha, easy_margin: as MarginHead's.
        spread: the ranks that share the head, and how many of its classes a step takes.

    Which classes are drawn follows from the seed and `step`: 0, and one more after each forward in training.

    Raises:
        Refused: as MarginHead, fewer classes than ranks, a part outside (0, 1].
    """

    apart = ("weight",)
    whole_batch = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        loss: str = "arcface",
        *,
        class_parallel: ClassParallelOptions = ClassParallelOptions(),
        **constants: float | bool | None,
    ) -> None:
        super().__init__(margin_options(loss, **constants))
        if not LOSSES[loss].kernels:
            raise Refused("head_parallel", f"{loss}'s classes cannot be spread", "leave it out, or use another loss")
        ranks, sample = class_parallel.ranks, class_parallel.sample
        if check_classes(num_classes) < ranks.world:
            raise Refused("head_parallel", f"{plural(num_classes, 'class')} for {ranks.world} ranks", "use fewer ranks")
        if not 0 < sample <= 1:
            raise Refused("head_sample", f"{sample} is out of range", "give a part above 0 and at most 1")
        self.ranks, self.sample, self.seed, self.step = ranks, sample, class_parallel.seed, 0
        self._num_classes, self._classes = num_classes, range(*ranks.part(num_classes))
        self.weight = nn.Parameter(_initial_rows(num_classes, in_features, self.classes))

    @property
    def num_classes(self) -> int:
        """C, over all ranks."""
        return self._num_classes

    @property
    def classes(self) -> range:
        """The classes whose prototypes are here."""
        return self._classes

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws this rank's prototypes anew, uniformly on the unit sphere, and puts the running state back to its start."""
        self.weight.copy_(_initial_rows(self.num_classes, self.weight.shape[1], self.classes))
        self.state.copy_(self.initial_state())

    def seek(self, step: int) -> None:
        """The next forward in training draws the classes of this step."""
        self.step = step

    def taken_from(self, tensors: Mapping[str, Tensor], loss: str) -> dict[str, Tensor]:
        """As `StatefulHead.taken_from`; of all classes' weights the rows that are here."""
        found = super().taken_from(tensors, loss)
        if len(found["weight"]) == self.num_classes:
            found["weight"] = found["weight"][self.classes.start : self.classes.stop]
        return found

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the samples of all ranks, of this rank's features [n, D] and labels [n] (int64 in [0, C))."""
        return self.loss_and_correct(features, labels)[0]

    def loss_and_correct(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and [n] whether each of this rank's samples is nearest to its own class (of those the step took)."""
        labels = self._check(features, labels)
        with full_precision(features.device):
            working = working_type(features)
            unit, norm = normalize(features.to(working))
            loss, correct, state = _ShardedLoss.apply(unit, norm, self.weight, labels, self, self.training)
        if self.training:
            self.step += 1
            with torch.no_grad():
                self.state.copy_(state)
        return loss, correct

    @torch.no_grad()
    def measure(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy [n] of this rank's samples over the logits of inference (no margin), and whether each is nearest to its own class [n]."""
        labels = self._check(features, labels)
        return measure(features, labels, self.weight, self.options, self.classes, self.ranks)

    def logits(self, features: Tensor) -> Tensor:
        """As `MarginHead.logits`, [n, C], for heads whose whole W may lie on each rank for the moment."""
        sizes = [
            end - begin
            for begin, end in (Ranks(r, self.ranks.world).part(self.num_classes) for r in range(self.ranks.world))
        ]
        whole = gathered(self.ranks, self.weight.detach(), sizes)
        return inference_logits(features, whole, self.options)

    def prototypes(self) -> Tensor:
        """This rank's class prototypes on the unit sphere [C_k, D]."""
        return normalize(self.weight.detach().float())[0]

    def extra_repr(self) -> str:
        """The options, for printing the module."""
        return f"num_classes={self.num_classes}, classes={self.classes}, sample={self.sample}, {self.options}"

    def _check(self, features: Tensor, labels: Tensor) -> Tensor:
        labels = check_batch(features, labels, self.weight.shape[1], least=0)  # another rank may have them
        check_range(labels, self.num_classes)
        if labels.is_cuda:  # of a label out of range no rank would know the class; reported at the next synchronisation
            torch._assert_async(((labels >= 0) & (labels < self.num_classes)).all(), "a label is out of range")
        return labels


@torch.no_grad()
def measure(
    features: Tensor, labels: Tensor, weight: Tensor, options: MarginOptions, classes: range, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """Cross-entropy [n] over the logits of inference (no margin), and whether each sample is nearest to its own class [n].

    No N x C numbers are held. Of several ranks each gives its samples, [n, D] and [n], and its rows `classes` of W.
    """
    working = working_type(features)
    unit, norm = normalize(features.to(working))
    batch = Batch.gather(ranks, unit, norm, labels, classes)
    cosine = ranks.sum(target_cosines(batch.unit, weight, batch.own))
    cosine = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    scale = MARGINS[options.loss].scale(batch.norm, options)
    plain = Targets(cosine, scale)
    others = others_of(batch.unit, weight, batch.own, plain).of_all(ranks, scale)
    losses = plain.losses(others.peak, others.rest.log())
    return losses[batch.mine], (cosine > others.highest)[batch.mine]


class _ShardedLoss(torch.autograd.Function):
    """(unit features, norms, shard of W) -> mean loss. The margin's derivatives are autograd's, on [N] vectors."""

    @staticmethod
    def forward(ctx, unit, norm, weight, labels, head, training):  # type: ignore[no-untyped-def, override]
        ranks: Ranks = head.ranks
        margin = MARGINS[head.options.loss]
        batch = Batch.gather(ranks, unit, norm, labels, head.classes)
        cosine = ranks.sum(target_cosines(batch.unit, weight, batch.own))
        with torch.enable_grad():
            cosine, norms = cosine.requires_grad_(), batch.norm.clone().requires_grad_()
            angles = Angles(clamp_cosine(cosine), norms, head.state.to(unit.dtype))
            if training:
                with torch.no_grad():
                    angles.state = margin.next_state(angles, head.options)
            targets = targets_of(angles, head.options)
        plain = Targets(targets.psi.detach(), targets.scale.detach(), targets.threshold, targets.t)
        draw = None
        if training and head.sample < 1:
            draw = draw_classes(batch.own, len(weight), head.sample, (head.seed, head.step, ranks.rank))
        rows, own, offset = (weight, batch.own, None) if draw is None else (weight[draw.index], draw.own, draw.offset)
        others = others_of(batch.unit, rows, own, plain, offset).of_all(ranks, plain.scale)
        with torch.enable_grad():
            log_rest = others.rest.log().requires_grad_()
            losses, penalty = targets.losses(others.peak, log_rest), margin.penalty(norms)
            losses = losses if penalty is None else losses + penalty
            slopes = torch.autograd.grad(losses.sum(), (log_rest, cosine, norms), materialize_grads=True)
        kept = (cosine.detach(), others.peak, others.rest, others.highest)
        ctx.save_for_backward(batch.unit, weight, own, *kept, *slopes)
        ctx.plain, ctx.draw, ctx.ranks, ctx.batch = plain, draw, ranks, (batch.sizes, batch.mine)
        ctx.scales_by_norm = margin.scales_by_norm
        correct = (cosine.detach().clamp(max=COSINE_LIMIT) > others.highest)[batch.mine]
        loss = losses.detach().mean()
        state = torch.where(loss.isfinite(), angles.state.to(head.state.dtype), head.state)
        ctx.mark_non_differentiable(correct, state)
        return loss, correct, state

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def, override]
        unit, weight, own, cosine, peak, rest, highest, *slopes = ctx.saved_tensors
        others = Others(peak, rest, highest)
        ranks, draw, (sizes, mine) = ctx.ranks, ctx.draw, ctx.batch
        by_others, by_target, by_norm = (slope * (grad / len(unit)) for slope in slopes)
        want = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        rows, offset = (weight, None) if draw is None else (weight[draw.index], draw.offset)
        features, gradient = shard_gradients(unit, rows, own, ctx.plain, others, by_others, by_target, offset, want)
        if draw is not None and gradient is not None:
            gradient = torch.zeros_like(weight).index_copy_(0, draw.index, gradient)
        norms = None
        if features is not None:
            features, norms = sum_of_own(ranks, features, sizes), by_norm[mine]
            if ctx.scales_by_norm:
                # S is exp(|z| peak) rest, and autograd has differentiated the peak's exponent: what is left of the others is
                # sum_j (d loss / d c_j) (c_j - peak) / |z|
                along = (features * unit[mine]).sum(dim=1) - by_target[mine] * cosine[mine]
                scale = ctx.plain.scale[mine]
                left = along / scale - by_others[mine] * peak[mine]
                norms = norms + torch.where(scale < MAX_SCALE, left, 0.0)
            features, norms = features * ranks.world, norms * ranks.world
        return features, norms, gradient, None, None, None


def _initial_rows(num_classes: int, in_features: int, classes: range) -> Tensor:
    """The rows `classes` of MarginHead's initial W [C, D], the same whatever the number of ranks; never all of W at once."""
    if torch.empty(0).is_meta:
        return torch.empty(len(classes), in_features)
    rows = torch.empty(len(classes), in_features)
    block = 16 * max(
        1, 2**20 // (16 * in_features)
    )  # torch fills 16 numbers at a time: whole groups give the same draws
    starts = list(range(0, num_classes, block))
    if len(starts) > 1 and num_classes - starts[-1] < 16:  # fewer than 16 numbers are drawn in another way
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], num_classes], strict=True):
        drawn = torch.randn(stop - start, in_features)
        low, high = max(start, classes.start), min(stop, classes.stop)
        if low < high:
            rows[low - classes.start : high - classes.start] = drawn[low - start : high - start]
    return F.normalize(rows, dim=1)
