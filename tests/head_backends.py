"""A margin loss on each backend that a machine without a GPU has: compiled, pure torch, and the CUDA kernels run on the CPU."""

import pytest
import torch
from margin_reference import ORIGINAL

from cifarnet import kernels
from cifarnet.config import MarginOptions
from cifarnet.losses import margins

BACKENDS = ("cpu", "torch", "host")


@pytest.fixture
def evaluate(request):
    """evaluate(backend, loss, z, w, y, state, ...) -> loss, new state, gradients of z and w; settings are restored."""
    extension = pytest.importorskip("cifarnet._C", reason="the extension is not built")
    kernels.resolve("cpu", "cpu")
    kept = extension.kept_cosines()

    def run(backend, loss, z, w, y, state, training=True, upstream=1.0, most_kept=kept, **constants):
        constants = {**ORIGINAL[loss], **constants}
        if backend == "host":
            return run_on_host(request.getfixturevalue("on_host"), loss, z, w, y, state, training, upstream, most_kept, **constants)
        extension.keep_cosines(most_kept)
        z, w = z.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
        function = kernels.margin_loss if backend == "cpu" else margins.margin_loss
        options = MarginOptions(loss, easy_margin=constants.pop("easy", False), **constants)
        value, new, _ = function(z, w, y, options, state, training)
        return value.detach(), new, *torch.autograd.grad(value, (z, w), torch.tensor(upstream))

    yield run
    extension.keep_cosines(kept)


def run_on_host(on_host, loss, z, w, y, state, training, upstream, most_kept, **constants):
    on_host.keep_cosines(most_kept)
    constants = {"h": 0.333, "t_alpha": 0.01, "easy": False, **constants}
    numbers = [float(constants[name]) for name in ("scale", "margin", "h", "t_alpha")]
    number = kernels.LOSS_NUMBERS[loss]
    value, new, rows, cosines = on_host.margin_loss(z, w, y, state, number, *numbers, constants["easy"], training)
    return value, new, *on_host.margin_loss_backward(torch.tensor(upstream), z, w, y, rows, cosines, True, True)
