"""The promises of every head on every backend: labels, types, states, transforms, and hits without N x C logits."""

import importlib
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cifarnet.losses import LOSSES, LinearHead, MarginHead, build_head, kernels
from cifarnet.losses.more_rows import MORE_LOSSES
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead

N, D, C = 12, 16, 10
# The others: test_objectives.py.
ANGULAR = [name for name, row in LOSSES.items() if row.angular and name not in MORE_LOSSES]
STATEFUL = [name for name in ANGULAR if LOSSES[name].state]
COMPILED = kernels.build_info() != {}
BACKENDS = [pytest.param("cpu", marks=pytest.mark.skipif(not COMPILED, reason="the extension is not built")), "torch"]


def heads(loss="arcface"):
    """One of each kind, with the same weights."""
    torch.manual_seed(0)
    made = {"torch": MarginHead(D, C, loss, backend="torch"), "spread": ShardedMarginHead(D, C, loss)}
    if COMPILED:
        made["cpu"] = MarginHead(D, C, loss, backend="cpu")
    for head in made.values():
        head.load_state_dict(made["torch"].state_dict())
    made["linear"] = LinearHead(D, C)
    return made


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(N, D), torch.randint(C, (N,))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_type(batch, dtype):
    z, y = batch
    for name, head in heads().items():
        assert torch.equal(head(z, y.to(dtype)), head(z, y)), name


def test_measuring_demands_of_labels_what_training_does(batch):
    """Any integer type; of one out of range its cross-entropy would be that of no class, and no error."""
    z, y = batch
    made = heads() | {"subcenter": MarginHead(D, C, "subcenter-arcface"), "focal": LinearHead(D, C, gamma=2.0)}
    for name, head in made.items():
        wanted = F.cross_entropy(head.logits(z), y, reduction="none")
        for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
            losses, hit = head.measure(z, y.to(dtype))
            torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
            assert torch.equal(hit, head.logits(z).argmax(dim=1) == y), name
        for label in (C, -1, -100, -(2**63)):
            with pytest.raises(IndexError, match=f"label {label} of sample 7 is out of range"):
                head.measure(z, y.index_fill(0, torch.tensor(7), label))
        with pytest.raises(TypeError, match="labels must be integers"):
            head.measure(z, y.float())


