"""The compiled operators of one shard against float64, against the operator of one process, and against pure torch."""

import itertools

import pytest
import torch
from head_backends import options_of
from margin_reference import ORIGINAL, STATE
from test_sharded import CASES, both_heads, relative

from cifarnet.core.errors import Refused
from cifarnet.losses import kernels
from cifarnet.losses.margin_loss import margin_loss
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.sharded.compiled import resolve_shards

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")
N, D, C = 21, 16, 700  # three chunks of classes
OPS = torch.ops.cifarnet


@pytest.fixture(params=[0, 1 << 23], ids=["chunks", "kept"])
def kept(request):
    before = EXTENSION.kept_cosines()
    EXTENSION.keep_cosines(request.param)
    yield request.param
    EXTENSION.keep_cosines(before)


def sample(classes=C):
    """Features from far off to on their prototype, of lengths 5 to 57; prototypes of lengths 0.3 to 5; labels."""
    torch.manual_seed(classes)
    weight, labels = torch.randn(classes, D), torch.randint(classes, (N,))
    features = torch.randn(N, D) + torch.linspace(-1, 3, N)[:, None] * weight[labels]
    features *= torch.linspace(5, 57, N)[torch.randperm(N), None] / features.norm(dim=1, keepdim=True)
    return features, weight * torch.linspace(0.3, 5, classes)[:, None], labels


def run(head, features, labels):
    """Loss, hits, and the gradients of features, weight and what is learned besides."""
    z = features.clone().requires_grad_()
    loss, hits = head.loss_and_correct(z, labels)
    grads = torch.autograd.grad(loss * 1.5, (z, *head.parameters()))
    return loss.detach(), hits, *grads


def test_one_shard_is_the_operator_of_one_process(kept):
    features, weight, labels = sample()
    for loss, constants in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            whole, alone = both_heads(loss, torch.float32, classes=C, constants=constants)
            whole.backend = alone.backend = "cpu"
            for head in (whole, alone):
                head.weight.data = weight.to(dtype)
            for training in (True, False):
                whole.train(training), alone.train(training)
                expected, before = run(whole, features, labels), kernels.calls()["cpu"]
                state = {name: value.clone() for name, value in alone.memory.items()}
                found = run(alone, features, labels)
                assert kernels.calls()["cpu"] > before, "it is not pure torch that ran"
                case = (loss, constants, dtype, training)
                assert torch.equal(found[1], expected[1]), case
                for ours, theirs in zip((found[0], *found[2:]), (expected[0], *expected[2:]), strict=True):
                    assert relative(ours, theirs) < (1e-5 if dtype == torch.float32 else 4e-3), case
                for name, value in whole.memory.items():
                    torch.testing.assert_close(alone.memory[name], value, rtol=1e-5, atol=1e-6, msg=str((name, *case)))
                    alone.memory[name].data.copy_(state[name])
                again = run(alone, features, labels)
                assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), ("the same bits", case)


