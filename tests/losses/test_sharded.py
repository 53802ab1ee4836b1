"""The head spread over ranks against the head of one process, which has its own tests against the papers."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: see cifarnet.core.distributed.connect
from gloo_ranks import launch

from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, MarginHead
from cifarnet.losses.sharded import blocks as shard_module
from cifarnet.losses.sharded.blocks import others_of
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead
from cifarnet.losses.sharded.partial_fc import draw_classes

ANGULAR = [name for name, row in LOSSES.items() if row.angular and row.spreads]
CASES = [(name, {}) for name in ANGULAR]
CASES += [("sphereface-r", {"variant": "v0", "norm": "none"}), ("sphereface-r", {"variant": "v1", "norm": "soft"})]
CASES += [("sphereface-r", {"norm": "soft", "margin_step": 0.1}), ("sphereface-r", {"norm": "none"})]
CASES += [("sphereface2", {"variant": "A"}), ("sphereface2", {"detach": True}), ("ldam", {"drw": True})]
CASES += [("elastic-arcface", {"plus": True}), ("elastic-cosface", {"plus": True})]
N, D, C = 13, 16, 37  # neither divides by 2 or 3
CUTS = {2: [0, 9, 13], 3: [0, 7, 7, 13]}  # each rank's samples: uneven, and for one rank of three none at all


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-300)).item()


def batch(head, dtype, seed):
    """Inputs of a backbone, its weight and labels: features of norms 5 to 60, from far off to on their prototype."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=generator)
    near = torch.rand(N, 1, generator=generator) * 3
    inputs = torch.randn(N, D, generator=generator) + near * 4 * head.weight.detach().float()[labels]
    inputs *= 1 + 3 * torch.rand(N, 1, generator=generator)
    body = torch.eye(D) + 0.1 * torch.randn(D, D, generator=generator)
    return inputs.to(dtype), body.to(dtype), labels


def both_heads(loss, dtype, classes=C, constants=None, **spread):
    """Of one seed; late in the training, with classes of unequal size."""
    torch.manual_seed(5)
    whole = MarginHead(D, classes, loss, backend="torch", **constants or {}).to(dtype)
    torch.manual_seed(5)
    spread = ClassParallelOptions(**spread)
    both = whole, ShardedMarginHead(D, classes, loss, class_parallel=spread, **constants or {}).to(dtype)
    for head in both:
        head.count(torch.arange(classes).repeat_interleave(torch.arange(1, classes + 1)))
        head.begin_epoch(9, 10)
    return both


def check_equal(ranks, folder):
    """Loss, both gradients, state and what is measured, training and evaluation mode."""
    shard_module.BLOCK["cpu"], shard_module.FEWEST = 64, 5  # several blocks a shard
    low, high = CUTS[ranks.world][ranks.rank : ranks.rank + 2]
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        for loss, constants in CASES if ranks.world == 2 else CASES[: len(ANGULAR)]:
            whole, mine = both_heads(loss, dtype, constants=constants, ranks=ranks)
            rows = slice(mine.classes.start, mine.classes.stop)
            assert torch.equal(mine.weight, whole.weight[rows]), "the initial weights do not depend on the ranks"
            for step in range(3 if dtype == torch.float32 else 1):
                if step == 2:
                    whole.eval(), mine.eval()
                inputs, body, labels = batch(whole, dtype, step)
                one, part = body.clone().requires_grad_(), body.clone().requires_grad_()
                expected = whole(inputs @ one, labels)
                loss_here = mine(inputs[low:high] @ part, labels[low:high])
                whole.zero_grad(), mine.zero_grad()
                expected.backward(), loss_here.backward()
                dist.all_reduce(part.grad)
                part.grad /= ranks.world  # what DistributedDataParallel does
                what = (loss, constants, dtype, step)
                assert relative(loss_here.detach(), expected.detach()) < tolerance, what
                assert relative(part.grad, one.grad) < tolerance, what
                assert relative(mine.weight.grad, whole.weight.grad[rows]) < tolerance, what
                for name in whole.undecayed:
                    found, expected = getattr(mine, name).grad, getattr(whole, name).grad
                    torch.testing.assert_close(found, expected, rtol=50 * tolerance, atol=0, msg=str((name, *what)))
                for name, value in whole.memory.items():
                    torch.testing.assert_close(mine.memory[name], value, rtol=1e-6, atol=0, msg=str((name, *what)))
            logits = whole.logits(inputs @ body).double()
            wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")[low:high]
            losses, hits = mine.measure(inputs[low:high] @ body, labels[low:high])
            torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
            assert torch.equal(hits, (logits.argmax(1) == labels)[low:high])
    check_sampled(ranks, low, high)
    if ranks.world == 3:
        with pytest.raises(Refused, match="2 classes for 3 ranks"):
            ShardedMarginHead(D, 2, "arcface", class_parallel=ClassParallelOptions(ranks))


