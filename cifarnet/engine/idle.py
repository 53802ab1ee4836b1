"""Options that were asked for and have no effect in this configuration: nothing is refused, the user is told."""

from collections.abc import Callable, Collection
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.losses import LOSSES
from cifarnet.models import ARCHS

# An option -> where it has no effect, and why; the text may name fields of the configuration in braces.
IDLE: dict[str, tuple[Callable[[TrainConfig], Any], str]] = {
    "rest_lr": (lambda c: c.optimizer != "muon", "{optimizer} does not use it"),
    "momentum": (lambda c: c.optimizer not in ("sgd", "muon"), "{optimizer} does not use it"),
    "warmup": (lambda c: c.schedule == "constant", "a constant rate has no warm-up"),
    "stem": (lambda c: c.arch in ARCHS and "stem" not in ARCHS[c.arch].options, "{arch} has one first layer only"),
    "backend": (lambda c: c.loss in LOSSES and not LOSSES[c.loss].angular, "{loss} has no margin head"),
}


def idle_options(config: TrainConfig, given: Collection[str]) -> list[str]:
    """A line for each of the `given` options, not left at its default, that `config` makes no use of.

    Names of no architecture or loss are refused elsewhere.
    """
    return [
        f"`{name}`: {why.format_map(vars(config))}"
        for name, (holds, why) in IDLE.items()
        if name in given and getattr(config, name) != getattr(TrainConfig, name) and holds(config)
    ]
