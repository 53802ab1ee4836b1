"""What stops training before harm is done: a loss or gradient that is not finite, a head that does not learn."""

import torch
from torch import Tensor

from cifarnet.core.errors import Failed
from cifarnet.engine.optim import gradients
from cifarnet.engine.train_state import Session

GUARD_INTERVAL = 50  # steps between two looks at the device's not-finite flag, where looking would stall it


class Guard:
    """Stops training at a loss or gradient that is not finite, before the optimizer applies it.

    On CUDA the flag stays on the device: the fused optimizer skips the step by itself (`found_inf`), and the host looks
    every GUARD_INTERVAL steps and before anything is saved. (Muon is not fused: it may spoil the weights in memory until the
    host looks, and these are then thrown away.) Elsewhere looking costs nothing and is done each step.
    """

    def __init__(self, session: Session) -> None:
        self.optimizer, self.progress, self.ranks = session.optimizer, session.progress, session.ranks
        self.deferred = session.device.type == "cuda"
        self.bad = torch.zeros((), device=session.device)

    def before_update(self, loss: Tensor) -> None:
        """Call with the gradients in place and not yet applied."""
        total = torch.nn.utils.get_total_norm(gradients(self.optimizer)) + loss.detach()
        self.bad = torch.maximum(self.bad, (~torch.isfinite(total)).float())
        if self.deferred:
            self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        if not self.deferred or self.progress.step % GUARD_INTERVAL == 0:
            self.look()

    def look(self) -> None:
        """Reads the flag; raises Failed where it is set, on all ranks."""
        if self.ranks.largest(self.bad).item() > 0:
            raise Failed(
                "training", f"the loss or a gradient is not finite in epoch {self.progress.epoch + 1}",
                "checkpoints are kept as they were; try a smaller --lr, or --precision fp32",
            )  # fmt: skip


def check_head_learns(session: Session) -> None:
    """The class prototypes must learn, unless they were frozen on request."""
    gradient = session.model.head.weight.grad
    if not session.config.frozen_head and (gradient is None or not gradient.any()):
        raise Failed(
            "training",
            "the head got no gradient in the first step",
            "this is a bug; --frozen-head allows it on purpose",
        )
