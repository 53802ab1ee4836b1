"""The losses that pure torch runs, against the papers' formulas in numpy float64 (tests/objective_reference.py)."""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from objective_reference import FORMULAS, adacos_next, adjusted, kappa_factors, reference
from scipy import optimize, stats

from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, MarginHead, build_head
from cifarnet.losses.more_rows import MORE_LOSSES
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.elastic import standard_normal
from cifarnet.losses.objectives.kappa import margin_factors
from cifarnet.losses.prototypes import simplex

N, D, C = 24, 16, 7
MORE = [name for name, row in MORE_LOSSES.items() if row.angular]
# Every formula of every loss.
CASES = [(name, {}) for name in MORE if name not in ("sphereface-r", "sphereface2")]
CASES += [("ldam", {"drw": True}), ("elastic-arcface", {"plus": True}), ("elastic-cosface", {"plus": True})]
CASES += [("elastic-arcface", {"sigma": 1.0})]  # drawn margins below 0 and above pi
CASES += [("mv-arcface", {"easy": False}), ("mv-cosface", {"easy": False}), ("subcenter-arcface", {"subcenters": 1})]
CASES += [("sphereface-r", {"variant": v, "norm": n}) for v in ("v0", "v1", "v2") for n in ("hard", "soft", "none")]
CASES += [("sphereface-r", {"variant": "v2", "norm": "none", "margin_step": 0.1})]
CASES += [("sphereface2", {"variant": v}) for v in "CAM"] + [("sphereface2", {"detach": True})]


def sample(loss, options, seed=0, dtype=torch.float64, classes=C):
    """A head that has met an epoch, and features from far off to on their prototype, of norms 2 to 60."""
    torch.manual_seed(seed)
    head = MarginHead(D, classes, loss, **options).to(dtype)
    y = torch.randint(classes, (N,))
    near = head.weight.detach().reshape(classes, -1, D)[y, -1].double()
    z = torch.randn(N, D, dtype=torch.float64) / 4 + torch.linspace(-1, 1.5, N, dtype=torch.float64)[:, None] * near
    z = z * torch.linspace(5, 40, N, dtype=torch.float64)[torch.randperm(N), None]
    if "psi" in head.tables:
        head.psi.copy_(torch.rand(classes))
    head.count(
        torch.cat([torch.arange(classes).repeat(3), torch.randint(classes, (500,)).div(2, rounding_mode="floor")])
    )
    head.begin_epoch(9, 10)
    return head.train(), z.to(dtype), y


def numbers(head):
    """What the head keeps, as numpy arrays, and ElasticFace's next draws."""
    kept = {name: value.detach().numpy().copy() for name, value in head.memory.items()}
    if "sigma" in head.options.constants:
        state = head.state.double() + torch.tensor([1.0, 0.0])
        kept["normal"] = standard_normal(N, state).numpy()
    return kept


def test_tables_agree():
    assert set(OBJECTIVES) == {name for name, row in LOSSES.items() if row.angular} and set(MORE) == set(FORMULAS)


def test_values_are_the_papers_in_every_type():
    for loss, options in CASES:
        for seed in range(3):
            head, z, y = sample(loss, options, seed)
            w, kept = head.weight.detach().numpy(), numbers(head)
            expected = reference(loss, head.options.constants, z.numpy(), w, y.numpy(), kept)
            assert head(z, y).item() == pytest.approx(expected, rel=1e-10), (loss, options)
            for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
                head, _, _ = sample(loss, options, seed, torch.float32)
                few, kept = z.to(dtype), numbers(head)
                head.weight.data = torch.from_numpy(w).to(dtype)
                rounded = (few.double().numpy(), head.weight.detach().double().numpy(), y.numpy())
                expected = reference(loss, head.options.constants, *rounded, kept)
                assert head(few, y).item() == pytest.approx(expected, rel=tolerance), (loss, options, dtype)


