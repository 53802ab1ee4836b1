"""The compiled margin head against a float64 reference: every loss, dtype and regime, on the CPU and, where there is
one, on a GPU."""

import math

import pytest
import torch
from head_backends import call_of, options_of
from margin_reference import ORIGINAL, STATE, reference

from cifarnet.losses import LOSSES, kernels
from cifarnet.losses.options import margin_options

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")  # loads it, or says why not

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available() or not kernels.build_info().get("cuda"),
            reason="no GPU here, or the extension is built without CUDA",
        ),
    ),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
KEPT = EXTENSION.kept_cosines()
# N, D, C, the most cosines that are kept: few classes, matrix products, chunks of classes
REGIMES = {"few": (33, 70, 10, KEPT), "products": (50, 40, 300, KEPT), "chunks": (70, 24, 9000, 0)}


@pytest.fixture(autouse=True)
def restored():
    """Leaves the extension's settings as they were."""
    yield
    EXTENSION.keep_cosines(KEPT)
    EXTENSION.choose_instruction_set(EXTENSION.instruction_sets()[0])


def sample(loss, n, d, c, device="cpu", dtype=torch.float32, weight_dtype=torch.float32, seed=0):
    """A batch whose rows lie at all angles to their prototypes and whose norms span what adaface and magface tell apart."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(c, d, generator=generator) * 0.3
    labels = torch.randint(c, (n,), generator=generator)
    noise = torch.randn(n, d, generator=generator)
    towards = torch.linspace(-3, 3, n)[:, None] * weight[labels]
    features = torch.nn.functional.normalize(noise + 3 * towards, dim=1) * torch.linspace(3, 120, n)[:, None]
    if loss == "sphereface":
        features *= 0.2
    state = torch.tensor(STATE.get(loss, []))
    return tuple(x.to(device) for x in (features.to(dtype), weight.to(weight_dtype), labels, state))


def compiled(loss, features, weight, labels, state, training=True, **constants):
    """Loss, new state and both gradients from the kernels."""
    constants = {**ORIGINAL[loss], **constants}
    options = options_of(loss, constants)
    z, w = features.detach().requires_grad_(), weight.detach().requires_grad_()
    value, new, _ = kernels.margin_loss(z, w, labels, call_of(options), state, training)
    return value, new, *torch.autograd.grad(value * 1.5, (z, w))


def expected(loss, features, weight, labels, state, training=True, **constants):
    z, w = features.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    value, new = reference(loss, z, w, labels, state, training, **{**ORIGINAL[loss], **constants})
    return value, new, *torch.autograd.grad(value * 1.5, (z, w))


def error(actual, truth):
    """Norm-wise relative error."""
    return ((actual.double() - truth).norm() / truth.norm().clamp_min(1e-12)).item()


def check(loss, batch, tolerance, **constants):
    got, truth = compiled(loss, *batch, **constants), expected(loss, *batch, **constants)
    for name, actual, wanted in zip(("loss", "state", "features", "weight"), got, truth, strict=True):
        if wanted.numel():
            assert error(actual, wanted) <= tolerance, name
    assert got[2].dtype == batch[0].dtype and got[3].dtype == batch[1].dtype and got[0].dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_value_and_gradients(loss, regime, dtype, device):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    check(loss, sample(loss, n, d, c, device, dtype, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("regime", REGIMES)
def test_bf16_features_with_fp32_prototypes(regime, device):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    check("arcface", sample("arcface", n, d, c, device, torch.bfloat16), TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_state_stands_still_in_eval(loss, device):
    batch = sample(loss, 20, 16, 5, device)
    got, truth = compiled(loss, *batch, training=False), expected(loss, *batch, training=False)
    assert error(got[0], truth[0]) <= 1e-5
    assert torch.equal(got[1], batch[3]) and (not got[1].numel() or got[1].data_ptr() != batch[3].data_ptr())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("loss", "constants"),
    [
        ("arcface", {"easy": True}),
        ("arcface", {"margin": 2.0}),
        ("cosface", {"scale": 1.0}),
        ("cosface", {"scale": 128.0}),
        ("curricularface", {"scale": 128.0}),
        ("adaface", {"h": 3.0, "t_alpha": 0.9}),
        *(("sphereface", {"margin": m}) for m in (1, 2, 3, 5)),
    ],
)
def test_constants(loss, constants, device):
    check(loss, sample(loss, 40, 32, 6, device), 2e-5 if constants.get("scale") == 128 else 1e-5, **constants)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_finite_for_any_finite_input(loss, regime, dtype, device):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    z, w, y, state = sample(loss, n, d, c, device)
    most = min(torch.finfo(dtype).max, 3e38)
    w[y[0]] = w[y[1]]  # duplicated prototypes
    z[0], z[1], z[2], z[3] = w[y[0]], -w[y[1]] * 1e3, 0, torch.finfo(dtype).tiny  # |cos| = 1, zero, tiny
    z[4], z[5], z[6] = most, 0, -most / 3  # huge, and a single entry
    z[5, 0] = 1
    w[(y[7] + 1) % c], w[(y[7] + 2) % c], w[y[8]] = 0, most, w[y[8]] * 1e-20
    batch = z.to(dtype), w.to(dtype), y, state
    for scale in (1.0, 128.0):
        for name, x in zip(("loss", "state", "features", "weight"), compiled(loss, *batch, scale=scale), strict=True):
            assert x.isfinite().all(), name


@pytest.mark.parametrize("device", DEVICES)
def test_a_collinear_row_has_no_gradient_but_the_others_are_exact(device):
    z, w, y, state = sample("cosface", 12, 16, 5, device)
    z[0] = 7 * w[y[0]]
    check("cosface", (z, w, y, state), 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("regime", REGIMES)
def test_noncontiguous_inputs(regime, device):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    z, w, y, state = sample("arcface", n, d, c, device)
    strided = z.T.contiguous().T, w.repeat(1, 2)[:, :d], y.repeat_interleave(2)[::2], state
    for a, b in zip(compiled("arcface", *strided), compiled("arcface", z, w, y, state), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("loss", ["adaface", "curricularface"])
def test_same_input_same_bits(loss, regime, device):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    batch = sample(loss, n, d, c, device)
    first = compiled(loss, *batch)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, compiled(loss, *batch), strict=True))


@pytest.mark.parametrize("name", EXTENSION.instruction_sets())
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("regime", REGIMES)
def test_each_instruction_set(regime, dtype, name):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    EXTENSION.choose_instruction_set(name)
    assert EXTENSION.instruction_set() == name
    for loss in ("sphereface", "curricularface", "adaface"):
        check(loss, sample(loss, n, d, c, dtype=dtype, weight_dtype=dtype), TOLERANCE[dtype])


def test_the_thread_count_does_not_change_few_classes():
    batch, threads = sample("arcface", 300, 64, 10), torch.get_num_threads()
    first = compiled("arcface", *batch)
    try:
        torch.set_num_threads(1)
        assert all(torch.equal(a, b) for a, b in zip(first, compiled("arcface", *batch), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("wanted", ["features", "weight"])
@pytest.mark.parametrize("regime", REGIMES)
def test_only_the_gradient_that_is_asked_for(regime, wanted):
    n, d, c, kept = REGIMES[regime]
    EXTENSION.keep_cosines(kept)
    z, w, y, state = sample("magface", n, d, c)
    (z if wanted == "features" else w).requires_grad_()
    (kernels.margin_loss(z, w, y, call_of(margin_options("magface")), state, True)[0] * 1.5).backward()
    both = compiled("magface", z, w, y, state)
    got, other = (z.grad, w.grad) if wanted == "features" else (w.grad, z.grad)
    assert other is None
    assert torch.equal(got, both[2 if wanted == "features" else 3])


def test_the_rows_hold_what_sharding_needs():
    z, w, y, state = sample("cosface", 9, 16, 200)
    call = [kernels.loss_number("cosface"), 64.0, 0.35]
    _, _, rows, _ = torch.ops.cifarnet.margin_loss(z, w, y, state, call, True)
    norm, cosine, highest, log_others = rows[:, :4].T
    unit = torch.nn.functional.normalize
    truth = unit(z.double()) @ unit(w.double()).T
    own = torch.nn.functional.one_hot(y, 200).bool()
    torch.testing.assert_close(norm.double(), z.double().norm(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(cosine.double(), truth[own], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(highest.double(), truth.masked_fill(own, -1).amax(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        log_others.double(), (64 * truth).masked_fill(own, -math.inf).logsumexp(1), rtol=1e-6, atol=1e-5
    )


def test_what_is_refused():
    z, w, y, state = sample("arcface", 6, 8, 4)

    def run(z, w, y, state=state, loss="arcface"):
        return kernels.margin_loss(z, w, y, call_of(margin_options(loss)), state, True)

    with pytest.raises(IndexError, match=r"label 4 of sample 2 is out of range: there are 4 classes"):
        run(z, w, torch.tensor([0, 1, 4, 0, 0, 0]))
    with pytest.raises(IndexError, match="label -1"):
        run(z, w, torch.tensor([0, 1, 3, 0, 0, -1]))
    with pytest.raises(ValueError, match="the batch is empty"):
        run(z[:0], w, y[:0])
    with pytest.raises(ValueError, match="at least 2 classes"):
        run(z, w[:1], y)
    with pytest.raises(ValueError, match=r"features must be \[N, D\]"):
        run(z[:, :5], w, y)
    with pytest.raises(ValueError, match="labels must be int64"):
        run(z, w, y.int())
    with pytest.raises(TypeError, match="float32, bfloat16 or float16"):
        run(z.double(), w, y)
    with pytest.raises(ValueError, match="2 numbers of float32 state"):
        run(z, w, y, loss="adaface")


def test_every_angular_loss_has_its_kernels():
    assert sorted(EXTENSION.losses() + EXTENSION.one_vs_all_losses()) == sorted(
        name for name, row in LOSSES.items() if row.angular and row.kernels and not row.borrows
    )
    assert {row.borrows for row in LOSSES.values()} - {""} <= set(EXTENSION.losses())
    assert [kernels.loss_number(name) for name in EXTENSION.losses()] == list(range(len(EXTENSION.losses())))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("number", [-1, len(EXTENSION.losses()), 1 << 40])
def test_an_unknown_loss_number_is_an_error(number, device):
    z, w, y, state = sample("arcface", 6, 8, 4, device)
    with pytest.raises(ValueError, match=f"there is no loss number {number}"):
        torch.ops.cifarnet.margin_loss(z, w, y, state, [number, 64.0, 0.5, 0.0], True)


@pytest.mark.parametrize("constants", [[], [0.3, 0.01, 0.0]])
def test_another_number_of_constants_is_an_error(constants):
    """A row of LOSSES and the loss in C++ must have the same ones."""
    z, w, y, state = sample("adaface", 6, 8, 4)
    with pytest.raises(ValueError, match=f"adaface has 2 constants besides scale and margin, not {len(constants)}"):
        call = [kernels.loss_number("adaface"), 64.0, 0.4, *constants]
        torch.ops.cifarnet.margin_loss(z, w, y, state, call, True)


def test_a_second_derivative_is_refused():
    z, w, y, state = sample("arcface", 6, 8, 4)
    z.requires_grad_()
    loss, *_ = kernels.margin_loss(z, w, y, call_of(margin_options("arcface")), state, True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(loss, z, create_graph=True)
