"""A margin head at the ends of its range, on each backend: NaN, Inf, 16-bit overflow, norms from 1e-30 to 1e30."""

import math

import pytest
import torch
from head_backends import BACKENDS, evaluate
from margin_reference import ORIGINAL, STATE, reference

from cifarnet.losses import MarginHead

assert evaluate  # a fixture
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = {"few": (9, 16, 6, 1 << 23), "products": (9, 16, 70, 1 << 23), "chunks": (3, 6, 1100, 0)}


def draw(n, d, c, loss, seed=0):
    g = torch.Generator().manual_seed(seed)
    z, w = torch.randn(n, d, generator=g) * 3, torch.randn(c, d, generator=g)
    return z, w, torch.randint(c, (n,), generator=g), torch.tensor(STATE.get(loss, []))


def broken(x):
    """True where entries are NaN or Inf."""
    return ~x.isfinite()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_not_finite_in_not_finite_out(evaluate, loss, dtype, shape, backend, bad):
    n, d, c, kept = SHAPES[shape]
    z, w, y, state = draw(n, d, c, loss)
    z, w = z.to(dtype), w.to(dtype)
    good = evaluate(backend, loss, z, w, y, state, most_kept=kept)
    assert not any(broken(x).any() for x in good)

    features = z.clone()
    features[2, 5] = bad
    value, new, dz, dw = evaluate(backend, loss, features, w, y, state, most_kept=kept)
    assert broken(value) and broken(dz[2]).all() and broken(dw).all()
    assert torch.equal(new, state)

    prototypes = w.clone()
    prototypes[(y[0] + 1) % c, 3] = bad
    value, new, dz, dw = evaluate(backend, loss, z, prototypes, y, state, most_kept=kept)
    assert broken(value) and broken(dz).all() and broken(dw).all()
    assert torch.equal(new, state)

    value, new, dz, dw = evaluate(backend, loss, z, w, y, state, upstream=bad, most_kept=kept)
    assert value.isfinite() and torch.equal(new, good[1])
    assert broken(dz).any(dim=1).all() and broken(dw).any()
    if math.isnan(bad):
        assert broken(dz).all() and broken(dw).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_fp16_gradient_overflows_to_infinity(evaluate, shape, backend):
    """The entries that fp16 cannot hold are infinite with the right sign, and all others are what they were."""
    n, d, c, kept = SHAPES[shape]
    z, w, y, state = draw(n, d, c, "arcface")
    z, w = (z / 100).half(), w.half()
    small = [x.double() for x in evaluate(backend, "arcface", z, w, y, state, most_kept=kept)[2:]]
    upstream = 65504.0
    large = [x.double() for x in evaluate(backend, "arcface", z, w, y, state, upstream=upstream, most_kept=kept)[2:]]
    assert large[0].isinf().any()
    for one, many in zip(small, large, strict=True):
        beyond, within = one.abs() * upstream > 66_000, (one.abs() * upstream < 65_000) & (one.abs() > 1e-2)
        assert torch.equal(many[beyond], one[beyond].sign() * math.inf)
        torch.testing.assert_close(many[within], one[within] * upstream, rtol=2e-3, atol=0)


def scaled_steps(backend, steps=40):
    """Features' gradients, scale and whether it stepped, of each step of fp16 training with a gradient scaler."""
    torch.manual_seed(0)
    net, head = torch.nn.Linear(32, 64, bias=False), MarginHead(64, 10, backend=backend)
    torch.nn.init.normal_(net.weight, std=0.01)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=1e-6)
    scaler = torch.amp.GradScaler("cpu")
    inputs, labels = torch.randn(4, 32) * 0.05, torch.randint(0, 10, (4,))
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = head(net(inputs), labels)
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.unscale_(optimizer)
        found.append((scale, net.weight.grad.clone()))
        scaler.step(optimizer)
        scaler.update()
    return found


def test_a_gradient_scaler_backs_off_as_in_pure_torch():
    pytest.importorskip("cifarnet._C", reason="the extension is not built")
    ours, theirs = scaled_steps("cpu"), scaled_steps("torch")
    assert [scale for scale, _ in ours] == [scale for scale, _ in theirs]
    assert ours[-1][0] < ours[0][0]  # it has backed off, so that the line above says something
    settled = [(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True) if a.isfinite().all()]
    assert len(settled) > 10
    for a, b in settled:
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) >= 0.999