def test_gradients_are_finite_differences_with_the_detached_parts_held():
    for loss, options in CASES:
        head, z, y = sample(loss, options, seed=4)
        w, kept, z = head.weight.detach().clone().numpy(), numbers(head), z.requires_grad_()
        head(z, y).backward()
        generator, at = np.random.default_rng(0), (z.detach().numpy(), w)
        for _ in range(3):
            dz, dw = generator.normal(size=z.shape), generator.normal(size=w.shape)
            step = 1e-6

            def value(sign, dz=dz, dw=dw):
                moved = (at[0] + sign * step * dz, w + sign * step * dw)  # noqa: B023
                return reference(loss, head.options.constants, *moved, y.numpy(), kept, at)  # noqa: B023

            slope = (value(1) - value(-1)) / (2 * step)
            found = (z.grad.numpy() * dz).sum() + (head.weight.grad.numpy() * dw).sum()
            assert found == pytest.approx(slope, rel=1e-5, abs=1e-6), (loss, options)


@pytest.mark.parametrize("loss", ["vs", "la"])
def test_linear_heads_for_unequal_classes(loss):
    head, z, y = build_head(D, C, loss).double(), torch.randn(N, D, dtype=torch.float64), torch.arange(N) % C
    labels = torch.repeat_interleave(torch.arange(C), torch.arange(1, C + 1) ** 2)
    head.count(labels)
    with torch.no_grad():
        head.bias.normal_()
    w, b = head.weight.detach().numpy(), head.bias.detach().numpy()
    counts, gamma = np.arange(1, C + 1) ** 2, 0.3 if loss == "vs" else 0.0
    assert head(z, y).item() == pytest.approx(adjusted(z.numpy(), w, b, y.numpy(), counts, gamma, 1.0), rel=1e-10)
    torch.testing.assert_close(head.logits(z), z @ head.weight.T + head.bias)

    def of(features, weight, bias):
        return torch.func.functional_call(head, {"weight": weight, "bias": bias}, (features, y))

    inputs = [value.detach().clone().requires_grad_() for value in (z, head.weight, head.bias)]
    assert torch.autograd.gradcheck(of, inputs)  # finite differences
    exact = torch.autograd.grad(of(*inputs), inputs)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        low = [value.detach().to(dtype).requires_grad_() for value in inputs]
        assert of(*low).item() == pytest.approx(of(*(value.double() for value in low)).item(), rel=error)
        if dtype == torch.float32:
            for ours, true in zip(torch.autograd.grad(of(*low), low), exact, strict=True):
                assert (ours.double() - true).norm() <= error * true.norm()
    head.count(labels[labels > 0])  # a class without samples
    value = head(z, y)
    value.backward()
    assert value.isfinite() and head.weight.grad.isfinite().all()


def test_no_value_breaks_a_loss():
    """Thousands of rows a loss: norms from 1e-30 to 1e30, |cos| = 1, no direction, equal prototypes, few classes."""
    for loss, options in CASES:
        for classes in (2, 3, 60):
            if classes == 2 and loss.startswith("adacos"):
                continue
            torch.manual_seed(1)
            head = MarginHead(D, classes, loss, **options)
            w = head.weight.data.view(-1, D)
            w[1], w[2 % len(w)] = w[0], 0
            y = torch.randint(classes, (2000,))
            z = torch.randn(2000, D)
            z[:600] = head.weight.data.view(classes, -1, D)[y[:600], 0] * torch.tensor([1.0, -1.0]).repeat(300)[:, None]
            z = (z * 10 ** torch.linspace(-30, 29, 2000)[torch.randperm(2000), None]).requires_grad_()
            with torch.no_grad():
                z[0] = 0
            head.begin_epoch(1, 1), head.begin_epoch(9, 10)
            value = head(z, y)
            value.backward()
            found = [value, z.grad, head.weight.grad, head.logits(z), *head.memory.values()]
            assert all(each.isfinite().all() for each in found) and value >= 0, (loss, options, classes)


