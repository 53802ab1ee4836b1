"""Each loss against the paper's formula, written here in numpy float64, one sample at a time."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, LinearHead, MarginHead, build_head
from cifarnet.losses.angles import normalize
from cifarnet.losses.margin_loss import margin_loss
from cifarnet.losses.more_rows import MORE_LOSSES

ANGULAR = [name for name, row in LOSSES.items() if row.angular and name not in MORE_LOSSES]
N, D, C = 12, 16, 7


def cosines(z, w):
    return (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T


def softmax_loss(logits, y):
    return float(np.mean([math.log(np.exp(row - row[t]).sum()) for row, t in zip(logits, y, strict=True)]))


def paper_sphereface(z, w, y, m, steps):
    """SphereFace eq. 7 with the annealing of its Caffe layer."""
    c, norm = cosines(z, w), np.linalg.norm(z, axis=1)
    lam = max(5.0, 1000.0 / (1 + 0.12 * steps))
    logits = norm[:, None] * c
    for i, t in enumerate(y):
        theta = math.acos(c[i, t])
        k = math.floor(m * theta / math.pi)
        psi = (-1) ** k * math.cos(m * theta) - 2 * k
        logits[i, t] = norm[i] * (lam * c[i, t] + psi) / (1 + lam)
    return softmax_loss(logits, y)


def paper_cosface(z, w, y, s, m):
    """CosFace eq. 4."""
    c = cosines(z, w)
    c[np.arange(len(y)), y] -= m
    return softmax_loss(s * c, y)


def arc(c, m):
    theta = math.acos(c)
    return math.cos(theta + m) if theta + m <= math.pi else c - m * math.sin(m)


def paper_arcface(z, w, y, s, m, easy=False):
    """ArcFace eq. 3, with the authors' continuation past pi."""
    c = cosines(z, w)
    for i, t in enumerate(y):
        easier = c[i, t] if c[i, t] <= 0 else math.cos(math.acos(c[i, t]) + m)
        c[i, t] = easier if easy else arc(c[i, t], m)
    return softmax_loss(s * c, y)


def paper_curricularface(z, w, y, s, m, t_before):
    """CurricularFace eq. 9 and 10: t moves first."""
    c = cosines(z, w)
    targets = c[np.arange(len(y)), y].copy()
    t_now = 0.01 * targets.mean() + 0.99 * t_before
    for i, target in enumerate(y):
        hard = math.cos(math.acos(targets[i]) + m)
        for j in range(c.shape[1]):
            if j != target and c[i, j] > hard:
                c[i, j] = c[i, j] * (t_now + c[i, j])
        c[i, target] = arc(targets[i], m)
    return softmax_loss(s * c, y), [t_now]


def paper_adaface(z, w, y, s, m, h, alpha, mean, std):
    """AdaFace eq. 13 and 14, statistics updated before use."""
    c, norm = cosines(z, w), np.clip(np.linalg.norm(z, axis=1), 1e-3, 100)
    mean = alpha * norm.mean() + (1 - alpha) * mean
    std = alpha * norm.std(ddof=1) + (1 - alpha) * std
    for i, t in enumerate(y):
        quality = np.clip(h * (norm[i] - mean) / (std + 1e-3), -1, 1)
        theta = np.clip(math.acos(c[i, t]) - m * quality, 1e-3, math.pi - 1e-3)
        c[i, t] = math.cos(theta) - (m * quality + m)
    return softmax_loss(s * c, y), [mean, std]


def paper_magface(z, w, y, s):
    """MagFace section 3.1 with the authors' constants and easy margin."""
    c, a = cosines(z, w), np.clip(np.linalg.norm(z, axis=1), 10, 110)
    for i, t in enumerate(y):
        m = 0.45 + (0.8 - 0.45) * (a[i] - 10) / (110 - 10)
        c[i, t] = math.cos(math.acos(c[i, t]) + m) if c[i, t] > 0 else c[i, t]
    return softmax_loss(s * c, y) + 35 * float(np.mean(a / 110**2 + 1 / a))


