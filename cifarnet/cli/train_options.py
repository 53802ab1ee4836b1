"""The options of `train` and of what trains as it does: a flag for each field of TrainConfig, and the values that they come to."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.cli.common import given_options
from cifarnet.cli.options import given_constants, loss_flags, spoken
from cifarnet.core.config import FEATURE_VALUES, SYNTHETIC, TrainConfig, merged
from cifarnet.core.errors import Refused, printable
from cifarnet.core.option_values import without_unset
from cifarnet.data.registry import DATASETS
from cifarnet.engine.recipes import recipe_values
from cifarnet.losses import LOSSES
from cifarnet.models.registry import ARCHS

# Tables whose rows are the values of an option: its help names them.
ROWS: dict[str, Mapping[str, Any]] = {"arch": ARCHS, "loss": LOSSES, "dataset": DATASETS}
# What --help shows, in this order; all others have a panel of their own, which --help-all shows.
BASIC = (
    "arch", "loss", "dataset", "data_dir", "recipe", "epochs", "batch_size", "lr", "seed", "seeds", "device", "out", "resume",
    "dry_run", "help_all",
)  # fmt: skip
MORE = "More of the run"  # the panel of the options that are the command's own


def with_config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for each field of TrainConfig, and the loss's constants, in the place of its `**options`."""
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for item in dataclasses.fields(TrainConfig):
        if item.name == "loss_options":
            own += loss_flags(item.metadata["group"])
            continue
        choices = item.metadata["bounds"].choices
        values = item.metadata["bounds"].range if not choices else ""
        option = typer.Option(
            help=spoken(item.metadata["help"])
            + (f": {', '.join(ROWS[item.name])}" if item.name in ROWS else "")
            + (f" ({values})" if values else ""),
            rich_help_panel=None if item.name in BASIC else item.metadata["group"],
            show_default=item.default is not None,
            metavar="|".join(choices) if choices and len(choices) == 2 else None,
        )
        annotation = Annotated[item.type, option]  # type: ignore[name-defined]
        own.append(
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=annotation)
        )
    place = {name: number for number, name in enumerate(("context", *BASIC))}
    own.sort(key=lambda parameter: place.get(parameter.name, len(place)))
    function.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return function


def given_values(context: typer.Context) -> dict[str, Any]:
    """The configuration's fields that stand on the command line, by name."""
    named, fields = given_options(context), TrainConfig.__dataclass_fields__
    given = {name: value for name, value in context.params.items() if name in named and name in fields}
    if constants := given_constants(context.params, named):
        given["loss_options"] = constants
    return given


def file_values(file: Path | None) -> dict[str, Any]:
    """The options in a --config file, checked; none without a file."""
    if file is None:
        return {}
    from cifarnet.storage.run_files import read_json, split_config

    values, _ = split_config(read_json(file, "name a JSON file of options"))
    TrainConfig.from_dict(values, str(file))
    return without_unset(merged(values))


def new_config(recipe: str, from_file: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """The recipe's values, replaced by those of a --config file, replaced by those given on the command line."""
    asked = found_dataset(merged(from_file, given))
    values = recipe_values(recipe, asked.get("loss"))
    if asked.get("dataset") == SYNTHETIC:
        values |= FEATURE_VALUES
    return TrainConfig.from_dict(merged(values, asked), "options")


def found_dataset(asked: dict[str, Any]) -> dict[str, Any]:
    """The values asked for, with the data set that lies in `data_dir` where none is named.

    Raises:
        Refused: a folder or file is there, and no data set: else CIFAR-10 would be fetched for someone with data of their own.
    """
    if "dataset" in asked or asked.get("data_dir") is None:
        return asked
    from cifarnet.data.sources.layouts import guess_dataset

    found = guess_dataset(asked["data_dir"])
    if found is None:
        refuse_unknown(Path(asked["data_dir"]))
    return asked | {"dataset": found} if found else asked


def refuse_unknown(place: Path) -> None:
    """Raises Refused where `place` is there and holds neither CIFAR-10, however packed, nor what is known by its names."""
    if not place.exists():  # said where it is opened
        return
    from cifarnet.data.sources.cifar_places import look
    from cifarnet.data.sources.cifar_sets import SETS
    from cifarnet.data.sources.wrong_folder import refuse_shape

    if look(SETS[TrainConfig.dataset], place) is None:
        error = refuse_shape(place)
        why = error.why.removeprefix("no class folder in it; ")
        fix = f"{error.fix}; or leave it out to train on CIFAR-10"
        raise Refused(f"`data_dir={printable(place)}`", why, fix)


def resumed_config(out: Path | None, given: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """The configuration that the run was saved with, with what may change taken from the command line, and its folder."""
    from cifarnet.storage.open_run import open_run
    from cifarnet.storage.runs import newest_state

    folder = out or newest_state()
    if folder is None:
        raise Refused("resume", "there is no run yet", "name its folder with --out")
    from cifarnet.engine.open_split import folder_of
    from cifarnet.engine.same_run import check_same_run, load_config

    saved = load_config(open_run(folder, resume=True, overwrite=False).state)
    if "data_dir" not in given:  # of a run that came from elsewhere not even looked at
        given = given | {"data_dir": folder_of(saved, saved.dataset, None)}
    asked = TrainConfig.from_dict(merged(saved.to_dict(), given), "options")
    check_same_run(saved, asked)
    return asked, folder