def test_what_is_kept_moves_in_training_alone_and_resumes_bitwise():
    for loss, options in CASES:
        head, z, y = sample(loss, options, dtype=torch.float32)
        before = {name: value.clone() for name, value in head.memory.items()}
        head.eval()(z, y)
        assert all(torch.equal(value, before[name]) for name, value in head.memory.items()), loss
        head.train()
        broken = z.clone()
        broken[3, 3] = math.nan
        assert head(broken, y).isnan()
        assert all(torch.equal(value, before[name]) for name, value in head.memory.items()), loss
        head(z, y)
        moves = any(not torch.equal(value, before[name]) for name, value in head.memory.items())
        assert moves == (OBJECTIVES[loss].moves or OBJECTIVES[loss].collects)
        torch.manual_seed(99)
        other = MarginHead(D, C, loss, **options).train()
        other.load_state_dict(head.state_dict())
        for one in (head, other):
            one.begin_epoch(8, 10)
        for _ in range(2):
            assert torch.equal(head(z, y), other(z, y)), loss
        if len(head.state) or head.tables:
            with pytest.raises(RuntimeError, match="state is that of"):
                MarginHead(D, C, "adaface").load_state_dict(head.state_dict())


def test_what_is_kept_is_not_cast_with_the_module():
    """A draw's seed has 24 bits and class counts are what they are: bf16 would round both for good."""
    for loss, options in CASES:
        head, _, _ = sample(loss, options, dtype=torch.float32)
        kept = {name: getattr(head, name).clone() for name in ("state", *head.tables)}
        for dtype in (torch.bfloat16, torch.float64):
            head.to(dtype)
            assert all(torch.equal(getattr(head, name), value) for name, value in kept.items()), (loss, dtype)
            assert all(getattr(head, name).dtype == value.dtype for name, value in kept.items())
            assert head.weight.dtype == dtype


def test_logits_of_inference():
    for loss, options in CASES:
        head, z, _ = sample(loss, options)
        w = head.weight.detach().reshape(C, -1, D)
        c = (torch.nn.functional.normalize(w, dim=2) @ torch.nn.functional.normalize(z).T).amax(dim=1).T
        constants = head.options.constants
        scale = constants.get("scale", math.sqrt(2) * math.log(C - 1))
        if constants.get("norm") in ("soft", "none"):
            scale = z.norm(dim=1, keepdim=True)
        expected = scale * c
        if loss == "sphereface2":
            expected = scale * (2 * ((c + 1) / 2) ** 3 - 1) + head.bias
        if loss == "uniface":
            expected = scale * c - head.bias
        torch.testing.assert_close(head.logits(z), expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(head.loss_and_correct(z, c.argmax(dim=1))[1], torch.ones(N, dtype=torch.bool))


def test_adacos_scale():
    head, z, y = sample("adacos", {})
    c = (torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(head.weight).T).detach().numpy()
    expected = adacos_next(float(head.state), c, y.numpy())
    head(z, y)
    assert float(head.state) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(Refused, match="with 2 classes adacos's scale is 0"):
        MarginHead(D, 2, "adacos")


def test_elastic_draws_are_normal_and_never_the_same():
    draws = torch.stack([standard_normal(5000, torch.tensor([step, 77.0], dtype=torch.float64)) for step in range(20)])
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(draws.numpy()) - np.eye(20)).max() < 0.06  # 4 standard deviations
    assert abs(stats.pearsonr(draws[:, 1:].flatten(), draws[:, :-1].flatten())[0]) < 0.015
    single = standard_normal(5000, torch.tensor([3.0, 77.0]))
    torch.testing.assert_close(single.double(), draws[3], rtol=1e-5, atol=1e-6)
    seeds = {float(MarginHead(D, C, "elastic-arcface").state[1]) for _ in range(5)}
    assert len(seeds) == 5