def test_shards_add_up_to_the_loss_in_float64():
    """Three shards of the classes, put together as the ranks do it."""
    features, weight, labels = sample()
    for loss in ("arcface", "curricularface", "sphereface", "magface", "sphereface-r"):
        options = options_of(loss, ORIGINAL.get(loss, {}))
        state = torch.tensor(STATE.get(loss, []))
        call = kernels.numbers_of(OBJECTIVES[loss].kernel(None, options))
        norm = features.norm(dim=1)
        unit = features / norm[:, None]
        cosine = (unit * torch.nn.functional.normalize(weight)[labels]).sum(dim=1)
        targets = OPS.margin_targets(cosine, norm, state, call)
        cuts = [0, 1, 300, C]
        shards = []
        for low, high in itertools.pairwise(cuts):
            own = torch.where((labels >= low) & (labels < high), labels - low, -1)
            shards.append((weight[low:high], own))
        others = [OPS.shard_others(unit, rows, own, targets)[0] for rows, own in shards]
        peak = torch.stack([each[:, 0] for each in others]).amax(dim=0)
        whole = torch.stack([OPS.over_peak(each, targets, peak) for each in others])
        whole = torch.cat([peak[:, None], whole.sum(dim=0)[:, 1:]], dim=1)
        whole[:, 2] = torch.stack([each[:, 2] for each in others]).amax(dim=0)
        losses, statistics = OPS.margin_losses(cosine, norm, targets, whole)
        nothing, one = torch.empty(0, 0), torch.ones(())
        parts = [OPS.shard_gradients(one, unit, *each, statistics, nothing, None, [True, True]) for each in shards]
        by_unit, by_weight = sum(part[0] for part in parts), torch.cat([part[1] for part in parts])
        by_features = by_unit / norm[:, None] + statistics[:, -1:] / N * unit

        z, w = features.double().requires_grad_(), weight.double().requires_grad_()
        truth, rows, _ = margin_loss(z, w, labels, options, {"state": state.double()})
        dz, dw = torch.autograd.grad(truth, (z, w))
        assert relative(losses.mean(), truth.detach()) < 1e-5, loss
        assert relative(whole[:, 2], rows[:, 2]) < 1e-5, loss
        assert relative(by_features, dz) < 1e-5, loss
        assert relative(by_weight, dw) < 1e-5, loss


def test_drawn_classes_count_as_pure_torch_counts_them(kept):
    features, weight, labels = sample()
    for loss, constants in CASES:
        heads = [
            both_heads(loss, dtype, classes=C, constants=constants, sample=0.5)[1]
            for dtype in (torch.float32, torch.float64)
        ]
        heads[0].backend = "cpu"
        results = []
        for head in heads:
            head.weight.data = weight.to(head.weight.dtype)
            results.append(run(head, features.to(head.weight.dtype), labels))
        assert torch.equal(results[0][1], results[1][1]), loss
        for ours, theirs in zip((results[0][0], *results[0][2:]), (results[1][0], *results[1][2:]), strict=True):
            assert relative(ours, theirs) < 1e-5, (loss, constants)


def test_only_the_gradient_that_is_asked_for_and_none_without():
    features, _, labels = sample(40)
    for loss in ("arcface", "uniface"):
        head = both_heads(loss, torch.float32, classes=40)[1]
        with torch.no_grad():
            value = head(features, labels)
        z = features.clone().requires_grad_()
        head.requires_grad_(False)
        head(z, labels).backward()
        assert z.grad is not None and head.weight.grad is None
        head.requires_grad_(True)
        assert head(features, labels).detach() == value
        head(features, labels).backward()
        assert head.weight.grad.abs().sum() > 0


def test_what_is_refused():
    features, weight, labels = sample(40)
    unit, targets = features, torch.zeros(N, 13)
    with pytest.raises(IndexError, match="label 40 of sample 0 is out of range: there are 40 classes"):
        OPS.shard_others(unit, weight, torch.full((N,), 40), targets)
    with pytest.raises(IndexError, match="label -2"):
        OPS.shard_others(unit, weight, torch.full((N,), -2), targets)
    with pytest.raises(ValueError, match=r"expected float32 \[21, 13\], not Float \[21, 12\]"):
        OPS.shard_others(unit, weight, labels, targets[:, :12].contiguous())
    with pytest.raises(ValueError, match=r"times must be float32 \[40\], not Float \[39\]"):
        OPS.shard_others(unit, weight, labels, targets, torch.ones(39))
    with pytest.raises(ValueError, match="there is no loss number 99"):
        OPS.margin_targets(targets[:, 0], targets[:, 1], torch.empty(0), [99.0, 64.0, 0.5])
    with pytest.raises(
        Refused, match=r"^backend: a head whose classes lie apart has no CUDA kernels; use `backend=torch`"
    ):
        resolve_shards("cuda", "cuda")
    assert resolve_shards("auto", "cuda") == resolve_shards("auto", "cpu", torch.float64) == "torch"
    assert resolve_shards("auto", "cpu") == "cpu"
