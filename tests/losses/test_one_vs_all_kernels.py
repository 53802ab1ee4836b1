"""The compiled one-vs-all losses, on the CPU and as the CUDA code runs on it, against the papers' formulas and float64."""

import itertools

import pytest
import torch
from objective_reference import reference
from torch.amp import GradScaler

from cifarnet.losses import MarginHead, kernels
from cifarnet.losses.margin_loss import margin_loss

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")

CASES = [("uniface", {}), ("uniface", {"negative_weight": 0.3, "margin": 0.0})]
CASES += [("sphereface2", {"variant": v}) for v in "CAM"] + [("sphereface2", {"detach": True, "loss_weight": 50.0})]
CASES += [("sphereface2", {"t": t, "variant": v}) for t, v in ((1.0, "C"), (2.5, "C"), (7.0, "A"))]
# N, D, C: own loops (the last a vector and more), one product, two chunks of classes
SHAPES = [(33, 20, 2), (33, 70, 10), (21, 33, 64), (21, 33, 65), (24, 40, 1000), (120, 24, 5000)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.fixture(params=["cpu", "host"])
def op(request):
    """The operator; on the host it is the CUDA backend's, which keeps no cosines here, so that 1,024 classes are a chunk."""
    if request.param == "cpu":
        yield torch.ops.cifarnet.one_vs_all
        return EXTENSION.choose_instruction_set(EXTENSION.instruction_sets()[0])
    on_host = request.getfixturevalue("on_host")
    on_host.keep_cosines(0)
    yield on_host.one_vs_all
    on_host.keep_cosines(1 << 23)


def sample(loss, options, n=33, d=20, c=10, dtype=torch.float32):
    """A head, and features at all angles to their prototypes, of lengths 1 to 60."""
    torch.manual_seed(c)
    head = MarginHead(d, c, loss, backend="cpu", **options)
    y = torch.randint(c, (n,))
    z = torch.randn(n, d) / d**0.5 + torch.linspace(-2, 3, n)[:, None] * head.weight.detach()[y]
    z = z / z.norm(dim=1, keepdim=True) * torch.linspace(1, 60, n)[torch.randperm(n), None]
    head.weight.data = (head.weight.data * torch.linspace(0.3, 5, c)[:, None]).to(dtype)
    return head, z.to(dtype), y


def run(op, head, z, y, wanted=(True, True)):
    """Loss, rows, gradients of z, W and b, all fp32."""
    call = kernels.numbers_of(head.objective.kernel(head.options))
    return op(z, head.weight.detach(), y, head.bias.detach(), call, *wanted)


def expected(head, z, y):
    z, w, b = (x.detach().double().requires_grad_() for x in (z, head.weight, head.bias))
    loss, rows, _ = margin_loss(z, w, y, head.options, {"bias": b})
    return loss.detach(), rows, *torch.autograd.grad(loss, (z, w, b))


def errors(found, truth):
    """Of the loss, the rows (absolute), both gradients (as a whole, and the worst row against its own length), the bias."""
    for ours, true in zip(found, truth, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == true.shape
    loss, rows, *grads = ((ours.double() - true).abs() for ours, true in zip(found, truth, strict=True))
    norms = [(off.norm() / true.norm()).item() for off, true in zip(grads, truth[2:], strict=True)]
    by_row = [
        (off.norm(dim=1) / true.norm(dim=1)).max().item() for off, true in zip(grads[:2], truth[2:4], strict=True)
    ]
    return {"loss": (loss / truth[0]).item(), "rows": rows[:, 1:].max().item(), "norms": max(norms), "row": max(by_row)}


def check(found, truth, dtype, case):
    for name, error in errors(found, truth).items():
        loose = 4 if name == "row" else 1  # four roundings of a cosine at scale s
        assert error <= TOLERANCE[dtype] * loose, (case, name, error)


def test_values_are_the_papers_and_gradients_those_of_float64(op):
    shapes = SHAPES if op is torch.ops.cifarnet.one_vs_all else [(5, 20, 10)]
    for (loss, options), shape in itertools.product(CASES, shapes):
        head, z, y = sample(loss, options, *shape)
        found = run(op, head, z, y)
        check(found, expected(head, z, y), z.dtype, (loss, options, shape))
        if shape[2] <= 65:
            kept = {"bias": head.bias.detach().double().numpy()}
            numbers = z.double().numpy(), head.weight.detach().double().numpy(), y.numpy()
            assert found[0].item() == pytest.approx(reference(loss, head.options.constants, *numbers, kept), rel=1e-5)


def test_chunks_of_classes_and_16_bits(op):
    for (loss, options), dtype in itertools.product((CASES[0], CASES[2]), TOLERANCE):
        head, z, y = sample(loss, options, 4, 20, 1100, dtype)
        check(run(op, head, z, y), expected(head, z, y), dtype, (loss, options, dtype))


def test_cosines_that_cuda_keeps(on_host):
    for dtype in TOLERANCE:
        head, z, y = sample("sphereface2", {}, 9, 20, 70, dtype)
        check(run(on_host.one_vs_all, head, z, y), expected(head, z, y), dtype, dtype)


def test_each_instruction_set_gives_the_same():
    try:
        for name, (loss, options), shape in itertools.product(EXTENSION.instruction_sets(), CASES, SHAPES[1:5:3]):
            EXTENSION.choose_instruction_set(name)
            head, z, y = sample(loss, options, *shape)
            check(run(torch.ops.cifarnet.one_vs_all, head, z, y), expected(head, z, y), z.dtype, (name, loss, options))
    finally:
        EXTENSION.choose_instruction_set(EXTENSION.instruction_sets()[0])


def test_no_finite_value_breaks_it_and_what_is_not_finite_shows(op):
    cases = [("sphereface2", {"t": 100.0}), ("uniface", {"scale": 1000.0}), *CASES[2:5], CASES[7]]
    on_host = op is not torch.ops.cifarnet.one_vs_all
    for (loss, options), c in itertools.product(cases[:1] if on_host else cases, (2, 70)):
        head, z, y = sample(loss, options, 40, 16, c)
        w = head.weight.data
        w[1] = w[0]
        z[:20] = w[y[:20]] * torch.tensor([1.0, -1.0]).repeat(10)[:, None]  # |cos| = 1
        z *= 10 ** torch.linspace(-30, 29, 40)[torch.randperm(40), None]
        z[0], w[y[33]] = 0, w[y[33]] * 1e-33  # no direction
        found = run(op, head, z, y)
        assert all(x.isfinite().all() for x in found) and found[0] >= 0, (loss, options, c)
        assert (found[2][0] == 0).all() and (found[3][y[33]] == 0).all()
    for bad in (float("nan"), float("inf")):
        for place in ("features", "weight", "bias"):
            head, z, y = sample("sphereface2", {"t": 2.5}, 6, 16, 70)
            {"features": z[3], "weight": head.weight.data[y[3]], "bias": head.bias.data}[place][0] = bad
            loss, _, dz, dw, _ = run(op, head, z, y)
            assert not loss.isfinite(), (bad, place)
            if place == "features":
                assert not dz[3].isfinite().any() and dz[4:].isfinite().all() and not dw.isfinite().all(1).any()


def test_far_logits_keep_their_digits(op):
    """Losses of 1e-30 and of thousands."""
    for b in (-75.0, 75.0, 3000.0):
        head, z, y = sample("uniface", {"scale": 2.0}, 12, 16, 20)
        head.bias.data[0] = b
        check(run(op, head, z, y), expected(head, z, y), z.dtype, b)
    head, z, y = sample("uniface", {"scale": 60.0, "negative_weight": 0.0}, 5, 16, 20)
    z, head.bias.data[0] = head.weight.detach()[y], -30.0  # all are right: e^-66
    found, truth = run(op, head, z, y)[0].item(), expected(head, z, y)[0].item()
    assert found == pytest.approx(truth, rel=1e-4) and 0 < truth < 1e-28


def test_same_input_same_bits(op):
    threads = torch.get_num_threads()
    for shape in (
        ((300, 64, 10), (40, 24, 7000)) if op is torch.ops.cifarnet.one_vs_all else ((12, 8, 10), (4, 8, 1100))
    ):
        head, z, y = sample("sphereface2", {}, *shape)
        first = run(op, head, z, y)
        assert all(torch.equal(a, b) for a, b in zip(first, run(op, head, z, y), strict=True))
        if shape == (300, 64, 10):
            torch.set_num_threads(1)
            try:
                assert all(torch.equal(a, b) for a, b in zip(first, run(op, head, z, y), strict=True))
            finally:
                torch.set_num_threads(threads)


def test_only_what_is_asked_for_is_computed(op):
    for c in (10, 70):
        head, z, y = sample("uniface", {}, 6, c=c)
        both = run(op, head, z, y)
        for wanted in ((True, False), (False, True), (False, False)):
            found = run(op, head, z, y, wanted)
            for index in (0, 1, 4):
                torch.testing.assert_close(found[index], both[index], rtol=1e-6, atol=0)
            for gradient, whole, want in zip(found[2:4], both[2:4], wanted, strict=True):
                assert torch.equal(gradient, whole) if want else gradient.numel() == 0


def test_labels_out_of_range_and_other_refusals(on_host):
    head, z, y = sample("uniface", {}, c=4)
    cpu, bad = torch.ops.cifarnet.one_vs_all, y.clone()
    bad[2] = 4
    with pytest.raises(IndexError, match="label 4 of sample 2 is out of range: there are 4 classes"):
        run(cpu, head, z, bad)
    with pytest.raises(RuntimeError, match="device-side assertion: label >= 0"):
        run(on_host.one_vs_all, head, z, bad)
    weight, bias = head.weight.detach(), head.bias.detach()
    for each in (cpu, on_host.one_vs_all):
        with pytest.raises(ValueError, match="there is no loss number 2"):
            each(z, weight, y, bias, [2, 64.0, 0.4, 1.0, 1.0], True, True)
        with pytest.raises(ValueError, match="uniface has 2 constants besides scale and margin, not 3"):
            each(z, weight, y, bias, [1, 64.0, 0.4, 1.0, 1.0, 1.0], True, True)
        with pytest.raises(ValueError, match="bias must be one number"):
            each(z, weight, y, torch.zeros(4), [1, 64.0, 0.4, 1.0, 1.0], True, True)
        with pytest.raises(ValueError, match=r"features must be \[N, D\]"):
            each(z[:, :5], weight, y, bias, [1, 64.0, 0.4, 1.0, 1.0], True, True)
    z.requires_grad_()
    with pytest.raises(NotImplementedError, match="no second derivative; use backend='torch'"):
        torch.autograd.grad(head(z, y), z, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"torch\.func's transforms; use backend='torch'"):
        torch.func.grad(lambda x: head(x, y))(z.detach())
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        head(torch.autograd.forward_ad.make_dual(z.detach(), torch.ones_like(z)), y)


def test_the_head_runs_it_and_learns_its_bias():
    for loss, c in itertools.product(("uniface", "sphereface2"), (10, 70)):
        head, z, y = sample(loss, {}, c=c)
        truth, z = expected(head, z, y), z.requires_grad_()
        before = kernels.calls()["cpu"]
        value = head(z, y)
        assert kernels.calls()["cpu"] == before + 1
        parts = z, head.weight, head.bias
        first = torch.autograd.grad(value, parts, retain_graph=True)
        copies = [part.clone() for part in first]
        for part in first:
            part.mul_(3)  # whoever asks for a gradient may change it
        twice = torch.autograd.grad(value, parts, torch.tensor(2.0), retain_graph=True)
        last = torch.autograd.grad(value, parts)
        for copy, double, again, true in zip(copies, twice, last, truth[2:], strict=True):
            assert torch.equal(copy, again) and torch.equal(2 * copy, double) and not again.requires_grad
            assert (copy.double() - true).norm() <= 1e-5 * true.norm()


def test_a_gradient_scaler_factor_comes_before_the_cast_to_fp16():
    """At a factor of 65,536 every row has its digits, also one that fp16 alone would lose; what is too large is infinite."""
    for c in (10, 70):
        head, z, y = sample("uniface", {"scale": 1.0}, c=c)
        head.weight.data, large = head.weight.data.half(), (z * 1000).half().requires_grad_()
        (head(large, y) * 65536.0).backward()
        truth = expected(head, large, y)[2]
        assert large.grad.dtype == head.weight.grad.dtype == torch.float16 and head.bias.grad.dtype == torch.float32
        assert ((large.grad.double() / 65536 - truth).norm(dim=1) <= 1e-3 * truth.norm(dim=1)).all()
        assert ((truth.half().double() - truth).norm(dim=1) > 1e-3 * truth.norm(dim=1)).any()
        tiny = (z * 1e-3).half().requires_grad_()
        (head(tiny, y) * 65536.0).backward()
        assert tiny.grad.isinf().any() and not tiny.grad.isnan().any()
    scaler, head = GradScaler("cpu", init_scale=65536.0), MarginHead(8, 5, "uniface", backend="cpu")
    step, before = torch.optim.SGD(head.parameters(), lr=0.1), head.bias.item()
    scaler.scale(head(torch.randn(6, 8).half().requires_grad_(), torch.arange(6) % 5)).backward()
    scaler.step(step)
    assert head.bias.item() != before


def test_evaluation_computes_no_gradient():
    for c in (10, 70):
        head, z, y = sample("sphereface2", {}, c=c)
        z.requires_grad_()
        with torch.inference_mode():
            value = head.eval()(z, y)
        with torch.no_grad():
            again = head(z, y)
        whole = head(z, y)
        assert torch.equal(value, again) and not again.requires_grad and whole.requires_grad
        torch.testing.assert_close(value, whole.detach(), rtol=1e-6, atol=0)
        head.requires_grad_(False)
        head(z, y).backward()
        assert z.grad.norm() > 0 and head.weight.grad is None and head.bias.grad is None
        head.bias.requires_grad_()  # it alone learns
        head(z.detach(), y).backward()
        torch.testing.assert_close(head.bias.grad.double(), expected(head, z, y)[4], rtol=1e-5, atol=1e-7)


def test_opcheck():
    head, z, y = sample("sphereface2", {}, 12, 20, 7)
    call = kernels.numbers_of(head.objective.kernel(head.options))
    arguments = (z.requires_grad_(), head.weight, y, head.bias, call, True, True)
    torch.library.opcheck(torch.ops.cifarnet.one_vs_all, arguments)


def test_a_training_step_compiles_without_graph_breaks(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # no graph of an earlier build
    head, z, y = sample("sphereface2", {}, 12, 20, 7)
    step = torch.compile(lambda x, labels: head(x * 2, labels), fullgraph=True, backend="aot_eager")
    for factor in (1.0, 3.0):
        features = z.clone().requires_grad_()
        value = step(features, y)
        grads = torch.autograd.grad(value * factor, (features, head.weight, head.bias))
        plain = z.clone().requires_grad_()
        eager = head(plain * 2, y)
        torch.testing.assert_close(value, eager)
        torch.testing.assert_close(grads, torch.autograd.grad(eager * factor, (plain, head.weight, head.bias)))
    with torch.no_grad():
        torch.testing.assert_close(step(z, y), eager.detach())


def test_the_numbers_are_the_operators_own():
    assert [kernels.loss_number(name) for name in EXTENSION.one_vs_all_losses()] == [0, 1]
    assert EXTENSION.one_vs_all_losses() == ["sphereface2", "uniface"]