def test_sphereface2s_first_bias_balances_own_and_other_classes():
    """At cosines 0 the derivatives by b cancel, also where the authors' form loses its digits; C = 2: 46.2877."""
    for variant, extra in (("C", {}), ("A", {}), ("M", {}), ("C", {"balance": 0.8, "scale": 64.0, "margin": 0.5})):
        for classes in (2, 3, 4, 10, 1000):
            head = MarginHead(D, classes, "sphereface2", variant=variant, **extra)
            r, m, share = head.options.scale, head.options.margin, head.options["balance"]
            spread = {"C": 2 * 0.5**3 - 1 - m, "A": 2 * ((math.cos(math.pi / 2 + m) + 1) / 2) ** 3 - 1}
            own = r * spread.get(variant, 2 * ((math.cos(min(m * math.pi / 2, math.pi)) + 1) / 2) ** 3 - 1)
            rest = r * (2 * 0.5**3 - 1 + m * (variant == "C"))

            def slope(b, own=own, rest=rest, share=share, classes=classes):
                return math.log(share) + stats.logistic.logcdf(-(own + b)) - (
                    math.log((1 - share) * (classes - 1)) + stats.logistic.logcdf(rest + b)
                )  # fmt: skip

            expected = optimize.brentq(slope, -300, 300, xtol=1e-10)
            assert head.bias.item() == pytest.approx(expected, abs=2e-5), (variant, classes)
    assert MarginHead(D, 2, "sphereface2").bias.item() == pytest.approx(46.2877, abs=1e-4)
    assert MarginHead(D, 50, "uniface").bias.item() == pytest.approx(math.log(500))


def test_sphereface_rs_margin_grows_at_equal_parts_of_the_epochs():
    """m = 1 + 0.1 times the milestones passed, up to 1.4: four milestones, five parts."""
    for variant, norm in (("v0", "none"), ("v2", "soft")):
        head, z, y = sample("sphereface-r", {"variant": variant, "norm": norm, "margin": 1.4, "margin_step": 0.1})
        w = head.weight.detach().numpy()
        for epoch, m in enumerate((1, 1, 1.1, 1.1, 1.2, 1.2, 1.3, 1.3, 1.4, 1.4)):
            head.begin_epoch(epoch, 10)
            expected = reference("sphereface-r", {**head.options.constants, "margin": m}, z.numpy(), w, y.numpy(), {})
            assert head(z, y).item() == pytest.approx(expected, rel=1e-10), (variant, epoch)
        head.begin_epoch(4, 10)
        again = sample("sphereface-r", dict(head.options.constants))[0]
        again.load_state_dict(head.state_dict())
        assert again.passed.item() == 2 and torch.equal(again(z, y), head(z, y))
    head.begin_epoch(0, 1)  # there is no time to grow
    assert head.passed.item() == 0
    assert not MarginHead(D, C, "sphereface-r").tables


def test_kappafaces_factors():
    torch.manual_seed(0)
    y = torch.cat([torch.full((5 * (j + 1),), j) for j in range(C)])
    z = torch.randn(len(y), D) + torch.linspace(0, 4, C)[y, None]
    expected = kappa_factors(z.double().numpy(), y.numpy(), C, 0.4, 0.7)
    unit = torch.nn.functional.normalize(z.double())
    sums = torch.cat([torch.zeros(C, D).double().index_add(0, y, unit), torch.bincount(y)[:, None]], dim=1)
    np.testing.assert_allclose(margin_factors(sums, 0.4, 0.7).numpy(), expected, rtol=1e-10)
    head = MarginHead(D, C, "kappaface").train()
    for part in torch.randperm(len(y)).split(32):
        head(z[part], y[part])
    head.begin_epoch(1, 3)
    np.testing.assert_allclose(head.psi.numpy(), expected, rtol=1e-5)
    assert not head.sums.any()
    head.begin_epoch(1, 3)  # as a resumed run may
    np.testing.assert_allclose(head.psi.numpy(), expected, rtol=1e-5)
    alike = torch.cat([torch.eye(C, D).double(), torch.ones(C, 1)], dim=1)  # one sample each: all alike, rho = 1
    torch.testing.assert_close(
        margin_factors(alike, 0.4, 0.7), torch.full((C,), 0.35 + 0.15 * (1 + math.cos(math.pi / 1.05))).double()
    )


