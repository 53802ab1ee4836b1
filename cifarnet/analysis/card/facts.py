"""The facts of a trained model's card, from its checkpoint and the files of its run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifarnet.analysis.report.results import FewMeasured, Result, read_result
from cifarnet.core.fields import is_number
from cifarnet.core.view_words import views_in_words
from cifarnet.data.identity import DataIdentity, parse_identity
from cifarnet.data.sources.origin import has_exact_contrast, says_published
from cifarnet.engine.evaluate import only_coarse
from cifarnet.models.checkpoint import laid_out
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.find_checkpoint import is_packaged
from cifarnet.storage.run_folder import RunFolder

SCORES = ("accuracy", "macro_f1", "auroc", "ece")


@dataclass(frozen=True)
class Facts:
    """A model and what is known of it.

    Args:
        name: the run's, or the file's.
        scores: those of `SCORES` that were measured on the test split, in [0, 1].
        views: in words, of how many views of each image the scores are; "" of the one that `predict` and the exported file see.
        images: test images; None: not known.
        confusion: images of class i taken for class j; empty: not known.
        command: the line that trained it; "": not known.
        constants: the loss's, as numbers where the options say "auto".
        best: whether it is the epoch of its run that was best on held-out images.
    """

    name: str
    info: ModelInfo
    data: DataIdentity | None
    scores: dict[str, float]
    views: str = ""
    images: int | None = None
    confusion: list[list[int]] = field(default_factory=list)
    command: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    packaged: bool = False
    best: bool = False

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.info.classes)

    @property
    def has_published_pixels(self) -> bool:
        """Are the images those that were published, all or all but a listed few, as far as the checkpoint tells?

        Of CIFAR-10 there are copies through JPEG: its words on the data tell, else the contrast of a whole training set that was
        normalised. Of other sets there is nothing to tell.
        """
        config, said = self.info.config, self.info.metrics.get("data")
        if config.dataset != "cifar10":
            return True
        if isinstance(said, str):
            return says_published(said)
        return config.normalize and has_exact_contrast(self.info.std)


def facts_of(path: Path, info: ModelInfo) -> Facts:
    """The facts of a checkpoint: of its run's summary.json where there is one, else of what the checkpoint itself says.

    Raises:
        Refused: a file of the run is broken, or the checkpoint describes no model.
    """
    data, folder = parse_identity(info.data), RunFolder(path.parent)
    name = path.resolve().parent.name if folder.config.is_file() else path.stem
    about = folder.read_about() if folder.config.is_file() else {}
    averaged = info.config.tta and not only_coarse(len(info.classes))
    found, views = own_scores(info), views_in_words(info.metrics.get("views")) if averaged else ""
    images = data.test.images if data else None
    confusion: list[list[int]] = []
    if folder.config.is_file() and folder.summary.is_file():
        result = result_of(path)
        if result:
            test, views = result.summary["test"], result.views
            found = {key: float(test[key]) for key in SCORES if is_number(test.get(key))}
            images, confusion = test["images"], test["confusion"]
    options = laid_out(path, info).head.options
    constants = options.constants if options else info.config.loss_options
    command = about.get("command", "")
    best = folder.config.is_file() and path.name.startswith(folder.best.name)  # or the index of its files
    return Facts(name, info, data, found, views, images, confusion, command, constants, is_packaged(path), best)


def own_scores(info: ModelInfo) -> dict[str, float]:
    """The scores that a checkpoint carries, of the test images after its last epoch."""
    named: dict[str, Any] = {key: info.metrics.get(key) for key in SCORES}
    named["accuracy"] = info.metrics.get("test_accuracy", named["accuracy"])
    return {key: float(value) for key, value in named.items() if is_number(value) and 0 <= value <= 1}


def result_of(path: Path) -> Result | None:
    """The run's result, where its scores are those of this checkpoint; None where there are so many classes that few were measured."""
    try:
        result = read_result(path.parent)
    except FewMeasured:
        return None
    same = Path(str(result.summary.get("checkpoint"))).name == path.name
    return result if same else None
