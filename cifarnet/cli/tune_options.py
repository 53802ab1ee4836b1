"""The options of `tune`: those of `train`, but that the loss and its constants take several values each."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.cli.common import given_options
from cifarnet.cli.options import loss_option, number_or_text
from cifarnet.cli.train_options import file_values, new_config, with_config_options
from cifarnet.core.config import TrainConfig, merged
from cifarnet.core.errors import Refused
from cifarnet.losses.registry import flag_constants

VAL_FRACTION = 0.1  # of the training images; `train` holds none out
SHOWN = ("scale", "margin", "val_fraction")  # beside what `train --help` shows


def with_search_options(function: Callable[..., None]) -> Callable[..., None]:
    """As `with_config_options`, for a command that searches: several losses, comma lists for the constants, held-out images."""
    command = with_config_options(function)
    numbers = {name for name, constant in flag_constants().items() if not isinstance(constant.default, bool)}
    parameters = []
    for one in inspect.signature(command).parameters.values():
        info = next(iter(getattr(one.annotation, "__metadata__", ())), None)
        if one.name == "loss":
            info.help += "; may be repeated, each has the same epochs"  # type: ignore[union-attr]
            one = one.replace(default=[], annotation=Annotated[list[str], info])
        elif one.name in numbers:
            info.metavar = "VALUE,..."  # type: ignore[union-attr]
            one = one.replace(annotation=Annotated[str | None, info])
        elif one.name == "val_fraction":
            info.help = "part of the training set held out, on which the settings are compared"  # type: ignore[union-attr]
            one = one.replace(default=VAL_FRACTION)
        if one.name in SHOWN:
            info.rich_help_panel = None  # type: ignore[union-attr]
        parameters.append(one)
    place = {name: number for number, name in enumerate(("context", "loss", *SHOWN, "eta", "epochs"))}
    parameters.sort(key=lambda one: place.get(one.name, len(place)))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


class Asked:
    """The request of a search's command line.

    losses: their names; grid: the constants with several values; fixed: those with one; given: the other options that stand there.
    """

    def __init__(self, context: typer.Context, recipe: str, file: Path | None) -> None:
        parameters, self.recipe, self.file = dict(context.params), recipe, file
        self.named, self.init_from = given_options(context), parameters["init_from"]
        values = {}
        for name, constant in flag_constants().items():
            if name in self.named:
                plain = isinstance(constant.default, bool)
                values[name] = [parameters[name]] if plain else several(name, parameters[name])
        values |= several_options(parameters["loss_option"])
        self.grid = {name: found for name, found in values.items() if len(found) > 1}
        self.fixed = {name: found[0] for name, found in values.items() if len(found) == 1}
        # The loss and its constants are each trial's own.
        fields = [name for name in TrainConfig.__dataclass_fields__ if name in self.named and name != "loss"]
        self.given = {name: parameters[name] for name in fields}
        self.from_file = file_values(file)
        self.losses = list(parameters["loss"]) or [new_config(recipe, self.from_file, self.given).loss]

    def config(self, loss: str, setting: dict[str, Any]) -> TrainConfig:
        """The configuration of a trial."""
        held = {} if "val_fraction" in self.given else {"val_fraction": VAL_FRACTION}
        trial = {"loss": loss, "loss_options": {**self.fixed, **setting}}
        return new_config(self.recipe, self.from_file, merged(held, self.given, trial))


def several(name: str, text: str) -> list[Any]:
    """The values in "16,32,64". Raises Refused for an empty one."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise Refused(name, f"'{text}' has an empty value", "give values with commas between them, as in 16,32,64")
    return [number_or_text(word) for word in words]


def several_options(texts: list[str]) -> dict[str, list[Any]]:
    """The constants of --loss-option NAME=VALUE,...; raises Refused as `loss_option`."""
    return {name: several(f"--loss-option {name}", values) for name, values in map(loss_option, texts)}