def check_sampled(ranks, low, high):
    """A sampled step against autograd in float64 over exactly the drawn classes of all ranks, each counted 1/p times."""
    whole, mine = both_heads("arcface", torch.float64, classes=101, sample=0.6, seed=3, ranks=ranks)
    inputs, body, labels = batch(whole, torch.float64, 1)
    parts = []
    for other in range(ranks.world):
        held = range(*Ranks(other, ranks.world).part(101))
        own = torch.where((labels >= held.start) & (labels < held.stop), labels - held.start, -1)
        parts.append((held.start, draw_classes(own, len(held), 0.6, (3, 0, other))))
    index = torch.cat([start + draw.index for start, draw in parts])
    offset = torch.cat([draw.offset for _, draw in parts])
    assert offset.count_nonzero() > 20 and len(index) < 101 and set(labels.tolist()) <= set(index.tolist())
    one, part = body.clone().requires_grad_(), body.clone().requires_grad_()
    cosine = torch.nn.functional.normalize(inputs @ one) @ torch.nn.functional.normalize(whole.weight).T
    target = cosine[torch.arange(N), labels]
    logits = 64 * cosine[:, index] + offset
    logits = torch.where(index == labels[:, None], 64 * (target.acos() + 0.5).cos()[:, None], logits)
    expected = torch.nn.functional.cross_entropy(logits, (index == labels[:, None]).double().argmax(1))
    loss = mine(inputs[low:high] @ part, labels[low:high])
    expected.backward(), loss.backward()
    dist.all_reduce(part.grad)
    part.grad /= ranks.world
    assert relative(loss.detach(), expected.detach()) < 1e-12
    assert relative(part.grad, one.grad) < 1e-12
    assert relative(mine.weight.grad, whole.weight.grad[mine.classes.start : mine.classes.stop]) < 1e-12


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_compute_what_one_process_does(ranks, tmp_path):
    launch(check_equal, ranks, tmp_path)


@pytest.mark.parametrize("loss", ANGULAR)
def test_one_shard_without_a_process_group(loss):
    whole, alone = both_heads(loss, torch.float32)
    inputs, _, labels = batch(whole, torch.float32, 0)
    one, two = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    expected, ours = whole(one, labels), alone(two, labels)
    expected.backward(), ours.backward()
    assert relative(ours.detach(), expected.detach()) < 1e-5
    assert relative(two.grad, one.grad) < 1e-5
    assert relative(alone.weight.grad, whole.weight.grad) < 1e-5


@pytest.mark.parametrize("loss", ANGULAR)
def test_extreme_features_stay_finite(loss):
    """Zero, tiny, huge, on the prototype and opposite to it: as MarginHead, no NaN or Inf in value or gradient."""
    whole, alone = both_heads(loss, torch.float32)
    prototype = whole.weight.detach()[0]
    features = torch.stack([prototype * 0, prototype * 1e-20, prototype * 1e18, prototype, -prototype * 50])
    gradients = []
    for head in (whole, alone):
        z = features.clone().requires_grad_()
        value = head(z, torch.zeros(5, dtype=torch.int64))
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(z.grad).all() and torch.isfinite(head.weight.grad).all()
        gradients.append((value.detach(), head.weight.grad))
    assert relative(gradients[1][0], gradients[0][0]) < 1e-5