MAGNITUDES = [10.0**power for power in (-30, -20, -10, -5, -2, 0, 1.1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30)]
# N, D, C, the most cosines that are kept
SIZES = {
    2: (24, 64, 1 << 23),
    10: (24, 64, 1 << 23),
    100: (24, 64, 1 << 23),
    5000: (24, 64, 1 << 23),
    5001: (24, 64, 0),
}


def truth(loss, z, w, y, state, noise=None):
    """float64 gradients of features and prototypes."""
    z, w = z.double().requires_grad_(), w.double().requires_grad_()
    value, _ = reference(loss, z, w, y, state, False, **ORIGINAL[loss], noise=noise)
    return torch.autograd.grad(value, (z, w))


def relative(actual, exact):
    """The error of each row, in units of its norm."""
    return (actual.double() - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_each_row_over_sixty_powers_of_ten(evaluate, loss, classes, backend):
    """The error of each row of dz and dW is at most 1e-5 of its norm, where fp32 can hold it: a norm from 1e-30 to 1e37.

    What is off by half a unit in a cosine's last place, 2^-24, is off by s times as much in a probability; the bound takes
    in four such roundings (norms, product). At s = 10^5 and beyond that is no bound, but nearly all rows have one probability
    of 1 there: those that two draws of such roundings leave as they are must be exact to 1e-5.
    """
    n, d, kept = SIZES[classes]
    powers = MAGNITUDES
    if backend in ("host", "cuda"):  # a thread after the other; minutes on a GPU machine are few
        n, powers = (4 if classes >= 5000 else n), MAGNITUDES[::3]
    if backend == "host" and classes >= 5000:
        classes -= 4000  # in chunks too
    z, w, y, state = draw(n, d, classes, loss, seed=1)
    towards = torch.linspace(-1, 1, n)[:, None] * torch.nn.functional.normalize(w[y]) * d**0.5
    direction = torch.nn.functional.normalize(z / 3 + towards)
    g = torch.Generator().manual_seed(0)
    noises = [2.0**-22 * (torch.rand(n, classes, generator=g) - 0.5) for _ in range(2)]
    for magnitude in powers:
        rows, scale = direction * magnitude, magnitude if loss == "sphereface" else 64
        got = evaluate(backend, loss, rows, w, y, state, training=False, most_kept=kept)[2:]
        exact = truth(loss, rows, w, y, state)
        moved = [truth(loss, rows, w, y, state, noise) for noise in noises] if scale > 1e4 else []
        for name, ours, true, others in zip(
            ("dz", "dW"), got, exact, zip(*moved, strict=True) if moved else ((), ()), strict=True
        ):
            held = (true.norm(dim=1) > 1e-30) & (true.norm(dim=1) < 1e37)
            bound = 1e-5 + 4 * 2.0**-24 * scale * (2 if loss == "curricularface" else 1)  # d n / d c = 2 c + t
            if scale > 1e4:
                bound = 1e-5
                held &= torch.stack([relative(other, true) for other in others]).amax(dim=0) < 1e-6
                assert held.sum() >= (0.4 * n if name == "dz" else 1)  # the rows that are learnt have no gradient
            error = relative(ours, true)[held]
            assert (error <= bound).all(), (name, magnitude, error.max().item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ORIGINAL)
def test_rows_of_every_length_in_one_batch(evaluate, loss, backend):
    """A row is not lost beside another that is 10^40 times longer."""
    for classes in (10, 70):
        z, w, y, state = draw(9, 32, classes, loss, seed=2)
        lengths = torch.logspace(-20, 20, 9)[:, None]
        rows = torch.nn.functional.normalize(z) * lengths
        dz = evaluate(backend, loss, rows, w, y, state, training=False)[2]
        exact = truth(loss, rows, w, y, state)[0]
        assert ((dz.double() - exact).norm(dim=1) <= 3e-5 * exact.norm(dim=1)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [10, 70])
def test_a_vector_without_direction_has_no_gradient(evaluate, classes, backend):
    z, w, y, state = draw(9, 16, classes, "cosface")
    z[3], w[y[0]] = 0, 0
    value, _, dz, dw = evaluate(backend, "cosface", z, w, y, state)
    assert value.isfinite() and (dz[3] == 0).all() and (dw[y[0]] == 0).all()
    assert dz.isfinite().all() and dw.isfinite().all() and (dz[[0, 1, 2]].norm(dim=1) > 0).all()
