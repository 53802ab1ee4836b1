"""A margin loss on each backend: compiled, pure torch, the CUDA kernels run on the CPU, and on a GPU where there is one."""

import pytest
import torch
from margin_reference import ORIGINAL

from cifarnet.losses import LOSSES, kernels
from cifarnet.losses.margin_loss import margin_loss
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.options import MarginOptions

GPU = torch.cuda.is_available() and bool(kernels.build_info().get("cuda"))
BACKENDS = (
    "cpu",
    "torch",
    "host",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU here, or the extension is built without CUDA")
    ),
)


@pytest.fixture
def evaluate(request):
    """evaluate(backend, loss, z, w, y, state, ...) -> loss, new state, gradients of z and w; settings are restored."""
    extension = pytest.importorskip("cifarnet._C", reason="the extension is not built")
    kernels.resolve("cpu", "cpu")
    kept = extension.kept_cosines()

    def run(backend, loss, z, w, y, state, training=True, upstream=1.0, most_kept=kept, **constants):
        constants = {**ORIGINAL[loss], **constants}
        if backend == "host":
            on_host = request.getfixturevalue("on_host")
            return run_on_host(on_host, loss, z, w, y, state, training, upstream, most_kept, **constants)
        extension.keep_cosines(most_kept)
        if backend == "cuda":
            z, w, y, state = (x.cuda() for x in (z, w, y, state))
        z, w = z.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
        options = options_of(loss, constants)
        if backend == "torch":
            value, _, moved = margin_loss(z, w, y, options, {"state": state}, training)
            new = moved.get("state", state)
        else:
            value, new, _ = kernels.margin_loss(z, w, y, call_of(options), state, training)
        gradients = torch.autograd.grad(value, (z, w), torch.tensor(upstream, device=z.device))
        return tuple(x.detach().cpu() for x in (value, new, *gradients))

    yield run
    extension.keep_cosines(kept)


def call_of(options):
    """The compiled call of a loss that needs to know nothing of the batch for it."""
    return OBJECTIVES[options.loss].kernel(None, options)


def options_of(loss, constants):
    """MarginOptions without a check, of constants as the reference names them: `easy` is easy_margin, and s and m may be superfluous."""
    given = {"easy_margin" if name == "easy" else name: value for name, value in constants.items()}
    row = {name: given.get(name, default) for name, default in LOSSES[loss].defaults.items()}
    return MarginOptions(loss, {**row, **{name: given[name] for name in ("scale", "margin") if name in given}})


def run_on_host(on_host, loss, z, w, y, state, training, upstream, most_kept, **constants):
    on_host.keep_cosines(most_kept)
    options = options_of(loss, constants)
    number = on_host.losses().index(loss)
    value, new, rows, cosines = on_host.margin_loss(
        z, w, y, state, [number, options.scale, options.margin, *options.others], training
    )
    return value, new, *on_host.margin_loss_backward(torch.tensor(upstream), z, w, y, rows, cosines, True, True)
