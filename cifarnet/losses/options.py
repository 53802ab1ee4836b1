"""The constants of a margin loss, checked."""

import torch
from torch import Tensor

from cifarnet.core.config import MarginOptions
from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES, loss_constants


def margin_options(num_classes: int, loss: str, **given: float | bool | None) -> tuple[MarginOptions, Tensor]:
    """The constants of a margin loss, checked, and its initial state.

    Raises:
        Refused: an unknown loss, a constant it does not have or that is out of range, fewer than two classes.
    """
    constants = loss_constants(loss, **given)
    if not LOSSES[loss].angular:
        raise Refused("--loss", f"{loss} has no margin head", "use LinearHead")
    if num_classes < 2:
        raise Refused("num_classes", f"a margin needs at least 2 classes, not {num_classes}")
    options = MarginOptions(loss, **constants)
    _check_constants(options)
    return options, torch.tensor(LOSSES[loss].initial_state, dtype=torch.float32)


def _check_constants(options: MarginOptions) -> None:
    if options.loss == "sphereface" and options.margin not in (1, 2, 3, 4, 5):
        raise Refused("--margin", f"sphereface multiplies the angle by 1 to 5, not {options.margin}", "give an integer")
    if options.loss != "sphereface" and not 0 <= options.margin <= 3.14159:
        raise Refused("--margin", f"{options.margin} is out of range", "give a margin between 0 and pi")
    if not 0 < options.scale < 1000:
        raise Refused("--scale", f"{options.scale} is out of range", "give a scale between 0 and 1000")