def paper(loss, z, w, y, s):
    """Value and new state of `loss` with the authors' margins, from its initial state, in training mode."""
    return {
        "sphereface": lambda: (paper_sphereface(z, w, y, 4, 1), [1.0]),
        "cosface": lambda: (paper_cosface(z, w, y, s, 0.35), []),
        "arcface": lambda: (paper_arcface(z, w, y, s, 0.5), []),
        "curricularface": lambda: paper_curricularface(z, w, y, s, 0.5, 0.0),
        "adaface": lambda: paper_adaface(z, w, y, s, 0.4, 0.333, 0.01, 20.0, 100.0),
        "magface": lambda: (paper_magface(z, w, y, s), []),
    }[loss]()


def draw(seed, spread=1.0, dtype=torch.float64):
    """Features of norms around 8 to 40, some pulled to their prototype and some pushed away, so every branch is met."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(C, D, generator=g, dtype=torch.float64)
    y = torch.randint(0, C, (N,), generator=g)
    pull = torch.linspace(-3, 3, N, dtype=torch.float64)[:, None]
    z = (
        (torch.randn(N, D, generator=g, dtype=torch.float64) + pull * w[y])
        * (2 + 4 * torch.rand(N, 1, generator=g))
        * spread
    )
    return z.to(dtype), w.to(dtype), y


def head_with(loss, w, **constants):
    head = MarginHead(D, C, loss, **constants)
    head.weight = torch.nn.Parameter(w.clone())
    return head


def test_tables_agree():
    assert set(ANGULAR) == {"sphereface", "cosface", "arcface", "curricularface", "adaface", "magface"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 16.0, 64.0])
@pytest.mark.parametrize("loss", ANGULAR)
def test_value_and_state_are_the_papers(loss, scale, seed):
    z, w, y = draw(seed)
    expected, state = paper(loss, z.numpy().copy(), w.numpy(), y.numpy(), scale)
    head = head_with(loss, w, **({} if loss == "sphereface" else {"scale": scale}))
    assert head(z, y).item() == pytest.approx(expected, rel=1e-7)
    assert head.state.tolist() == pytest.approx(state, rel=1e-6)
    single = head_with(loss, w.float(), **({} if loss == "sphereface" else {"scale": scale}))
    assert single(z.float(), y).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spherefaces_annealing_ends_at_the_papers_lambda(dtype):
    z, w, y = draw(0)
    head = head_with("sphereface", w.to(dtype))
    head.state.fill_(1e5)
    expected = paper_sphereface(z.numpy(), w.numpy(), y.numpy(), 4, 1e5 + 1)
    assert head(z.to(dtype), y).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("loss", ["adaface", "magface"])
def test_norms_beyond_the_papers_range_count_as_its_end(loss):
    z, w, y = draw(1, spread=20.0)
    expected, state = paper(loss, z.numpy(), w.numpy(), y.numpy(), 64.0)
    for dtype, error in ((torch.float64, 1e-7), (torch.float32, 2e-5)):
        head = head_with(loss, w.to(dtype), scale=64.0)
        assert head(z.to(dtype), y).item() == pytest.approx(expected, rel=error)
        assert head.state.tolist() == pytest.approx(state, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_easy_margin_and_focal(seed):
    z, w, y = draw(seed)
    expected = paper_arcface(z.numpy().copy(), w.numpy(), y.numpy(), 30.0, 0.5, easy=True)
    assert head_with("arcface", w, scale=30, easy_margin=True)(z, y).item() == pytest.approx(expected, rel=1e-7)

    head = build_head(D, C, "focal", {"gamma": 2.0}).double()
    logits = head.logits(z).double()
    p = logits.softmax(1).gather(1, y[:, None]).squeeze(1)
    assert head(z, y).item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("loss", ANGULAR)
def test_gradcheck(loss):
    """Analytic gradients against finite differences; inputs are kept off the kinks (|z| far from every clip)."""
    z, w, y = draw(3)
    head = head_with(loss, w, **({} if loss == "sphereface" else {"scale": 8.0}))
    head.eval()  # the running state is a constant of the derivative
    head.state.copy_(
        torch.tensor({"curricularface": [0.3], "adaface": [20.0, 9.0], "sphereface": [60.0]}.get(loss, []))
    )
    if loss == "adaface":  # its norms are detached on purpose: differentiate along directions that keep them
        norm = z.norm(dim=1, keepdim=True)

        def function(z, w):
            return margin_loss(F.normalize(z) * norm, w, y, head.options, head.memory)[0]
    else:

        def function(z, w):
            return margin_loss(z, w, y, head.options, head.memory)[0]

    assert torch.autograd.gradcheck(function, (z.requires_grad_(), w.requires_grad_()), eps=1e-7, atol=2e-5)


@pytest.mark.parametrize("loss", ANGULAR)
def test_curricular_t_and_adaface_norms_are_detached(loss):
    """In training mode too, no gradient flows through the running state."""
    z, w, y = draw(5)
    head = head_with(loss, w).train()
    moved = copy.deepcopy(head).eval()
    state = margin_loss(z, w, y, head.options, head.memory, True)[2].get("state", head.state)
    moved.state = state
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    head(a, y).backward()
    moved(b, y).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-12)


EXTREMES = {
    "aligned": lambda w: w,
    "opposite": lambda w: -w,
    "zero": torch.zeros_like,
    "huge": lambda w: w * 1e30,
    "tiny": lambda w: w * 1e-30,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", EXTREMES)
@pytest.mark.parametrize("loss", ANGULAR)
def test_limits_stay_finite(loss, case, dtype):
    """|cos| = 1, zero vectors, norms at the ends of the range, equal prototypes: value and gradients finite, loss >= 0."""
    torch.manual_seed(0)
    w = torch.randn(C, D)
    w[1] = w[0]
    y = torch.arange(C)
    z = EXTREMES[case](w).to(dtype).requires_grad_()
    head = head_with(loss, w.to(dtype))
    value = head(z, y)
    value.backward()
    assert torch.isfinite(value) and value >= 0
    assert torch.isfinite(z.grad).all() and torch.isfinite(head.weight.grad).all()
    assert torch.isfinite(head.logits(z)).all()


def test_gradient_beyond_the_clamp_is_the_one_at_the_clamp():
    """At cos = 1 exactly ArcFace's loss still pulls: its derivative is that of 1 - 1e-7, not zero."""
    w = torch.eye(3, 4)
    head = MarginHead(4, 3, "arcface", scale=4.0)
    head.weight = torch.nn.Parameter(w)
    z = torch.eye(3, 4)[:1].requires_grad_()
    head(z, torch.tensor([0])).backward()
    assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", ANGULAR)
