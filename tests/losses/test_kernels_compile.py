"""The compiled head inside torch: opcheck, torch.compile, autocast, and that the backend asked for is the one that ran."""

import pytest
import torch
from head_backends import options_of
from margin_reference import ORIGINAL
from torch import nn

from cifarnet.losses import kernels
from cifarnet.losses.heads import MarginHead

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")


@pytest.fixture(scope="module")
def inductor(tmp_path_factory):
    """A folder for what torch.compile makes here: no graph of an earlier build, and C++'s headers are prepared once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def arguments(loss, n=12, d=20, c=7):
    torch.manual_seed(0)
    head = MarginHead(d, c, loss)
    options = options_of(loss, ORIGINAL[loss])
    features = torch.randn(n, d, requires_grad=True)
    return (
        features,
        head.weight,
        torch.randint(c, (n,)),
        head.state,
        [float(kernels.loss_number(loss)), options.scale, options.margin, *options.others],
        True,
    )


@pytest.mark.parametrize("loss", ["arcface", "adaface"])
@pytest.mark.parametrize("kept", [0, 1 << 23])
def test_opcheck(loss, kept):
    before = EXTENSION.kept_cosines()
    EXTENSION.keep_cosines(kept)
    try:
        args = arguments(loss)
        torch.library.opcheck(torch.ops.cifarnet.margin_loss, args)
        with torch.no_grad():
            value, _, rows, cosines = torch.ops.cifarnet.margin_loss(*args)
            backward = (torch.ones_like(value), *args[:3], rows, cosines, True, False)
            torch.library.opcheck(torch.ops.cifarnet.margin_loss_backward, backward, test_utils="test_schema")
            torch.library.opcheck(torch.ops.cifarnet.margin_loss_backward, backward, test_utils="test_faketensor")
    finally:
        EXTENSION.keep_cosines(before)


@pytest.mark.parametrize("shape", [(9, 8), (9, 3, 8)])
def test_a_graph_is_of_any_number_of_classes(shape):
    call = [float(kernels.loss_number("arcface")), 64.0, 0.5, 0.0]

    def loss(z, w, y):
        return torch.ops.cifarnet.margin_loss(z, w, y, z.new_zeros(0), call, False)[0]

    torch._dynamo.reset()
    w = torch.randn(shape)
    torch._dynamo.mark_dynamic(w, 0)  # raises where the number is fixed
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    z, y = torch.randn(4, 8), torch.arange(4)
    torch.testing.assert_close(compiled(z, w, y), loss(z, w, y))


@pytest.mark.parametrize("loss", ["adaface", "arcface"])
def test_a_training_step_compiles_without_graph_breaks(loss, inductor):
    torch.manual_seed(0)
    net, head = nn.Linear(12, 8), MarginHead(8, 5, loss, backend="cpu")
    eager_net, eager_head = nn.Linear(12, 8), MarginHead(8, 5, loss, backend="torch")
    eager_net.load_state_dict(net.state_dict())
    eager_head.load_state_dict(head.state_dict())
    images, labels = torch.randn(6, 12), torch.randint(5, (6,))
    step = torch.compile(lambda x, y: head(net(x), y), fullgraph=True)
    before = kernels.calls()["cpu"]
    for _ in range(2):
        actual, truth = step(images, labels), eager_head(eager_net(images), labels)
        actual.backward()
        truth.backward()
        torch.testing.assert_close(actual, truth, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(head.state, eager_head.state, rtol=1e-6, atol=1e-6)
    assert kernels.calls()["cpu"] == before + 2
    torch.testing.assert_close(net.weight.grad, eager_net.weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.weight.grad, eager_head.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "backend"),
    [
        ("sphereface", "inductor"),
        *((loss, "aot_eager_decomp_partition") for loss in ("sphereface", "curricularface", "adaface", "adacos")),
    ],
)
def test_a_state_that_moves_gives_the_compiled_gradient_of_its_own_step(loss, backend, inductor):
    """In pure torch the step moves the state before its backward pass reads it: SphereFace's lambda would be the next one's.

    What the backward pass reads is chosen before code is made of it: of that one loss is enough.
    """
    torch.manual_seed(0)
    eager, head = (MarginHead(6, 5, loss, backend="torch") for _ in range(2))
    head.load_state_dict(eager.state_dict())
    features, labels = 5 * torch.randn(64, 6), torch.arange(64) % 5
    step = torch.compile(head, backend=backend, fullgraph=True)
    for _ in range(2):
        for one in (eager, head):
            one.zero_grad()
        eager(features, labels).backward()
        step(features, labels).backward()
        torch.testing.assert_close(head.state, eager.state, rtol=1e-6, atol=1e-6)
        assert (head.weight.grad - eager.weight.grad).abs().max() < 1e-5 * eager.weight.grad.abs().max()


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_the_backend_asked_for_is_the_one_that_runs(backend):
    head = MarginHead(8, 5, backend=backend)
    before = kernels.calls()
    head(torch.randn(4, 8), torch.randint(5, (4,)))
    after = kernels.calls()
    assert {name: after[name] - before[name] for name in after} == {"torch": 0, "cpu": 0, "cuda": 0} | {backend: 1}


def test_under_autocast_bf16_features_meet_fp32_prototypes():
    torch.manual_seed(0)
    net, head = nn.Linear(12, 8), MarginHead(8, 5, backend="cpu")
    images, labels = torch.randn(6, 12), torch.randint(5, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        features = net(images)
        loss = head(features, labels)
    loss.backward()
    truth = MarginHead(8, 5, backend="torch")
    truth.load_state_dict(head.state_dict())
    assert features.dtype == torch.bfloat16 and loss.dtype == torch.float32
    torch.testing.assert_close(loss, truth(features.float(), labels), rtol=1e-5, atol=1e-5)
    assert head.weight.grad.dtype == torch.float32 and net.weight.grad is not None


def test_inference_mode_and_frozen_prototypes():
    head = MarginHead(8, 5, "adaface", backend="cpu").requires_grad_(False)
    features, labels = torch.randn(4, 8, requires_grad=True), torch.randint(5, (4,))
    with torch.inference_mode():
        value = head.eval()(features, labels)
    loss = head(features, labels)
    loss.backward()
    assert torch.equal(value, loss.detach()) and features.grad.norm() > 0 and head.weight.grad is None
