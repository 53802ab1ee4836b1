"""The text of a checkpoint about its model: written as JSON, and read with every field checked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cifarnet import __version__
from cifarnet.core.class_names import Numbers, in_todays_form
from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused, is_printable
from cifarnet.core.later_version import refuse_later_options
from cifarnet.models.calibration import Calibration, parse_calibration

Channels = tuple[float, float, float]  # a number for each of red, green and blue


@dataclass(frozen=True)
class ModelInfo:
    """The text of a checkpoint about its model: everything needed to rebuild it and to use it on an image.

    mean, std: per channel, of pixels in [0, 1]; epoch: epochs trained; metrics: of that epoch; backend: what ran the head;
    data: what it was trained and measured on (`data.identity.DataIdentity` as text; "" of version 0.1); calibration: None
    where none was fitted.
    """

    config: TrainConfig
    classes: Sequence[str]
    mean: Channels
    std: Channels
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    backend: str = "torch"
    data: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None

    def to_json(self) -> str:
        """The metadata as one JSON document."""
        values = {**self.__dict__, "config": self.config.to_dict()}
        del values["calibration"]
        if self.calibration is not None:
            values["calibration"] = vars(self.calibration)
        if self.config.dataset == SYNTHETIC:  # called by their numbers; there may be millions
            values["classes"] = []
        return json.dumps(values)


def current_versions() -> dict[str, str]:
    """Versions of what computes, to be compared when a run is resumed elsewhere."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cifarnet": __version__, "torch": torch.__version__, "gpu": gpu}


def parse_info(text: str, path: Path) -> ModelInfo:
    """The metadata of a checkpoint, every field checked before any is used; nothing is guessed.

    Raises:
        Refused: a field is missing or is not what it should be.
    """
    try:
        values = parse_fields(text)
        refuse_later_options(values["config"], str(path), values["versions"].get("cifarnet"))
        return info_from(values)
    except ValueError as error:
        raise Refused(str(path), f"its metadata is not usable: {error}", "take another checkpoint") from error


def parse_fields(text: str) -> dict[str, Any]:
    """The fields by name, those that every checkpoint has of their types. Raises ValueError."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    expected: dict[str, Any] = {"config": dict, "classes": list, "mean": list, "std": list, "epoch": int}
    expected |= {"metrics": dict, "backend": str, "versions": dict}
    if not isinstance(values, dict) or any(not isinstance(values.get(key), kind) for key, kind in expected.items()):
        raise ValueError(f"it needs {', '.join(expected)}")
    return values


def info_from(values: dict[str, Any]) -> ModelInfo:
    """The same as a `ModelInfo`. Raises ValueError where a value cannot be."""
    try:
        config = TrainConfig.from_dict(values["config"])
    except Refused as error:
        raise ValueError(str(error)) from error
    classes = Numbers(config.classes) if config.dataset == SYNTHETIC else parse_classes(values["classes"])
    mean, std = parse_mean_std(values["mean"], values["std"])
    data = values.get("data", "")
    if not isinstance(data, str):
        raise ValueError("data must be text")
    return ModelInfo(
        config=config,
        classes=classes,
        mean=mean,
        std=std,
        epoch=values["epoch"],
        metrics=values["metrics"],
        backend=values["backend"],
        data=data,
        versions={str(key): str(value) for key, value in values["versions"].items()},
        calibration=parse_calibration(values.get("calibration")),
    )


def parse_classes(names: list[Any]) -> tuple[str, ...]:
    """The names of the classes in the form that is read today. Raises ValueError."""
    if not 2 <= len(names) <= 10**7 or not all(isinstance(name, str) and is_printable(name) for name in names):
        raise ValueError("classes must be 2 names or more, without control characters")
    return tuple(map(in_todays_form, names))


def parse_mean_std(mean: list[Any], std: list[Any]) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the pixels, as `ModelInfo` has them. Raises ValueError."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in [*mean, *std])
    if len(mean) != 3 or len(std) != 3 or not numbers or not all(1e-6 < value < 1e6 for value in std):
        raise ValueError("mean and std must be three numbers each")
    if not all(abs(value) < 1e6 for value in mean):
        raise ValueError("mean must be three finite numbers")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