def test_evaluation_moves_nothing(loss):
    z, w, y = draw(1, dtype=torch.float32)
    head = head_with(loss, w).eval()
    before = head.state.clone()
    head(z, y)
    assert torch.equal(head.state, before)
    head.train()(z, y)
    assert torch.equal(head.state, before) == (len(before) == 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_optimizer_moves_the_head_unless_frozen(loss):
    z, _, y = draw(2, dtype=torch.float32)
    for frozen in (False, True):
        head = build_head(D, C, loss, frozen=frozen)
        before = head.weight.detach().clone()
        learned = [p for p in head.parameters() if p.requires_grad]
        if not frozen:
            optimizer = torch.optim.SGD(learned, lr=0.1)
            head(z, y).backward()
            optimizer.step()
        assert torch.equal(head.weight.detach(), before) == frozen
        assert bool(learned) == (not frozen)


@pytest.mark.parametrize("loss", ANGULAR)
def test_inference_knows_no_margin(loss):
    z, w, _ = draw(4, dtype=torch.float32)
    head = head_with(loss, w, **({} if loss == "sphereface" else {"scale": 20.0}))
    c = cosines(z.double().numpy(), w.double().numpy())
    factor = np.linalg.norm(z.double().numpy(), axis=1)[:, None] if loss == "sphereface" else 20.0
    np.testing.assert_allclose(head.logits(z).detach().numpy(), factor * c, rtol=1e-4, atol=1e-4)


def test_small_losses_keep_their_digits():
    """A trained model's loss, 1e-9 and less, is not lost to cancellation in fp32."""
    w = torch.eye(C, D)
    z = (w + 1e-3 * torch.randn(C, D, generator=torch.Generator().manual_seed(0))) * 30
    y = torch.arange(C)
    expected = paper_cosface(z.double().numpy(), w.double().numpy(), y.numpy(), 40.0, 0.35)
    assert 0 < expected < 1e-9
    head = head_with("cosface", w, scale=40.0)
    assert head(z, y).item() == pytest.approx(expected, rel=1e-3)


def test_state_stays_fp32_when_the_module_is_cast():
    head = MarginHead(D, C, "adaface").to(torch.bfloat16)
    assert head.weight.dtype is torch.bfloat16 and head.state.dtype is torch.float32


def test_one_sample_keeps_adafaces_spread():
    z, w, _ = draw(0, dtype=torch.float32)
    head = head_with("adaface", w)
    head(z[:1], torch.tensor([0]))
    assert head.state[1].item() == 100.0 and torch.isfinite(head.state).all()


def test_linear_head_is_torchs():
    torch.manual_seed(0)
    head = LinearHead(D, C, label_smoothing=0.1)
    z, y = torch.randn(N, D), torch.randint(0, C, (N,))
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(F.linear(z, head.weight, head.bias), y)
    torch.testing.assert_close(head(z, y), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss": "arcfase"}, "not known"),
        ({"loss": "cosface", "h": 0.3}, "no such constant"),
        ({"loss": "arcface", "margin": 4.0}, "out of range"),
        ({"loss": "sphereface", "margin": 2.5}, "choose from 1, 2, 3, 4, 5"),
        ({"loss": "cosface", "scale": -1.0}, "out of range"),
        ({"loss": "ce"}, "no margin head"),
        ({"num_classes": 1}, "at least 2"),
    ],
)
def test_wrong_constants_are_refused(arguments, words):
    with pytest.raises(Refused, match=words):
        MarginHead(**{"in_features": D, "num_classes": C, **arguments})


