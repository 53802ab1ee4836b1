"""The loss of a head whose classes lie on several ranks, and its gradients. The margin's derivatives are autograd's, on [N] vectors."""

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.losses.angles import COSINE_LIMIT, clamp_cosine
from cifarnet.losses.contract import first_derivative_only
from cifarnet.losses.margin_loss import in_type, where_finite
from cifarnet.losses.objectives.base import Batch, Objective, OneVsAll, Softmax, softplus
from cifarnet.losses.objectives.originals import MAX_SCALE
from cifarnet.losses.options import MarginOptions
from cifarnet.losses.sharded import collectives
from cifarnet.losses.sharded.blocks import Others, fill_own, others_of, shard_gradients, sum_over_others, target_cosines
from cifarnet.losses.sharded.collectives import sum_of_own
from cifarnet.losses.sharded.partial_fc import Draw


class Negatives:
    """The other classes' part of a loss: how a block's cosines enter it, and the derivative of the loss by them."""

    def __init__(
        self,
        objective: Objective,
        batch: Batch,
        options: MarginOptions,
        offset: Tensor | None,
        learned: tuple[str, ...],
    ) -> None:
        self.objective, self.batch, self.options, self.offset = objective, batch, options, offset
        self.scale, self.scales_by_norm = batch.norm, False
        if isinstance(objective, Softmax):
            self.scale = objective.scale(batch.norm, options, batch.memory).detach()
            self.scales_by_norm = objective.scales_by_norm(options)
        self.learned = [batch.memory[name].detach().requires_grad_() for name in learned]
        batch.memory |= dict(zip(learned, self.learned, strict=True))
        self.pull = self.peak = self.by_scale = torch.empty(0)
        self.by_learned: list[Tensor] = []

    def sum(self, unit: Tensor, rows: Tensor, own: Tensor, ranks: Ranks) -> Others:
        """Over the classes of all ranks; of one-vs-all `rest` is the sum of softplus, and peak 0."""
        if isinstance(self.objective, OneVsAll):
            total, highest = sum_over_others(unit, rows, own, lambda c, at: softplus(self.shaped(c)) * self.times(at))
            return Others(torch.zeros_like(total), ranks.sum(total), ranks.largest(highest))
        return others_of(unit, rows, own, self.scale, self.shaped, self.offset).of_all(ranks, self.scale)

    def shaped(self, cosine: Tensor) -> Tensor:
        """n_j, or of one-vs-all f_j; without gradients."""
        if isinstance(self.objective, OneVsAll):
            return self.objective.other_logits(cosine, self.batch.memory, self.options)
        assert isinstance(self.objective, Softmax)
        return self.objective.others(cosine, self.batch, self.options)

    def times(self, rows: slice) -> Tensor | float:
        """How many classes each drawn one stands for."""
        return 1.0 if self.offset is None else self.offset[rows].exp()

    def prepare(self, others: Others, by_rest: Tensor) -> None:
        """Before `slope` is called block by block. by_rest [N]: d loss / d log S, or of one-vs-all d loss / d the sum of softplus."""
        self.peak, self.pull = others.peak, by_rest
        if isinstance(self.objective, Softmax):
            self.pull = by_rest / others.rest
        self.by_scale = torch.zeros_like(by_rest)
        self.by_learned = [torch.zeros_like(value) for value in self.learned]

    def slope(self, cosine: Tensor, rows: slice, own: Tensor) -> Tensor:
        """d loss / d c_j [N, c], 0 for the own classes, which stand in the columns `own` [N]. It may overwrite the cosines.

        On the way `by_scale` [N] gathers sum_j (d loss / d (s n_j)) (n_j - peak), and `by_learned` the derivatives by what is learned.
        """
        with torch.enable_grad():
            cosine = cosine.requires_grad_()
            shaped = self.shaped(cosine)
        values = shaped.detach()
        if isinstance(self.objective, OneVsAll):
            share = values.sigmoid().mul_(
                self.pull[:, None] if self.offset is None else self.pull[:, None] * self.times(rows)
            )
        else:
            away = values.sub_(self.peak[:, None]) if shaped is cosine else values - self.peak[:, None]
            powers = away * self.scale[:, None] if self.scales_by_norm else away.mul_(self.scale[:, None])
            if self.offset is not None:
                powers += self.offset[rows]
            share = powers.exp_().mul_((self.pull * self.scale)[:, None])
        fill_own(share, own, 0.0)
        if self.scales_by_norm:
            self.by_scale += torch.linalg.vecdot(share, away) / self.scale
        if shaped is cosine:
            return share
        inputs = [cosine, *self.learned]
        by_cosine, *by_learned = torch.autograd.grad(shaped, inputs, share, materialize_grads=True)
        for sum_, part in zip(self.by_learned, by_learned, strict=True):
            sum_ += part
        return by_cosine


