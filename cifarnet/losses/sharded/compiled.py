"""The loss of a head whose classes lie on several ranks, by the compiled kernels: what a shard computes, and what ranks exchange between."""

from typing import Any

import torch
from torch import Tensor

from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.losses import kernels
from cifarnet.losses.angles import COSINE_LIMIT
from cifarnet.losses.contract import first_derivative_only
from cifarnet.losses.margin_loss import in_type, where_finite
from cifarnet.losses.objectives.base import Batch, Kernel, OneVsAll, Softmax
from cifarnet.losses.sharded import collectives
from cifarnet.losses.sharded.blocks import target_cosines
from cifarnet.losses.sharded.collectives import sum_of_own
from cifarnet.losses.sharded.partial_fc import Draw


def resolve_shards(backend: str, device: str, dtype: torch.dtype = torch.float32, loss: str | None = None) -> str:
    """As `kernels.resolve`, of a head whose classes lie apart: the CPU has kernels of it, a GPU runs it in pure torch.

    Raises:
        Refused: a backend was asked for by name and cannot run here.
    """
    asked, what = kernels.asked(backend)
    if asked == "cuda":
        raise Refused(what, "a head whose classes lie apart has no CUDA kernels", "use `backend=torch`")
    return "torch" if asked == "auto" and device != "cpu" else kernels.resolve(backend, device, dtype, loss)


def exchanged(ranks: Ranks, others: Tensor, targets: Tensor) -> Tensor:
    """Of one shard's sums over its negatives [N, 4] (peak, rest, highest, moment) those over the classes of all ranks."""
    if ranks.world == 1:
        return others
    peak, highest = ranks.largest(others[:, 0]), ranks.largest(others[:, 2])
    _, rest, _, moment = torch.ops.cifarnet.over_peak(others, targets, peak).unbind(1)
    rest, moment = ranks.sum(torch.stack([rest, moment]))
    return torch.stack([peak, rest, highest, moment], dim=1)


class CompiledShardedLoss(torch.autograd.Function):
    """As `ShardedLoss`, by the operators of csrc/margin_shard_cpu.cpp, in fp32."""

    @staticmethod
    def forward(ctx, unit, norm, weight, labels, head, draws, training, *learned):  # type: ignore[no-untyped-def, override]
        ranks = head.ranks
        found = collectives.GlobalBatch.gather(ranks, unit, norm, labels, head.classes)
        draw: Draw | None = draws(found.own) if draws is not None else None
        shard = (weight, found.own) if draw is None else (weight[draw.index], draw.own)
        times = None if draw is None else draw.offset.exp()
        run = one_vs_all_forward if isinstance(head.objective, OneVsAll) else softmax_forward
        losses, cosine, highest, moved = run(ctx, head, found, weight, shard, times, training)
        ctx.draw, ctx.ranks, ctx.batch = draw, ranks, (found.sizes, found.mine)
        correct = (cosine.clamp(max=COSINE_LIMIT) > highest)[found.mine]
        ctx.mark_non_differentiable(correct)
        loss = losses.mean()
        return loss, correct, where_finite(loss.isfinite(), moved, head.memory)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def, override]
        ranks, draw, (sizes, mine) = ctx.ranks, ctx.draw, ctx.batch
        features, gradient, by_norm, learned = ctx.gradients(ctx, grad)
        if draw is not None and gradient is not None:
            gradient = gradient.new_zeros(ctx.shape).index_copy_(0, draw.index, gradient)
        norms = None
        if features is not None:
            features = sum_of_own(ranks, features, sizes) * ranks.world
            # Zeros, not None: compiled autograd would add the None to what reaches the features through the unit vectors.
            norms = features.new_zeros(len(features)) if by_norm is None else by_norm[mine] * ranks.world
        return features, norms, gradient, None, None, None, None, *learned