def test_wrong_shapes_are_named():
    head = MarginHead(D, C)
    for z, y in ((torch.randn(0, D), torch.empty(0, dtype=torch.long)), (torch.randn(3, D + 1), torch.zeros(3).long())):
        with pytest.raises(ValueError, match="features must be"):
            head(z, y)
    with pytest.raises(ValueError, match="labels must be"):
        head(torch.randn(3, D), torch.zeros(2).long())


def test_the_gradient_of_a_unit_vector_has_no_part_along_it():
    """(I - u u^T) / |v|, also of vectors on an axis, whose largest entry is all of their length."""
    for dtype in (torch.float32, torch.float64):
        for v in ([0.0, 2.0, 0.0, 0.0], [2.0, 4e-4, -2e-4, 0.0], [-7.0], [3e20, 1e10, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]):
            v = torch.tensor(v, dtype=dtype)
            jacobian = torch.autograd.functional.jacobian(lambda v: normalize(v[None])[0][0], v).double()
            u = v.double() / torch.linalg.vector_norm(v.double())
            truth = (torch.eye(len(v)).double() - torch.outer(u, u)) / torch.linalg.vector_norm(v.double())
            torch.testing.assert_close(jacobian, truth, rtol=1e-5, atol=1e-6 * truth.abs().max().item() + 1e-8)
