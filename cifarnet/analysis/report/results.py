"""Finished runs: configuration, scores, records; and runs that differ in their seed alone, together."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.engine.resume import is_number
from cifarnet.storage.run_files import read_json, read_metrics
from cifarnet.storage.run_folder import RunFolder

SCORES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "auroc", "auprc", "ece")


@dataclass(frozen=True)
class Result:
    """A finished run. `summary` is its summary.json, `records` its metrics.jsonl, warnings what was wrong with that."""

    path: Path
    config: TrainConfig
    summary: dict[str, Any]
    records: list[dict[str, Any]]
    warnings: list[str]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [row["name"] for row in self.summary["test"]["classes"]]


def read_result(path: Path) -> Result:
    """The result in a run folder.

    Raises:
        Refused: no such folder, a run that has not ended, a file that is not what cifarnet writes.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise Refused(str(path), "there is no such run", "name a run folder")
    if not folder.summary.exists():
        raise Refused(str(path), "has no summary.json: the run has not ended", "finish it with cifarnet train --resume")
    summary = read_json(folder.summary, "run cifarnet train again", within=folder.path)
    if is_few(summary):
        why = "of so many classes only loss and accuracy were measured"
        raise Refused(str(folder.summary), why, "name runs of 1,000 classes or fewer")
    if not is_summary(summary):
        raise Refused(str(folder.summary), "is not a summary of cifarnet train", "name another run")
    records, warnings = read_metrics(folder.metrics) if folder.metrics.exists() else ([], [])
    return Result(path, folder.read_config(), summary, records, warnings)


def is_few(values: Any) -> bool:
    """True for the summary of a run on so many classes that little was measured (`evaluate.FewScores`)."""
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
            and all(isinstance(name, str) and name.isprintable() for name in names)
            and len(names) >= 2
            and [len(row) for row in confusion] == [len(names)] * len(names)
            and all(type(count) is int and is_number(count) for count in [*counts, test["images"], values["epochs"]])
            and is_number(values["seconds"])
            and isinstance(values["device"], str)
        )
    except (KeyError, TypeError):
        return False


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one configuration with different seeds."""

    name: str
    runs: list[Result]

    @property
    def first(self) -> Result:
        """The run that stands for the group in figures."""
        return self.runs[0]

    def score(self, name: str) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation of a score over the seeds; None where a run does not have it."""
        values = [run.summary["test"][name] for run in self.runs]
        if any(value is None for value in values):
            return None
        return mean(values), stdev(values) if len(values) > 1 else None


def group(results: Sequence[Result]) -> list[SeedGroup]:
    """Results by configuration, in the order given; a group of several is named without the running number."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(key_of(result.config), []).append(result)
    groups = []
    for runs in found.values():
        config = runs[0].config
        name = runs[0].name if len(runs) == 1 else f"{config.arch}-{config.loss}-{config.dataset} ({len(runs)} runs)"
        groups.append(SeedGroup(name, runs))
    return groups


def key_of(config: TrainConfig) -> str:
    """Equal for configurations that differ only in the seed and in what does not change the result (paths, device)."""
    loose = {item.name for item in dataclasses.fields(config) if item.metadata["resume"]} - {"epochs"} | {"seed"}
    return repr([(name, value) for name, value in config.to_dict().items() if name not in loose])