def softmax_forward(
    ctx: Any,
    head: Any,
    found: collectives.GlobalBatch,
    weight: Tensor,
    shard: tuple[Tensor, Tensor],
    times: Tensor | None,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """The losses, c_y and the largest other cosine of the samples of all ranks [N], and what has moved.

    Args:
        weight: this rank's prototypes; shard: those of the step's classes, and where each sample's own stands among them.
        times: how many classes each of them stands for.
    """
    ops, ranks, objective, options = torch.ops.cifarnet, head.ranks, head.objective, head.options
    assert isinstance(objective, Softmax)
    cosine = ranks.sum(target_cosines(found.unit, weight, found.own))

    def log_sum(scale: Tensor) -> Tensor:
        targets = ops.margin_targets(cosine, found.norm, scale[:1], kernels.numbers_of(Kernel("adacos")))
        others = exchanged(ranks, ops.shard_others(found.unit, weight, found.own, targets)[0], targets)
        return scale * others[:, 0] + others[:, 1].log()

    clamped = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    memory = in_type(found.unit.dtype, head.memory)
    # The batch is already that of all ranks: none of them needs to be asked again.
    batch = Batch(clamped, found.norm, found.unit, found.labels, memory, log_sum, training)
    moved = objective.next(batch, options) if training else {}
    batch.memory |= moved
    call = objective.kernel(batch, options)
    state = batch.state if call.loss == options.loss else batch.state[:0]
    targets = ops.margin_targets(cosine, found.norm, state, kernels.numbers_of(call), call.margins, call.weights)
    # Exponentials are kept over the peak of one shard: with several they are computed again.
    keep = ranks.world == 1 and any(ctx.needs_input_grad)
    others, kept = ops.shard_others(found.unit, *shard, targets, times, keep)
    others = exchanged(ranks, others, targets)
    losses, statistics = ops.margin_losses(cosine, found.norm, targets, others)
    ctx.save_for_backward(found.unit, weight, shard[1], times, statistics, kept)
    ctx.gradients, ctx.shape = softmax_gradients, weight.shape
    return losses, cosine, others[:, 2], moved


def softmax_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor]]:
    """This shard's part of the unit features' gradient, its prototypes' gradient, the norms', and those by what is learned besides."""
    unit, weight, own, times, statistics, kept = ctx.saved_tensors
    rows = weight if ctx.draw is None else weight[ctx.draw.index]
    want = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
    grad = grad.float()
    features, gradient = torch.ops.cifarnet.shard_gradients(grad, unit, rows, own, statistics, kept, times, want)
    by_norm = statistics[:, -1] * (grad / len(unit))
    return features if want[0] else None, gradient if want[1] else None, by_norm, []


def one_vs_all_forward(
    ctx: Any,
    head: Any,
    found: collectives.GlobalBatch,
    weight: Tensor,
    shard: tuple[Tensor, Tensor],
    times: Tensor | None,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """As `softmax_forward`; the gradients are computed together with the loss."""
    call = kernels.numbers_of(head.objective.kernel(head.options))
    want = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
    losses, rows, *gradients = torch.ops.cifarnet.shard_one_vs_all(
        found.unit, *shard, head.bias.detach(), call, times, want
    )
    ctx.save_for_backward(*gradients)
    ctx.gradients, ctx.shape = one_vs_all_gradients, weight.shape
    ranks = head.ranks
    return ranks.sum(losses), ranks.sum(rows[:, 1].contiguous()), ranks.largest(rows[:, 2].contiguous()), {}


def one_vs_all_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor]]:
    """As `softmax_gradients`. They are handed on as they are where the upstream gradient is 1 and no other backward needs them."""
    as_they_are = grad.item() == 1 and not torch._C._autograd._get_current_graph_task_keep_graph()
    features, gradient, by_bias = (part.detach() if as_they_are else part * grad for part in ctx.saved_tensors)
    want = ctx.needs_input_grad
    return features if want[0] else None, gradient if want[2] else None, None, [ctx.ranks.sum(by_bias)]
