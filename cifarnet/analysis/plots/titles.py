"""The titles of figures."""

from cifarnet.core.config import TrainConfig
from cifarnet.data import DATASETS
from cifarnet.models import ARCHS


def title_of(config: TrainConfig, split: str = "") -> str:
    """The model, the loss and the data set as people write them, with the split where one is named."""
    return f"{arch_title(config.arch)} · {config.loss} · {dataset_title(config.dataset)}" + (
        f" {split}" if split else ""
    )


def arch_title(arch: str) -> str:
    """The name of an architecture as people write it."""
    return ARCHS[arch].title if arch in ARCHS else arch


def dataset_title(dataset: str) -> str:
    """The name of a data set as people write it."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset
