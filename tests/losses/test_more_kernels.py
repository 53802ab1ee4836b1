"""The kernels of the losses of more_rows.py against the same heads in pure torch and float64, which have tests against the papers."""

import copy

import pytest
import torch
from test_objectives import CASES, sample

from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, MarginHead, kernels
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Softmax
from cifarnet.losses.objectives.elastic import normal_draws

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")
FUSED = [(loss, o) for loss, o in CASES if isinstance(OBJECTIVES[loss], Softmax) and LOSSES[loss].kernels]
FUSED += [("sphereface-r", {"variant": v, "margin_step": 0.1}) for v in ("v0", "v2")]
FUSED += [
    ("sphereface-r", {"variant": "v2", "margin": 1.0}),
    ("sphereface-r", {"variant": "v2", "margin": 7.0, "norm": "none"}),
]
# Classes, and the most cosines that are kept: few classes, products, chunks of classes.
REGIMES = {"few": (7, 1 << 23), "products": (70, 1 << 23), "chunks": (1100, 0)}


@pytest.fixture(params=["cpu", "host"])
def backend(request, monkeypatch):
    """The CPU's kernels, and CUDA's run on the CPU."""
    if request.param == "host":
        on_host = request.getfixturevalue("on_host")
        monkeypatch.setattr(kernels, "margin_loss", host_loss(on_host))
        monkeypatch.setattr(torch.ops.cifarnet, "normal_draws", on_host.normal_draws)
    kept, here = EXTENSION.kept_cosines(), request.param

    def keep(most):
        (EXTENSION if here == "cpu" else on_host).keep_cosines(most)

    keep.__name__ = here
    yield keep
    keep(kept)


def host_loss(on_host):
    """kernels.margin_loss by the operators that run CUDA's code on the CPU."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, features, weight, labels, call, state, training):
            given = features, weight, labels, state, on_host.losses().index(call.loss), call.scale, call.margin
            loss, new, rows, cosines = on_host.margin_loss(*given, call.constants, training, call.margins, call.weights)
            ctx.save_for_backward(features, weight, labels, rows, cosines)
            ctx.mark_non_differentiable(new, rows)
            return loss, new, rows

        @staticmethod
        def backward(ctx, grad, *_):
            return *on_host.margin_loss_backward(grad, *ctx.saved_tensors, True, True), None, None, None, None

    return Loss.apply


def step(head, z, y):
    """Loss, hits and the gradients of z and W."""
    z = z.detach().clone().requires_grad_()
    loss, hits = head.loss_and_correct(z, y)
    return loss.detach(), hits, *torch.autograd.grad(loss, (z, head.weight))


def relative(ours, truth):
    return ((ours.double() - truth).norm() / truth.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("regime", REGIMES)
def test_values_gradients_and_what_is_kept(backend, regime):
    classes, kept = REGIMES[regime]
    backend(kept)
    exact, coarse = (
        (torch.float32, 1e-5, 5e-5, 1e-5),
        (torch.bfloat16, 1e-2, 2e-2, 2e-3),
    )  # coarse: of CUDA's cosines, in fp16
    for number, (loss, options) in enumerate(FUSED):
        if regime == "chunks" and backend.__name__ == "host" and number % 3:
            continue  # a thread at a time takes long
        for dtype, of_value, of_gradient, of_memory in (exact, coarse) if number % 3 == 0 else (exact,):
            head, z, y = sample(loss, options, 1, torch.float32, classes)
            z, y = z[:9].to(dtype), y[:9]
            truth = copy.deepcopy(head).double()
            truth.backend, head.backend = "torch", "cpu"
            truth.state.copy_(head.state)
            for training in (True, False):
                head.train(training), truth.train(training)
                before = kernels.calls()["torch"]
                ours, theirs = step(head, z, y), step(truth, z.double(), y)
                assert kernels.calls()["torch"] == before + 1
                what = (loss, options, dtype, training)
                assert relative(ours[0], theirs[0]) < of_value, what
                assert torch.equal(ours[1], theirs[1]), what
                assert relative(ours[2], theirs[2]) < of_gradient and relative(ours[3], theirs[3]) < of_gradient, what
                for name, value in truth.memory.items():
                    torch.testing.assert_close(
                        head.memory[name].double(), value.double(), rtol=of_memory, atol=1e-5, msg=f"{what} {name}"
                    )


def test_rows_of_every_norm_stay_finite_and_are_independent(backend):
    """From 1e-30 to 1e30, on the prototype and opposite to it: each row's gradient is that of float64."""
    powers = [10.0**power for power in (-30, -10, -2, 0, 1.1, 3, 10, 30)]
    for regime in ("few", "chunks") if backend.__name__ == "cpu" else ("few",):
        backend(REGIMES[regime][1])
        for loss, options in FUSED:
            torch.manual_seed(3)
            head = MarginHead(16, REGIMES[regime][0], loss, backend="cpu", **options).train()
            unit = torch.nn.functional.normalize(torch.randn(len(powers), 16))
            y = torch.arange(len(powers)) % 7
            unit[:2] = head.weight.detach().reshape(len(head.weight), -1, 16)[y[:2], 0] * torch.tensor([[1.0], [-1.0]])
            z = (unit * torch.tensor(powers)[torch.randperm(len(powers)), None]).requires_grad_()
            truth = copy.deepcopy(head).double()
            truth.backend = "torch"
            truth.state.copy_(head.state)
            value = head(z, y)
            value.backward()
            assert value.isfinite() and z.grad.isfinite().all() and head.weight.grad.isfinite().all(), (loss, options)
            twin = z.detach().double().requires_grad_()
            expected = truth(twin, y)
            expected.backward()
            assert relative(value, expected) < 1e-4, (loss, options)