def test_initial_weights_are_the_same_for_any_shard_of_a_large_head():
    size = 24
    classes = 2**20 // size + 40_001  # more than one block of draws
    torch.manual_seed(2)
    whole = MarginHead(size, classes, "cosface").weight
    torch.manual_seed(2)
    assert torch.equal(ShardedMarginHead(size, classes, "cosface").weight, whole)


def test_what_cannot_be_is_refused():
    head = ShardedMarginHead(D, C, "arcface")
    with pytest.raises(IndexError, match=f"label {C} of sample 1 is out of range"):
        head(torch.randn(2, D), torch.tensor([0, C]))
    with pytest.raises(ValueError, match="features must be"):
        head(torch.randn(2, D + 1), torch.tensor([0, 1]))
    with pytest.raises(Refused, match="head_sample"):
        ShardedMarginHead(D, C, "arcface", class_parallel=ClassParallelOptions(sample=0.0))
    for loss in ("kappaface", "subcenter-arcface"):
        with pytest.raises(Refused, match=f"^head_parallel: {loss}'s classes cannot be spread; leave it out"):
            ShardedMarginHead(D, C, loss)


def test_drawn_negatives_give_the_full_sum_on_average():
    """The mean over draws of the sampled S against the full one, in units of its standard error; exact when nothing is left out."""
    torch.manual_seed(0)
    classes, draws = 400, 1500
    weight = torch.randn(classes, D, dtype=torch.float64)
    own = torch.randint(-1, classes, (6,))
    unit = torch.nn.functional.normalize(torch.randn(6, D, dtype=torch.float64))
    scale = torch.full((6,), 8.0, dtype=torch.float64)

    def total(rows, places, offset=None):
        others = others_of(unit, rows, places, scale, offset=offset)
        return (8 * others.peak).exp() * others.rest

    full = total(weight, own)
    sums = []
    for step in range(draws):
        draw = draw_classes(own, classes, 0.1, (1, step, 0))
        assert len(draw.index) == 40 and torch.equal(draw.index[draw.own[own >= 0]], own[own >= 0])
        sums.append(total(weight[draw.index], draw.own, draw.offset.double()))
    sums = torch.stack(sums)
    error = sums.std(dim=0) / math.sqrt(draws)
    assert ((sums.mean(dim=0) - full).abs() < 4 * error).all()
    assert (error / full < 0.05).all()  # so that the line above can fail
    everything = draw_classes(own, classes, 0.9999, (1, 0, 0))
    torch.testing.assert_close(total(weight[everything.index], everything.own, everything.offset.double()), full)


def test_draws_follow_from_seed_step_and_rank():
    own = torch.tensor([3, -1, 50])
    first = draw_classes(own, 100, 0.2, (7, 11, 0)).index
    assert torch.equal(first, draw_classes(own, 100, 0.2, (7, 11, 0)).index)
    for key in ((8, 11, 0), (7, 12, 0), (7, 11, 1)):
        assert not torch.equal(first, draw_classes(own, 100, 0.2, key).index)


def test_each_other_class_is_drawn_equally_often():
    own = torch.tensor([3, 3, 50])
    counts = torch.zeros(60)
    for step in range(2000):
        counts[draw_classes(own, 60, 0.5, (0, step, 0)).index] += 1
    assert counts[[3, 50]].tolist() == [2000, 2000]
    others = counts[[i for i in range(60) if i not in (3, 50)]] / 2000
    chance = 28 / 58
    assert ((others - chance).abs() < 4.5 * math.sqrt(chance * (1 - chance) / 2000)).all()
