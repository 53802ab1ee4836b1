"""The compiled operator of the one-vs-all losses, sphereface2 and uniface; the extension must be loaded (see `kernels.resolve`)."""

import torch
from torch import Tensor

from cifarnet.losses.contract import refuse_transforms


def one_vs_all(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor, call: list[float]
) -> tuple[Tensor, Tensor]:
    """The mean loss, and rows [N, 3]: |z|, c_y, the largest other cosine; types and errors as those of `kernels.margin_loss`.

    The gradients are computed together with the loss: those that are needed, and none without grad mode.

    Args:
        bias: one number, the learned bias of all classes.
        call: as `kernels.numbers_of` gives it.
    """
    refuse_transforms()
    grad = torch.is_grad_enabled()
    wanted = grad and features.requires_grad, grad and weight.requires_grad
    loss, rows, *_ = torch.ops.cifarnet.one_vs_all(features, weight, labels, bias, call, *wanted)
    return loss, rows


def register_fake() -> None:
    """Output shapes for torch.compile."""

    @torch.library.register_fake("cifarnet::one_vs_all")
    def shapes(features, weight, labels, bias, call, want_features, want_weight):  # type: ignore[no-untyped-def]
        def new(shape: tuple[int, ...]) -> Tensor:
            return features.new_empty(shape, dtype=torch.float32)

        of_features = new(features.shape if want_features else (0,))
        of_weight = new(weight.shape if want_weight else (0,))
        return new(()), new((features.shape[0], 3)), of_features, of_weight, new(bias.shape)
