"""Finished runs: configuration, scores, records."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarnet.core.class_names import with_joiners
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError, Refused, is_printable
from cifarnet.core.view_words import views_in_words
from cifarnet.data.registry import DATASETS
from cifarnet.engine.resume import is_number
from cifarnet.storage.run_files import read_json, read_metrics
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.run_names import names_apart

SCORES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "auroc", "auprc", "ece")


class FewMeasured(Refused):
    """A run on so many classes that only loss and accuracy were measured."""


@dataclass(frozen=True)
class Result:
    """A finished run. `summary` is its summary.json, `records` its metrics.jsonl, warnings what was wrong with that."""

    path: Path
    config: TrainConfig
    summary: dict[str, Any]
    records: list[dict[str, Any]]
    warnings: list[str]
    given_name: str = ""

    @property
    def name(self) -> str:
        """The folder's own name, or the one that tells it apart from another of that name."""
        return self.given_name or self.path.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [with_joiners(row["name"]) for row in self.summary["test"]["classes"]]

    @property
    def tta(self) -> bool:
        """Are the scores of several views of each image? Of a run of before this was recorded: did its options ask for them?"""
        recorded = self.summary.get("tta")
        return recorded if isinstance(recorded, bool) else self.config.tta

    @property
    def views(self) -> str:
        """In words, of how many views of each image the scores are; "" of one."""
        return views_in_words(self.summary.get("views")) if self.tta else ""

    @property
    def digest(self) -> str:
        """The digest of the run's data; empty where none was recorded."""
        digest = self.summary.get("data_digest")
        return digest if isinstance(digest, str) else ""

    @property
    def source(self) -> str:
        """The digest of the data set that the run's images were taken from; empty where none was recorded."""
        source = self.summary.get("source_digest") or self.digest
        return source if isinstance(source, str) else ""

    @property
    def data(self) -> str:
        """The data of the training, as far as it is known: its digest, or that none was recorded, and of where."""
        return self.digest or self.unrecorded

    @property
    def origin(self) -> str:
        """The data set that the run's images were taken from, whichever the seed drew: its digest, or as in `data`."""
        return self.source or self.unrecorded

    @property
    def unrecorded(self) -> str:
        """A stand-in for the digest of data that nobody recorded: the place of the files, since no more is known."""
        row = DATASETS.get(self.config.dataset)
        return f"unrecorded, {self.config.data_dir}" if row and row.from_files else "unrecorded"


def read_results(paths: Sequence[Path]) -> tuple[list[Result], list[CifarnetError]]:
    """The results in run folders, and why others have none.

    A folder that is named twice (runs/latest and its own name) is one run; runs of one name are told apart by their paths.
    """
    found, errors = [], []
    folders: dict[str, Path] = {}
    for path in sorted(paths, key=os.path.islink):  # a run's own name before a link to it
        folders.setdefault(os.path.realpath(path), path)
    for named in folders.values():
        try:
            found.append(read_result(named))
        except CifarnetError as error:
            errors.append(error)
        except (OSError, ValueError) as error:  # a name that is too long or no name at all
            errors.append(Refused(str(named), f"cannot be read ({error})", "name a run folder"))
    return told_apart(found), errors


def told_apart(results: Sequence[Result]) -> list[Result]:
    """The results, those of one name named with the folders in which they differ."""
    names = names_apart([one.path for one in results])
    return [replace(one, given_name=name) for one, name in zip(results, names, strict=True)]


def read_result(path: Path) -> Result:
    """The result in a run folder.

    Raises:
        FewMeasured: it has so many classes that few scores were measured.
        Refused: no such folder, a run that has not ended, a file that is not what cifarnet writes.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise Refused(str(path), "there is no such run", "name a run folder")
    if not folder.summary.exists() and not folder.is_run():
        raise Refused(str(path), "is no run folder", "name a run folder of cifarnet train")
    if not folder.summary.exists():
        raise Refused(str(path), "has no summary.json: the run has not ended", "finish it with cifarnet train --resume")
    summary = read_json(folder.summary, "run cifarnet train again", within=folder.path)
    if is_few(summary):
        why = "of so many classes only loss and accuracy were measured"
        raise FewMeasured(str(folder.summary), why, "name runs of 1,000 classes or fewer")
    if not is_summary(summary):
        raise Refused(str(folder.summary), "is not a summary of cifarnet train", "name another run")
    records, warnings = read_metrics(folder.metrics) if folder.metrics.exists() else ([], [])
    return Result(path, folder.read_config(), summary, records, warnings)


def is_few(values: Any) -> bool:
    """True for the summary of a run on so many classes that little was measured (`evaluate.CoarseScores`)."""
    test = values.get("test") if isinstance(values, dict) else None
    return isinstance(test, dict) and test.keys() == {"images", "loss", "accuracy"}


def is_summary(values: Any) -> bool:
    """True where every value that a report uses is there, and is what it should be."""
    try:
        test = values["test"]
        names, confusion = [row["name"] for row in test["classes"]], test["confusion"]
        counts = [count for row in confusion for count in row]
        return (
            all(test[name] is None or is_number(test[name]) for name in SCORES)
            and all(isinstance(name, str) and is_printable(name) for name in names)
            and len(names) >= 2
            and [len(row) for row in confusion] == [len(names)] * len(names)
            and all(type(count) is int and is_number(count) for count in [*counts, test["images"], values["epochs"]])
            and is_number(values["seconds"])
            and isinstance(values["device"], str)
        )
    except (KeyError, TypeError):
        return False
