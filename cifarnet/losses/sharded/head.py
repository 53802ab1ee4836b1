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

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused, plural
from cifarnet.core.fields import check_count
from cifarnet.losses import kernels
from cifarnet.losses.angles import COSINE_LIMIT, normalize
from cifarnet.losses.base import StatefulHead
from cifarnet.losses.contract import check_classes, checked_labels, full_precision, refuse_meta, working_type
from cifarnet.losses.margin_loss import in_type, inference_logits
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Softmax, softplus
from cifarnet.losses.options import MarginOptions, margin_options
from cifarnet.losses.registry import LOSSES
from cifarnet.losses.sharded.blocks import others_of, plain, target_cosines
from cifarnet.losses.sharded.collectives import GlobalBatch, gathered
from cifarnet.losses.sharded.compiled import CompiledShardedLoss, resolve_shards
from cifarnet.losses.sharded.loss import ShardedLoss
from cifarnet.losses.sharded.partial_fc import Draw, draw_classes


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
        backend: auto, torch or cpu (see `cifarnet.losses.sharded.compiled.resolve_shards`).
        class_parallel: the ranks that share the head, and how many of its classes a step takes.

    Which classes are drawn follows from the seed and `step`: 0, and one more after each forward in training. Activation
    checkpointing must leave the head out where classes are drawn, or its loss has a state: recomputing it is refused in training.

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
        backend: str = "auto",
        class_parallel: ClassParallelOptions = ClassParallelOptions(),
        **constants: float | bool | None,
    ) -> None:
        options = margin_options(loss, **constants)
        check_count("in_features", in_features)
        if backend != "auto":  # else the environment decides, at each call
            kernels.asked(backend)
        if not LOSSES[loss].spreads:
            raise Refused("head_parallel", f"{loss}'s classes cannot be spread", "leave it out, or use another loss")
        ranks, sample = class_parallel.ranks, class_parallel.sample
        if check_classes(num_classes) < ranks.world:
            raise Refused("head_parallel", f"{plural(num_classes, 'class')} for {ranks.world} ranks", "use fewer ranks")
        if not 0 < sample <= 1:
            raise Refused("head_sample", f"{sample} is out of range", "give a part above 0 and at most 1")
        super().__init__(options, num_classes, in_features)
        self.backend = backend
        self.ranks, self.sample, self.seed, self.step = ranks, sample, class_parallel.seed, 0
        self._num_classes, self._classes = num_classes, range(*ranks.part(num_classes))
        self.weight = nn.Parameter(_initial_rows(num_classes, in_features, self.classes))
        self._reset_memory()  # after the weights, as MarginHead's: the same draws

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
        self._reset_memory()

    @property
    def changes(self) -> bool:
        """See `StatefulHead.changes`; drawn classes are others in the next pass too."""
        return super().changes or (self.training and self.sample < 1)

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
        least = 1 if self.ranks.world == 1 else 0  # other ranks may have some
        labels = checked_labels(features, labels, self.in_features, self.num_classes, least)
        refuse_meta("weight", self.weight, features)
        self.check_order()
        widest = torch.promote_types(features.dtype, self.weight.dtype)
        where = resolve_shards(self.backend, features.device.type, widest, self.options.loss)
        if where == "torch":
            kernels.count_torch_call()
        run = ShardedLoss if where == "torch" else CompiledShardedLoss
        with full_precision(features.device):
            working = working_type(features)
            unit, norm = normalize(features.to(working))
            draws = self._draw if self.training and self.sample < 1 else None
            weight = self.weight if torch.is_grad_enabled() else self.weight.detach()
            learned = [getattr(self, name) for name in self.undecayed]
            loss, correct, moved = run.apply(unit, norm, weight, labels, self, draws, self.training, *learned)
        if self.training:
            self.step += 1
            self._keep(moved)
        return loss, correct

    def _draw(self, own: Tensor) -> Draw:
        return draw_classes(own, len(self.weight), self.sample, (self.seed, self.step, self.ranks.rank))

    @torch.no_grad()
    def measure(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy [n] of this rank's samples over the logits of inference (no margin), and whether each is nearest to its own class [n]."""
        labels = checked_labels(features, labels, self.in_features, self.num_classes)
        refuse_meta("weight", self.weight, features)
        with full_precision(features.device):
            return measure(features, labels, self.weight, self.options, self.memory, self.classes, self.ranks)

    def logits(self, features: Tensor) -> Tensor:
        """As `MarginHead.logits`, [n, C], for heads whose whole W may lie on each rank for the moment."""
        sizes = [
            end - begin
            for begin, end in (Ranks(r, self.ranks.world).part(self.num_classes) for r in range(self.ranks.world))
        ]
        whole = gathered(self.ranks, self.weight.detach(), sizes)
        return inference_logits(features, whole, self.options, self.memory)

    def prototypes(self) -> Tensor:
        """This rank's class prototypes on the unit sphere [C_k, D]."""
        return normalize(self.weight.detach().float())[0]

    def extra_repr(self) -> str:
        """The options, for printing the module."""
        return f"num_classes={self.num_classes}, classes={self.classes}, sample={self.sample}, {self.options}"


@torch.no_grad()
def measure(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    options: MarginOptions,
    memory: Mapping[str, Tensor],
    classes: range,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy [n] over the logits of inference (no margin), and whether each sample is nearest to its own class [n].

    No N x C numbers are held. Of several ranks each gives its samples, [n, D] and [n], and its rows `classes` of W.
    """
    objective, working = OBJECTIVES[options.loss], working_type(features)
    unit, norm = normalize(features.to(working))
    batch = GlobalBatch.gather(ranks, unit, norm, labels, classes)
    memory = in_type(working, memory)
    cosine = ranks.sum(target_cosines(batch.unit, weight, batch.own))
    cosine = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    scale, shape, own = torch.ones_like(cosine), plain, cosine
    if isinstance(objective, Softmax):
        scale = objective.scale(batch.norm, options, memory)
    else:

        def shape(cosine: Tensor) -> Tensor:
            return objective.logits(cosine, batch.norm, options, memory)

        own = shape(cosine[:, None]).squeeze(1)
    others = others_of(batch.unit, weight, batch.own, scale, shape).of_all(ranks, scale)
    losses = softplus(scale * (others.peak - own) + others.rest.log())
    return losses[batch.mine], (cosine > others.highest)[batch.mine]


def _initial_rows(num_classes: int, in_features: int, classes: range) -> Tensor:
    """The rows `classes` of MarginHead's initial W [C, D], the same whatever the number of ranks; never all of W at once."""
    if torch.empty(0).is_meta:
        return torch.empty(len(classes), in_features)
    rows = torch.empty(len(classes), in_features)
    # Torch fills 16 numbers at a time: whole groups give the same draws.
    block = 16 * max(1, 2**20 // (16 * in_features))
    starts = list(range(0, num_classes, block))
    if len(starts) > 1 and num_classes - starts[-1] < 16:  # fewer than 16 numbers are drawn in another way
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], num_classes], strict=True):
        drawn = torch.randn(stop - start, in_features)
        low, high = max(start, classes.start), min(stop, classes.stop)
        if low < high:
            rows[low - classes.start : high - classes.start] = drawn[low - start : high - start]
    return F.normalize(rows, dim=1)
