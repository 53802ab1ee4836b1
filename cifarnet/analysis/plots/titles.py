"""The titles of figures: a model has one name everywhere, that of the command line."""

from collections.abc import Sequence

from cifarnet.core.config import TrainConfig


def title_of(config: TrainConfig, split: str = "") -> str:
    """Architecture, loss and data set by the names that options take, with the split where one is named."""
    return f"{config.arch} · {config.loss} · {config.dataset}" + (f" {split}" if split else "")


def panel_names(configs: Sequence[TrainConfig], runs: Sequence[str]) -> list[str]:
    """The name of each run's panel: its title; where two have the same one, its run's name before it: a title's end may be cut."""
    titles = [title_of(config) for config in configs]
    same = [title if titles.count(title) == 1 else f"{run} · {title}" for title, run in zip(titles, runs, strict=True)]
    return [name if same.count(name) == 1 else f"({place}) {name}" for place, name in enumerate(same, start=1)]


def shared(words: Sequence[str]) -> str:
    """The words that all panels have, for the figure's headline: panels have little room. Empty for one panel, or where they differ."""
    return words[0] if len(words) > 1 and len(set(words)) == 1 else ""


def has_own_loss(config: TrainConfig) -> bool:
    """Is the training loss, a margin in it or another formula, no cross-entropy as the test images are measured by?"""
    return config.loss != "ce"
