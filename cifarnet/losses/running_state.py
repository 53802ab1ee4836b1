"""What a loss remembers between steps, kept by its head: always fp32, and saved under the loss's name."""

import torch
from torch import Tensor, nn

from cifarnet.core.config import MarginOptions

LOSS_KEY = "loss"  # of a state dict; checkpoints of version 0.1 lack it


class RunningState(nn.Module):
    """A module with the buffer `state` of the loss that `options` names.

    Where the loss has a state, its state dict holds the loss's name beside it, as ASCII codes, uint8. Loading the state of
    another loss is an error; a state dict without a name is taken as it is.
    """

    options: MarginOptions
    state: Tensor

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def, override]
        # A running mean with rate 0.01 stands still in bf16: the state stays fp32 when the module is cast.
        super()._apply(fn, recurse)
        self.state = self.state.float()
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):  # type: ignore[no-untyped-def, override]
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if len(self.state):
            destination[prefix + LOSS_KEY] = torch.tensor(list(self.options.loss.encode()), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):  # type: ignore[no-untyped-def, override]
        codes = state_dict.pop(prefix + LOSS_KEY, None)
        name = self.options.loss if codes is None else bytes(codes.tolist()).decode("ascii", "replace")
        if name != self.options.loss:
            errors.append(f"{prefix}state is that of {name}, and this head's loss is {self.options.loss}")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