def test_a_class_of_one_sample_leaves_kappafaces_factors_of_the_others():
    """Its concentration is not known: rho is 1 whatever the class is like."""
    torch.manual_seed(0)
    y = torch.arange(C).repeat_interleave(torch.arange(3, 3 + C))
    z = torch.randn(len(y), D) + torch.linspace(0, 4, C)[y, None]
    expected = kappa_factors(z.double().numpy(), y.numpy(), C, 0.4, 0.7)
    unit = torch.nn.functional.normalize(torch.cat([z, torch.randn(2, D)]).double())
    labels = torch.cat([y, torch.tensor([C, C + 1])])
    sums = torch.cat([torch.zeros(C + 3, D).double().index_add(0, labels, unit)], dim=0)
    sums = torch.cat([sums, torch.bincount(labels, minlength=C + 3)[:, None]], dim=1)  # the last class has no sample
    ours = margin_factors(sums, 0.4, 0.7).numpy()
    np.testing.assert_allclose(ours[:C], expected, rtol=1e-10)
    few = [0.7 / 2 + 0.3 * (1 + math.cos(math.pi * n / (1.05 * (C + 2)))) / 2 for n in (1, 1, 0)]
    np.testing.assert_allclose(ours[C:], few, rtol=1e-12)


def test_simplex_prototypes():
    for classes in (3, 10, 200):
        corners = simplex(classes)
        expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
        torch.testing.assert_close(corners @ corners.T, expected, rtol=0, atol=1e-13)
    for loss in (name for name in LOSSES if name != "subcenter-arcface"):
        head = build_head(12, 10, loss, simplex=True)
        before = head.weight.clone()
        torch.testing.assert_close(before @ before.T, torch.full((10, 10), -1 / 9).fill_diagonal_(1), rtol=0, atol=1e-6)
        z = torch.randn(6, 12, requires_grad=True)
        head(z, torch.arange(6)).backward()
        assert z.grad.any() and head.weight.grad is None
        assert [name for name, value in head.named_parameters() if value.requires_grad] == list(head.undecayed)
    for size, classes, loss, words in (
        (1, 2, "arcface", "one dimension"),
        (8, 10, "arcface", "needs 9 dimensions"),
        (12, 10, "subcenter-arcface", "several"),
    ):
        with pytest.raises(Refused, match=words):
            build_head(size, classes, loss, simplex=True)


@pytest.mark.parametrize("loss", ["ce", "focal", "la", "vs"])
def test_a_linear_heads_simplex_has_no_bias(loss):
    head, z = build_head(16, 5, loss, simplex=True), torch.randn(N, 16)
    assert not head.bias.any() and not head.bias.requires_grad
    torch.testing.assert_close(head.logits(z), z[:, :4] @ simplex(5).float().T)


def test_ldams_weights_wait_for_four_fifths_of_the_epochs():
    """The authors' 160 of 200."""
    head, z, y = sample("ldam", {"drw": True})
    w, rarity = head.weight.detach().numpy(), 1 / (1 - head.options["beta"] ** head.counts.double().numpy())
    for epoch, expected in ((7, np.ones(C)), (8, rarity / rarity.mean())):
        head.begin_epoch(epoch, 10)
        np.testing.assert_allclose(head.weights / head.weights.mean(), expected, rtol=1e-5)
        value = reference("ldam", head.options.constants, z.numpy(), w, y.numpy(), numbers(head))
        assert head(z, y).item() == pytest.approx(value, rel=1e-10)


