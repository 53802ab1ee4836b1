"""The options that shape a training split, as far as the configuration alone tells. No torch here."""

import re
from typing import Any

from cifarnet.core.class_names import in_quotes
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import plural, printable

OPTIONS = ("hold_out_classes", "subset", "imbalance", "label_noise", "canonical_order")
SHOWN = 5  # classes named in a line
LISTED = re.compile(r'\s*"([^",]*,[^"]*)"\s*(?=,|$)|([^,]+)')  # a name with a comma, in double quotes; any other


def shaping_options(config: TrainConfig) -> dict[str, Any]:
    """Those of `OPTIONS` that `config` gives, by name."""
    return {name: getattr(config, name) for name in OPTIONS if getattr(config, name) != getattr(TrainConfig, name)}


def shaping_words(config: TrainConfig) -> str:
    """The same in words, "without cat, dog, long tail 100:1, 20% wrong labels"; empty where none is given."""
    held = config.hold_out_classes or ""
    words = [
        (held, f"without {held_words(held)}"),
        (config.subset, f"a subset of {plural(config.subset, 'image')}"),
        (config.imbalance > 1, f"long tail {config.imbalance:g}:1"),
        (config.label_noise, f"{100 * config.label_noise:g}% wrong labels"),
        (config.canonical_order, "canonical order"),
    ]
    return ", ".join(text for given, text in words if given)


def asked_classes(text: str) -> int | list[str]:
    """A value of `hold_out_classes`: how many classes, or the names that it lists ("3," is a name; one with a comma stands in double quotes)."""
    if text.strip().isascii() and text.strip().isdecimal():
        return int(text) if len(text) < 10 else 10**9
    names = [quoted or plain for quoted, plain in LISTED.findall(text)]
    return [name.strip() for name in names if name.strip()]


def held_words(text: str) -> str:
    """The same in words: "the last 2 classes", "cat, dog"."""
    asked = asked_classes(text)
    if isinstance(asked, int):
        return f"the last {plural(asked, 'class')}"
    return printable(", ".join(map(in_quotes, asked))) if len(asked) <= SHOWN else plural(len(asked), "class")