class ShardedLoss(torch.autograd.Function):
    """(unit features, norms, shard of W, what is learned besides) -> mean loss, correct [n], and what has moved.

    apply(unit, norm, weight, labels, head, draws, training, *learned): head is the `ShardedMarginHead`, `draws(own)` the classes
    that the step takes, or None.
    """

    @staticmethod
    def forward(ctx, unit, norm, weight, labels, head, draws, training, *learned):  # type: ignore[no-untyped-def, override]
        ranks, objective, options = head.ranks, head.objective, head.options
        found = collectives.GlobalBatch.gather(ranks, unit, norm, labels, head.classes)
        cosine = ranks.sum(target_cosines(found.unit, weight, found.own))
        memory = in_type(unit.dtype, head.memory)

        def log_sum(scale: Tensor) -> Tensor:
            return others_of(found.unit, weight, found.own, scale).of_all(ranks, scale).log_sum(scale)

        with torch.enable_grad():
            inputs = [cosine.requires_grad_(), found.norm.clone().requires_grad_()]
            for name in head.undecayed:
                memory[name] = memory[name].detach().requires_grad_()
                inputs.append(memory[name])
            # The batch is already that of all ranks: none of them needs to be asked again.
            batch = Batch(clamp_cosine(cosine), inputs[1], found.unit, found.labels, memory, log_sum, training)
        moved = {}
        if training:
            with torch.no_grad():
                moved = objective.next(batch.detached(), options)
            batch.memory |= moved
        draw: Draw | None = draws(found.own) if draws is not None else None
        rows, own, offset = (weight, found.own, None) if draw is None else (weight[draw.index], draw.own, draw.offset)
        still = batch.detached()
        # Backward reads them again, when the head's own may have moved on.
        still.memory = {
            name: value.detach() if name in head.tables else value.detach().clone()
            for name, value in batch.memory.items()
        }
        negatives = Negatives(objective, still, options, offset, head.undecayed)
        others = negatives.sum(found.unit, rows, own, ranks)
        with torch.enable_grad():
            if isinstance(objective, OneVsAll):
                rest = others.rest.clone().requires_grad_()
                losses = objective.losses(batch, options, rest)
            else:
                rest = others.rest.log().requires_grad_()
                losses = objective.losses(batch, options, others.peak, rest)
            by_rest, *slopes = torch.autograd.grad(losses.sum(), (rest, *inputs), materialize_grads=True)
        ctx.save_for_backward(found.unit, weight, own, others.peak, others.rest, by_rest, *slopes)
        ctx.negatives, ctx.draw, ctx.ranks, ctx.batch = negatives, draw, ranks, (found.sizes, found.mine)
        correct = (cosine.detach().clamp(max=COSINE_LIMIT) > others.highest)[found.mine]
        loss = losses.detach().mean()
        ctx.mark_non_differentiable(correct)
        return loss, correct, where_finite(loss.isfinite(), moved, head.memory)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def, override]
        unit, weight, own, peak, rest, *slopes = ctx.saved_tensors
        negatives, ranks, draw, (sizes, mine) = ctx.negatives, ctx.ranks, ctx.draw, ctx.batch
        by_rest, by_target, by_norm, *by_learned = (slope * (grad / len(unit)) for slope in slopes)
        want = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        negatives.prepare(Others(peak, rest, peak), by_rest)
        rows = weight if draw is None else weight[draw.index]
        features, gradient = shard_gradients(unit, rows, own, negatives.slope, by_target, want)
        if draw is not None and gradient is not None:
            gradient = torch.zeros_like(weight).index_copy_(0, draw.index, gradient)
        norms = None
        if features is not None:
            features, norms = sum_of_own(ranks, features, sizes), by_norm[mine]
            if negatives.scales_by_norm:  # autograd has the peak's part; beyond the limit s no longer follows |z|
                left = ranks.sum(negatives.by_scale)[mine]
                norms = norms + torch.where(negatives.scale[mine] < MAX_SCALE, left, 0.0)
            features, norms = features * ranks.world, norms * ranks.world
        learned = [own + ranks.sum(others) for own, others in zip(by_learned, negatives.by_learned, strict=True)]
        return features, norms, gradient, None, None, None, None, *learned