def test_what_cannot_be_is_refused_by_name():
    for arguments, words in (
        ({"loss": "sphereface-r", "norm": "sofd"}, "^norm: 'sofd' is not known; did you mean soft"),
        ({"loss": "sphereface2", "variant": "B"}, "choose from C, A, M"),
        ({"loss": "sphereface-r", "norm": 1.0}, "choose from hard, soft, none"),
        ({"loss": "subcenter-arcface", "subcenters": 2.5}, "choose from 1, 2, 3"),
        (
            {"loss": "adacos", "scale": "auto"},
            "adacos has no such constant, its s follows from the classes; adacos takes no",
        ),
        ({"loss": "adacos-fixed", "margin": 0.5}, "adacos-fixed has no such constant, it has no margin"),
        ({"loss": "arcface", "h": 0.5}, "arcface has no such constant; arcface takes `scale`, `margin`, `easy_margin`"),
        ({"loss": "la"}, "no margin head"),
        ({"scale": "30"}, "^scale: '30' is not a number; give a number$"),  # and not auto, which it does not take
        ({"margin": [1]}, "not a number; give a number$"),
    ):
        with pytest.raises(Refused, match=words):
            MarginHead(D, C, **arguments)
    with pytest.raises(Refused, match=r"^scale: '30' is not a number; give a number, or auto$"):
        build_head(D, C, "arcface", {"scale": "30"})
    assert MarginHead(D, C, "sphereface2", variant="m").options.margin == 1.7
    assert MarginHead(D, C, "elastic-arcface", plus=True).options["sigma"] == 0.0175
    with pytest.raises(Refused, match="no rule for auto: each class is a yes or no"):
        build_head(D, C, "uniface", {"margin": "auto"})
    assert build_head(D, C, "ldam", {"margin": "auto", "scale": "auto"}).options.margin < 0.5
    # An m that multiplies the angle has no rule: it stays the authors', and theirs goes with the variant.
    for loss, more, margin in (
        ("sphereface", {}, 4),
        ("sphereface-r", {}, 1.4),
        ("sphereface-r", {"variant": "v0"}, 1.7),
    ):
        assert build_head(D, C, loss, {"margin": "auto", **more}).options.margin == margin
    with pytest.raises(Refused, match="has 3 prototypes a class"):
        MarginHead(D, C, "subcenter-arcface").prototypes()
    assert MarginHead(D, C, "subcenter-arcface", subcenters=1).prototypes().shape == (C, D)


class Threads(Ranks):
    """Ranks as threads of this process, which exchange over a table."""

    def meet(self, rank, table, barrier):
        for name, value in (("rank", rank), ("world", len(table)), ("place", (table, barrier))):
            object.__setattr__(self, name, value)
        return self

    def everyones(self, tensor):
        table, barrier = self.place
        table[self.rank] = tensor.detach().clone()
        barrier.wait(60)
        found = list(table)
        barrier.wait(60)
        return found

    def _reduced(self, tensor, operation):
        stacked = torch.stack(self.everyones(tensor))
        return stacked.sum(dim=0) if operation == "SUM" else stacked.amax(dim=0)

    def concatenated(self, tensor):
        return torch.cat(self.everyones(tensor))


def test_ranks_train_as_one():
    """Of uneven parts of a batch: the loss, gradients and what is kept, as the engine averages them over two ranks."""
    cut, table, barrier = [0, 7, N], [None, None], threading.Barrier(2)

    def work(rank, head, z, y):
        ranks = Threads().meet(rank, table, barrier)
        head.join(ranks)
        losses = []
        for _ in range(2):
            head.zero_grad()
            rows = slice(*cut[rank : rank + 2])
            loss = head(z[rows], y[rows]) * (len(z[rows]) * 2 / N)  # as step.scale_loss_for_ddp
            loss.backward()
            losses.append((ranks.sum(loss) / 2).item())
        return losses, [ranks.sum(parameter.grad) / 2 for parameter in head.parameters()]

    for loss, options in CASES:
        whole, z, y = sample(loss, options, seed=2)
        heads = [copy.deepcopy(whole) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(work, rank, head, z, y) for rank, head in enumerate(heads)]
            (losses, gradients), _ = [one.result() for one in done]
        for found in losses:
            whole.zero_grad()
            expected = whole(z, y)
            expected.backward()
            assert found == pytest.approx(expected.item(), rel=1e-6 if loss == "adacos" else 1e-12), (loss, options)
        for parameter, found in zip(whole.parameters(), gradients, strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-6, atol=1e-9)
        for name, value in whole.memory.items():
            assert all(torch.allclose(head.memory[name], value, rtol=1e-6, atol=1e-6) for head in heads), (loss, name)