def test_not_finite_in_not_finite_out(backend):
    for regime in REGIMES if backend.__name__ == "cpu" else ("few",):
        backend(REGIMES[regime][1])
        for loss, options in FUSED:
            head, z, y = sample(loss, options, 2, torch.float32, REGIMES[regime][0])
            head.backend, z, y = "cpu", z[:9], y[:9]
            before = {name: value.clone() for name, value in head.memory.items()}
            z[3, 4] = torch.nan
            value, _, dz, dw = step(head, z, y)
            assert not value.isfinite() and not dz[3].isfinite().any() and not dw.isfinite().any(), (loss, options)
            assert all(torch.equal(value, before[name]) for name, value in head.memory.items()), (loss, options)


def test_draws_are_those_of_pure_torch(backend):
    for state in ([0.0, 5.0], [123456.0, 16777215.0]):
        ours = torch.ops.cifarnet.normal_draws(torch.tensor(state), 1, 5000, 0.5, 0.05)
        theirs = normal_draws(torch.tensor(state, dtype=torch.float64), 1, 5000, 0.5, 0.05)
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-6)


def test_a_step_with_what_samples_have_of_their_own_compiles(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for loss, options in (
        ("ldam", {"drw": True}),
        ("elastic-cosface", {"plus": True}),
        ("kappaface", {}),
        ("adacos", {}),
    ):
        torch._dynamo.reset()
        head, z, y = sample(loss, options, 1, torch.float32)
        twin = copy.deepcopy(head)
        compiled = torch.compile(lambda z, y, head=head: head(z, y), fullgraph=True, backend="aot_eager")
        for _ in range(2):
            torch.testing.assert_close(compiled(z, y), twin(z, y), rtol=1e-6, atol=1e-6)
        for name, value in twin.memory.items():
            torch.testing.assert_close(head.memory[name], value, rtol=1e-6, atol=1e-6)


def test_what_samples_have_of_their_own_is_checked():
    z, w, y, state = torch.randn(4, 8), torch.randn(5, 8), torch.arange(4), torch.empty(0)
    number = kernels.loss_number("cosface")
    for margins in (torch.zeros(3), torch.zeros(4, dtype=torch.float64), torch.zeros(4, 1)):
        with pytest.raises(ValueError, match="margins must be float32"):
            torch.ops.cifarnet.margin_loss(z, w, y, state, number, 64.0, 0.35, [], True, margins)
    with pytest.raises(
        Refused, match="subcenter-arcface has no compiled kernels, pure torch runs it; use `backend=torch`"
    ):
        kernels.resolve("cpu", "cpu", loss="subcenter-arcface")
