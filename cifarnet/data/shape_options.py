"""The options that shape a training split, as far as the configuration alone tells. No torch here."""

from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import plural

OPTIONS = ("hold_out_classes", "subset", "imbalance", "label_noise", "canonical_order")


def shaping_options(config: TrainConfig) -> dict[str, Any]:
    """Those of `OPTIONS` that `config` gives, by name."""
    return {name: getattr(config, name) for name in OPTIONS if getattr(config, name) != getattr(TrainConfig, name)}


def shaping_words(config: TrainConfig) -> str:
    """The same in words, "without cat,dog, long tail 100:1, 20% wrong labels"; empty where none is given."""
    held = config.hold_out_classes or ""
    words = [
        (held, f"without the last {plural(int(held), 'class')}" if is_count(held) else f"without {held}"),
        (config.subset, f"a subset of {plural(config.subset, 'image')}"),
        (config.imbalance > 1, f"long tail {config.imbalance:g}:1"),
        (config.label_noise, f"{100 * config.label_noise:g}% wrong labels"),
        (config.canonical_order, "canonical order"),
    ]
    return ", ".join(text for given, text in words if given)


def is_count(text: str) -> bool:
    """Is a value of `hold_out_classes` a number of classes? ("3," is a name.)"""
    return text.strip().isascii() and text.strip().isdecimal()