@pytest.mark.parametrize("loss", ["arcface", "sphereface2", "uniface", "subcenter-arcface"])
def test_autocast_leaves_what_is_measured_alone(batch, loss):
    z, y = batch
    for head in (MarginHead(D, C, loss), LinearHead(D, C) if "sub" in loss else ShardedMarginHead(D, C, loss)):
        wanted = head.measure(z, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(head.measure(z, y)[0], wanted[0])


def test_a_learned_bias_is_not_taken_for_another_loss():
    """That of uniface is subtracted, that of sphereface2 added. A state dict without a name, as of version 0.1, is taken."""
    of = {loss: MarginHead(D, C, loss) for loss in ("sphereface2", "uniface")}
    with pytest.raises(RuntimeError, match="state is that of sphereface2, and this head's loss is uniface"):
        of["uniface"].load_state_dict(of["sphereface2"].state_dict())
    saved = of["uniface"].state_dict()
    of["uniface"].load_state_dict({name: value for name, value in saved.items() if name in ("weight", "state", "bias")})
    of["uniface"].load_state_dict(saved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_other_labels_are_a_type_error(batch, dtype):
    z, y = batch
    for head in heads().values():
        with pytest.raises(TypeError, match="labels must be integers, not torch"):
            head(z, y.to(dtype))


def test_arrays_and_lists_are_a_type_error(batch):
    z, y = batch
    for head in heads().values():
        for features in (z.numpy(), z.tolist()):
            for call in (head.logits, lambda given, head=head: head(given, y)):
                with pytest.raises(
                    TypeError, match=rf"^features must be a tensor, not {type(features).__name__}; torch"
                ):
                    call(features)
        for labels in (y.numpy(), y.tolist()):
            with pytest.raises(TypeError, match=rf"^labels must be a tensor, not {type(labels).__name__}; torch"):
                head(z, labels)


def test_labels_and_features_of_other_shapes_are_told_what_makes_them_right(batch):
    """What is said is done here, and makes the labels that they were made of."""
    z, y = batch
    rows = F.one_hot(y, C)
    ways_out = {
        "labels.flatten()": (torch.flatten, [y[:, None], y[None]]),
        "labels.float().argmax(dim=1)": (
            lambda labels: labels.float().argmax(dim=1),
            [rows, rows.float(), rows.bool()],
        ),
        "labels.long()": (Tensor.long, [y.float(), y.double()]),
    }
    for head in heads().values():
        for said, (mend, wrong) in ways_out.items():
            for labels in wrong:
                with pytest.raises((TypeError, ValueError), match=rf"^labels must be .*; .*{re.escape(said)}$"):
                    head(z, labels)
                assert torch.equal(mend(labels), y)
        with pytest.raises(ValueError, match=rf"^labels must be \[{N}\], not \[3\]; give one each$"):
            head(z, y[:3])
        with pytest.raises(ValueError, match=r"; flatten\(1\) makes one row"):
            head(z[:, :, None, None], y)


def test_inference_demands_of_features_what_training_does(batch):
    z, _ = batch
    for name, head in heads().items():
        assert head.logits(z[:0]).shape == (0, C), name
        for wrong in (z[0], z[:, 1:], z[:, None], z[None]):
            with pytest.raises(ValueError, match=rf"^features must be \[N, {D}\] with N >= 0, not \[{wrong.shape[0]}"):
                head.logits(wrong)
        with pytest.raises(TypeError, match=r"^features must be floating-point numbers, not torch\.int64"):
            head.logits(z.long())


def test_counted_labels_are_integers():
    """Of 0.9 the class would be 0, without a word."""
    head = MarginHead(D, C, "ldam")
    with pytest.raises(TypeError, match=r"labels must be integers, not torch\.float64"):
        head.count(torch.tensor([0.9, 1.2], dtype=torch.float64))


@pytest.mark.parametrize("label", [C, -1, -100])  # -100 is what F.cross_entropy leaves out without a word
def test_a_label_out_of_range_is_named_with_its_sample(batch, label):
    z, y = batch
    y[7] = label
    for head in heads().values():
        with pytest.raises(IndexError, match=rf"^label {label} of sample 7 is out of range: there are {C} classes"):
            head(z, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logits_are_fp32_or_what_is_wider(batch, dtype):
    z = batch[0].to(dtype)
    for name, head in heads().items():
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert head.logits(z).dtype == wide, name
    exact = heads()["torch"].double()
    cosine = torch.nn.functional.normalize(batch[0].double()) @ torch.nn.functional.normalize(exact.weight).T
    torch.testing.assert_close(exact.logits(batch[0].double()), 64 * cosine, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("loss", ANGULAR)
@pytest.mark.parametrize("kind", ["cpu", "torch", "spread"])
def test_hits_are_those_of_the_logits(loss, kind):
    """No kind of head needs N x C numbers for them: few classes, matrix products, chunks."""
    for classes in (2, 10, 300, 9000):
        torch.manual_seed(classes)
        head = ShardedMarginHead(D, classes, loss) if kind == "spread" else None
        if head is None:
            if kind == "cpu" and not COMPILED:
                pytest.skip("the extension is not built")
            head = MarginHead(D, classes, loss, backend=kind)
        y = torch.randint(classes, (64,))
        z = torch.randn(64, D) + torch.linspace(0, 8, 64)[:, None] * head.weight.detach()[y]
        loss_value, hits = head.loss_and_correct(z, y)
        unit = torch.nn.functional.normalize
        cosine = unit(z.double()) @ unit(head.weight.detach().double()).T
        own = torch.nn.functional.one_hot(y, classes).bool()
        lead = cosine[own] - cosine.masked_fill(own, -2).amax(dim=1)
        clear = lead.abs() > 1e-6
        assert torch.equal(hits[clear], (lead > 0)[clear]) and clear.sum() > 60
        assert 0 < hits.sum() < 64 and loss_value.isfinite()


@pytest.mark.parametrize("kind", ["cpu", "torch"])
@pytest.mark.parametrize("classes", [10, 300])
def test_two_prototypes_at_one_place_are_a_tie(kind, classes):
    """Cosines beyond the limit are the limit, the own one too. (A spread head sums its own cosine in another order.)"""
    if kind == "cpu" and not COMPILED:
        pytest.skip("the extension is not built")
    torch.manual_seed(0)
    head = MarginHead(D, classes, backend=kind)
    with torch.no_grad():
        head.weight[1::2] = head.weight[::2]
    y = torch.arange(classes)
    assert not head.loss_and_correct(5 * head.weight.detach()[y], y)[1].any()


def test_a_linear_heads_hits(batch):
    z, y = batch
    head = LinearHead(D, C)
    assert torch.equal(head.loss_and_correct(z, y)[1], head.logits(z).argmax(dim=1) == y)


@pytest.mark.parametrize("loss", STATEFUL)
def test_the_state_travels_with_its_losss_name(loss, batch):
    for head in (MarginHead(D, C, loss), ShardedMarginHead(D, C, loss)):
        head(*batch)
        saved = head.state_dict()
        assert bytes(saved["loss"].tolist()).decode() == loss
        other = MarginHead(D, C, loss)
        other.load_state_dict(saved)
        assert torch.equal(other.state, head.state)
        del saved["loss"]  # as version 0.1 saved it
        fresh = MarginHead(D, C, loss)
        assert not fresh.load_state_dict(saved).missing_keys
        assert torch.equal(fresh.state, head.state)


@pytest.mark.parametrize("mine", STATEFUL)
@pytest.mark.parametrize("theirs", ANGULAR)
def test_another_losss_state_is_refused(mine, theirs):
    head, saved = MarginHead(D, C, mine), MarginHead(D, C, theirs).state_dict()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    if mine == theirs:
        head.load_state_dict(saved)
        return
    words = f"state is that of {theirs}, and this head's loss is {mine}" if theirs in STATEFUL else "size mismatch"
    with pytest.raises(RuntimeError, match=words):
        head.load_state_dict(saved)
    assert torch.equal(head.state, before["state"])


def test_losses_without_a_state_interchange():
    for loss in ("cosface", "arcface", "magface"):
        saved = MarginHead(D, C, loss).state_dict()
        assert set(saved) == {"weight", "state"}
        for other in ("cosface", "arcface", "magface"):
            MarginHead(D, C, other).load_state_dict(saved)


@pytest.mark.parametrize("loss", ANGULAR)
def test_meta_device_and_reset_parameters(loss, batch):
    with torch.device("meta"):
        for head in (MarginHead(D, C, loss), LinearHead(D, C)):
            z, y = torch.randn(N, D), torch.zeros(N, dtype=torch.long)
            assert head(z, y).shape == () and head(z, y).is_meta and head.logits(z).shape == (N, C)
    head = MarginHead(D, C, loss)
    with torch.device("meta"):
        empty = MarginHead(D, C, loss)
    empty.to_empty(device="cpu")
    empty.weight.data.fill_(math.nan)
    torch.manual_seed(3)
    empty.reset_parameters()
    torch.manual_seed(3)
    fresh = MarginHead(D, C, loss)
    assert torch.equal(empty.weight, fresh.weight) and torch.equal(empty.state, head.state)
    assert empty(*batch).isfinite()


@pytest.mark.parametrize("there", ["head", "features", "labels"])
def test_numbers_that_are_not_there_are_not_computed_with(batch, there):
    """torch takes a meta tensor beside another one, and gives what the memory happened to hold."""
    z, y = (
        value.to("meta") if name == there else value for name, value in zip(("features", "labels"), batch, strict=True)
    )
    for name, head in heads().items():
        head = head.to("meta") if there == "head" else head
        for call in (head, head.loss_and_correct, head.measure):
            with pytest.raises(ValueError, match="on meta; put both on one device"):
                call(z, y)
        if there != "labels":
            with pytest.raises(ValueError, match="on meta; put both on one device"):
                head.logits(z)
            assert head.logits(torch.randn(N, D, device=head.weight.device)).shape == (N, C), name


@pytest.mark.skipif(not COMPILED, reason="the extension is not built")
def test_what_the_kernels_cannot_is_refused_with_the_way_out(batch):
    z, y = batch
    head, pure = MarginHead(D, C, backend="cpu"), MarginHead(D, C, backend="torch")
    pure.load_state_dict(head.state_dict())
    transforms = {
        "grad": lambda head: torch.func.grad(lambda z: head(z, y))(z),
        "vmap": lambda head: torch.func.vmap(torch.func.grad(lambda z, y: head(z[None], y[None])))(z, y).mean(dim=0),
        "jvp": lambda head: torch.func.jvp(lambda z: head(z, y), (z,), (torch.ones_like(z),))[1],
        "forward AD": lambda head: forward_derivative(head, z, y),
    }
    for name, transform in transforms.items():
        with pytest.raises(NotImplementedError, match="use backend='torch'"):
            transform(head)
        assert transform(pure).isfinite().all(), name
    with pytest.raises(NotImplementedError, match="no second derivative; use backend='torch'"):
        torch.autograd.grad(head(z.requires_grad_(), y), z, create_graph=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["arcface", "sphereface2"])
def test_a_spread_head_has_no_second_derivative(batch, loss, backend):
    """A gradient penalty is where one is missed without a word: its upstream gradient is a constant."""
    z, y = batch
    head = ShardedMarginHead(D, C, loss, backend=backend)
    with pytest.raises(NotImplementedError, match="use MarginHead with backend='torch'"):
        torch.autograd.grad(head(z.requires_grad_(), y), z, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.functional.hvp(lambda z: head(z, y), z.detach(), torch.ones_like(z))
    (found,) = torch.autograd.grad(head(z, y), z)  # the first is there
    assert found.isfinite().all() and found.any()


@pytest.mark.parametrize("kind", ["whole", "spread"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["curricularface", "adacos", "sphereface2", "uniface"])
def test_gradients_are_those_of_the_memory_that_forward_saw(batch, loss, backend, kind):
    """The state, and the bias, may move on before backward; torch may refuse that, but not take the new ones."""
    z, y = batch
    torch.manual_seed(0)
    head = {"whole": MarginHead, "spread": ShardedMarginHead}[kind](D, C, loss, backend=backend).eval()

    def gradients(moved=None):
        features = (2 * z).requires_grad_()
        lost = head(features, y)
        if moved is not None:
            with torch.no_grad():
                for value in [head.state, *(getattr(head, name) for name in head.undecayed)]:
                    value += moved
        return torch.autograd.grad(lost, [features, head.weight])

    truth = gradients()
    try:
        found = gradients(0.5)
    except RuntimeError as refused:
        assert "modified by an inplace operation" in str(refused)
        return
    for ours, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["whole", "spread"])
@pytest.mark.parametrize("loss", ["arcface", "sphereface2", "subcenter-arcface"])
def test_float64_prototypes_are_as_good_as_float64_features(batch, loss, kind):
    """Whether the extension is built decides about speed, not about what is taken."""
    z, y = batch
    head = {"whole": MarginHead, "spread": ShardedMarginHead}[kind]
    if kind == "spread" and not LOSSES[loss].spreads:
        pytest.skip("its classes cannot be spread")
    torch.manual_seed(0)
    head = head(D, C, loss).double()
    lost = head(z, y)
    torch.testing.assert_close(lost, head(z.double(), y), check_dtype=False, atol=1e-5, rtol=1e-5)
    with pytest.raises(TypeError, match=r"features must be floating-point numbers, not torch\.int64"):
        head(torch.ones(N, D, dtype=torch.int64), y)


def forward_derivative(head, z, y):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, torch.ones_like(z))
        return torch.autograd.forward_ad.unpack_dual(head(dual, y)).tangent


@pytest.mark.skipif(not COMPILED, reason="the extension is not built")
@pytest.mark.parametrize(
    "kind, loss, classes",
    [
        (MarginHead, "adaface", 10),
        (MarginHead, "adaface", 200),
        (ShardedMarginHead, "adaface", 10),
        (ShardedMarginHead, "sphereface2", 10),
    ],
)
def test_compiled_autograd_gives_the_same_gradients(kind, loss, classes):
    torch.manual_seed(0)
    head = kind(D, classes, loss, backend="cpu").eval()
    z, y = torch.randn(N, D, requires_grad=True), torch.randint(classes, (N,))
    truth = torch.autograd.grad(head(z, y), (z, head.weight))
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        head(z, y).backward()
    assert torch.equal(z.grad, truth[0]) and torch.equal(head.weight.grad, truth[1])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [MarginHead, ShardedMarginHead])
@pytest.mark.parametrize("loss", ANGULAR)
def test_activation_checkpointing_is_right_or_refused(batch, loss, kind, backend, reentrant):
    z, y = batch
    head = kind(D, C, loss, backend=backend)

    def recomputed():
        inputs = z.clone().requires_grad_()
        checkpoint(lambda z: head(z, y), inputs, use_reentrant=reentrant).backward()
        return inputs.grad

    if loss in STATEFUL:
        with pytest.raises(RuntimeError, match=r"leave the head out of torch\.utils\.checkpoint"):
            recomputed()
        head.eval()
    plain = z.clone().requires_grad_()
    head(plain, y).backward()
    assert torch.equal(recomputed(), plain.grad)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_classes_are_not_drawn_twice_for_one_step(batch, backend, reentrant):
    """A second draw would be of other classes: its gradient is none of this loss's."""
    z, y = batch[0].requires_grad_(), batch[1]
    head = ShardedMarginHead(D, 40, "cosface", backend=backend, class_parallel=ClassParallelOptions(sample=0.4))
    with pytest.raises(RuntimeError, match=r"leave the head out of torch\.utils\.checkpoint"):
        checkpoint(lambda z: head(z, y), z, use_reentrant=reentrant).backward()
    head.eval()
    checkpoint(lambda z: head(z, y), z, use_reentrant=reentrant).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("loss", STATEFUL)
def test_a_state_does_not_move_within_a_transform(batch, loss):
    z, y = batch
    head = MarginHead(D, C, loss, backend="torch")
    with pytest.raises(NotImplementedError, match=rf"^{loss}'s running state cannot move .* call head\.eval\(\) first"):
        torch.func.grad(lambda z: head(z, y))(z)
    head.eval()
    inputs = z.clone().requires_grad_()
    head(inputs, y).backward()
    torch.testing.assert_close(torch.func.grad(lambda z: head(z, y))(z), inputs.grad)


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if not row.angular])
def test_no_label_is_left_out_where_the_range_is_not_looked_at(batch, loss):
    """torch's cross-entropy skips the label -100; a transform does not see the values that a check would need."""
    z, y = batch
    head = build_head(D, C, loss)
    for label in (-100, -1, C):
        y[7] = label
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
            torch.func.grad(lambda z: head(z, y))(z)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", STATEFUL)
def test_a_loss_that_is_not_finite_leaves_the_heads_state(batch, loss, backend):
    z, y = batch
    head = MarginHead(D, C, loss, backend=backend)
    before = head.state.clone()
    z[3, 3] = math.nan
    assert head(z, y).isnan() and torch.equal(head.state, before)
    spread = ShardedMarginHead(D, C, loss)
    assert spread(z, y).isnan() and torch.equal(spread.state, before)


@pytest.mark.skipif(not COMPILED, reason="the extension is not built")
def test_a_loss_number_that_is_none_is_refused(batch):
    z, y = batch
    for number in (-1, len(importlib.import_module("cifarnet._C").losses()), 99):
        with pytest.raises(ValueError, match=f"there is no loss number {number}"):
            torch.ops.cifarnet.margin_loss(z, z[:C], y, torch.empty(0), [number, 64.0, 0.5, 0.0], True)
