"""The kernels of the losses of more_rows.py against the same heads in pure torch and float64, which have tests against the papers."""

import copy

import pytest
import torch
from head_backends import BACKENDS
from test_objectives import CASES, sample

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


@pytest.fixture(params=[each for each in BACKENDS if each != "torch"])
def backend(request, monkeypatch):
    """The CPU's kernels, CUDA's run on the CPU, and where there is a GPU on it. It is a function that sets how many cosines are kept."""
    families = {"cpu": "cpu", "host": "cuda", "cuda": "cuda"}
    if request.param == "host":
        on_host = request.getfixturevalue("on_host")
        monkeypatch.setattr(kernels, "margin_loss", host_loss(on_host))
        monkeypatch.setattr(torch.ops.cifarnet, "normal_draws", on_host.normal_draws)
    kept, here = EXTENSION.kept_cosines(), request.param

    def keep(most):
        (on_host if here == "host" else EXTENSION).keep_cosines(most)

    keep.on, keep.device = here, "cuda" if here == "cuda" else "cpu"
    keep.fused = [(loss, options) for loss, options in FUSED if families[here] in LOSSES[loss].kernels]
    yield keep
    keep(kept)


def host_loss(on_host):
    """kernels.margin_loss by the operators that run CUDA's code on the CPU."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, features, weight, labels, call, state, training):
            numbers = [on_host.losses().index(call.loss), call.scale, call.margin, *call.constants]
            given = features, weight, labels, state, numbers
            loss, new, rows, cosines = on_host.margin_loss(*given, training, call.margins, call.weights)
            ctx.save_for_backward(features, weight, labels, rows, cosines)
            ctx.mark_non_differentiable(new, rows)
            return loss, new, rows

        @staticmethod
        def backward(ctx, grad, *_):
            return *on_host.margin_loss_backward(grad, *ctx.saved_tensors, True, True), None, None, None, None

    return Loss.apply


def step(head, z, y):
    """Loss, hits and the gradients of z and W, on the CPU."""
    z = z.detach().clone().to(head.weight.device).requires_grad_()
    loss, hits = head.loss_and_correct(z, y.to(z.device))
    return tuple(value.detach().cpu() for value in (loss, hits, *torch.autograd.grad(loss, (z, head.weight))))


def relative(ours, truth):
    return ((ours.double() - truth).norm() / truth.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("regime", REGIMES)
def test_values_gradients_and_what_is_kept(backend, regime):
    classes, kept = REGIMES[regime]
    backend(kept)
    exact = torch.float32, 1e-5, 5e-5, 1e-5  # of the loss, the gradients, what is kept
    coarse = torch.bfloat16, 1e-2, 2e-2, 2e-3  # CUDA's cosines are then fp16
    for number, (loss, options) in enumerate(backend.fused):
        slow = backend.on == "host" and regime != "few"  # a thread at a time takes long
        if slow and number % 5:
            continue
        for dtype, of_value, of_gradient, of_memory in (exact, coarse) if number % 2 == 0 else (exact,):
            head, z, y = sample(loss, options, 1, torch.float32, classes)
            z, y = z[: 4 if slow else 9].to(dtype), y[: 4 if slow else 9]
            truth = copy.deepcopy(head).double()
            truth.backend, head.backend = "torch", backend.device
            truth.state.copy_(head.state)
            head.to(backend.device)
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
                        head.memory[name].cpu().double(),
                        value.double(),
                        rtol=of_memory,
                        atol=1e-5,
                        msg=f"{what} {name}",
                    )


@pytest.mark.parametrize("t", [0.3, 7.5, 100.0, 1000.0])
@pytest.mark.parametrize("loss", ["mv-arcface", "mv-cosface"])
def test_steep_negatives_in_sixteen_bits(backend, loss, t):
    """A share of the gradient is up to 1 + t: it stays within fp16."""
    backend(1 << 23)
    head, z, y = sample(loss, {"t": t, "scale": 4.0}, 1, torch.float32, 96)
    z, y = z[:9].half(), y[:9]
    truth = copy.deepcopy(head).double()
    truth.backend, head.backend = "torch", backend.device
    ours, theirs = step(head.to(backend.device), z, y), step(truth, z.double(), y)
    assert relative(ours[2], theirs[2]) < 1e-2 and relative(ours[3], theirs[3]) < 1e-2


def test_rows_of_every_norm(backend):
    """From 1e-30 to 1e30, on the prototype and opposite to it: each row's gradient is that of float64."""
    powers = [10.0**power for power in (-30, -10, -2, 0, 1.1, 3, 10, 30)]
    for regime in ("few", "chunks") if backend.on == "cpu" else ("few",):
        backend(REGIMES[regime][1])
        for loss, options in backend.fused:
            torch.manual_seed(3)
            head = MarginHead(16, REGIMES[regime][0], loss, backend=backend.device, **options).train()
            unit = torch.nn.functional.normalize(torch.randn(len(powers), 16))
            y = torch.arange(len(powers)) % 7
            own = head.weight.detach()[y[:2]]
            unit[:2] = (own[:, 0] if own.dim() == 3 else own) * torch.tensor([[1.0], [-1.0]])
            z = unit * torch.tensor(powers)[torch.randperm(len(powers)), None]
            truth = copy.deepcopy(head).double()
            truth.backend = "torch"
            truth.state.copy_(head.state)
            ours, theirs = step(head.to(backend.device), z, y), step(truth, z.double(), y)
            assert all(value.isfinite().all() for value in ours), (loss, options)
            assert relative(ours[0], theirs[0]) < 1e-4, (loss, options)
            # At 0 and 180 degrees a sine is rounding's.
            for row, true in zip(ours[2].double()[2:], theirs[2][2:], strict=True):
                if true.norm() > 1e-30:
                    assert (row - true).norm() < 1e-3 * true.norm(), (loss, options, true.norm())


def test_not_finite_in_not_finite_out(backend):
    for regime in REGIMES if backend.on == "cpu" else ("few",):
        backend(REGIMES[regime][1])
        for loss, options in backend.fused:
            head, z, y = sample(loss, options, 2, torch.float32, REGIMES[regime][0])
            head.backend, z, y = backend.device, z[:9], y[:9]
            head.to(backend.device)
            before = {name: value.clone() for name, value in head.memory.items()}
            z[3, 4] = torch.nan
            value, _, dz, dw = step(head, z, y)
            assert not value.isfinite() and not dz[3].isfinite().any() and not dw.isfinite().any(), (loss, options)
            assert all(torch.equal(value, before[name]) for name, value in head.memory.items()), (loss, options)


def test_draws_are_those_of_pure_torch(backend):
    device = backend.device
    for state in ([0.0, 5.0], [123456.0, 16777215.0]):
        ours = torch.ops.cifarnet.normal_draws(torch.tensor(state, device=device), 1, 5000, 0.5, 0.05)
        theirs = normal_draws(torch.tensor(state, dtype=torch.float64), 1, 5000, 0.5, 0.05)
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=0, atol=1e-6)


def test_a_step_with_what_samples_have_of_their_own_compiles(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for loss, options in (
        ("ldam", {"drw": True}),
        ("elastic-cosface", {"plus": True}),
        ("kappaface", {}),
        ("adacos", {}),
        ("subcenter-arcface", {}),
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
            torch.ops.cifarnet.margin_loss(z, w, y, state, [number, 64.0, 0.35], True, margins)
