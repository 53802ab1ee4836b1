"""`cifarnet train`: configuration -> training run -> summary."""

import dataclasses
import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import given_options, messages, print_json, results
from cifarnet.cli.grammar import HelpAll
from cifarnet.cli.options import given_constants, loss_flags, spoken, typed
from cifarnet.cli.watch_options import MORE, Live, TensorBoard, check_live, check_tensorboard
from cifarnet.core.config import FEATURE_VALUES, SYNTHETIC, TrainConfig, merged
from cifarnet.core.distributed import launched
from cifarnet.core.errors import Refused, printable
from cifarnet.data.registry import DATASETS
from cifarnet.engine.recipes import RECIPES, recipe_values
from cifarnet.losses import LOSSES
from cifarnet.models.registry import ARCHS

if TYPE_CHECKING:
    from cifarnet.cli.watcher import TerminalWatcher

# Tables whose rows are the values of an option: its help names them.
ROWS: dict[str, Mapping[str, Any]] = {"arch": ARCHS, "loss": LOSSES, "dataset": DATASETS}
# What --help shows, in this order; all others have a panel of their own, which --help-all shows.
BASIC = (
    "arch", "loss", "dataset", "data_dir", "recipe", "epochs", "batch_size", "lr", "seed", "device", "out", "resume",
    "dry_run", "help_all",
)  # fmt: skip


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


@with_config_options
def train(
    context: typer.Context,
    *,
    recipe: Annotated[str, typer.Option(help=f"A named set of values: {', '.join(RECIPES)}.")] = "report",
    config: Annotated[
        Path | None, typer.Option(help="A JSON file of options (config.json of a run).", rich_help_panel=MORE)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder (default: runs/<arch>-<loss>-<dataset>-<n>).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out (default: the newest).")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again in a folder that holds a run.", rich_help_panel=MORE)
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Start from the weights of a checkpoint or run.", rich_help_panel=MORE)
    ] = None,
    animate: Annotated[
        bool,
        typer.Option(
            "--animate",
            help="Draw the sphere after each epoch and a GIF of it (--embed-dim 2 or 3).",
            rich_help_panel=MORE,
        ),
    ] = False,
    live: Live = None,
    tensorboard: TensorBoard = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON document.", rich_help_panel=MORE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, how long it takes here and what it writes.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the summary.", rich_help_panel=MORE)
    ] = False,
    help_all: HelpAll = False,
    **options: Any,
) -> None:
    """Train a classifier: options in, a run folder with checkpoints, metrics and figures out.

    Values come from the recipe, then from --config, then from the flags given here. Without any, the report's protocol.

    Examples:
        cifarnet train --dataset digits --arch baseline --epochs 5  # no download
        cifarnet train --arch resnet18 --loss adaface --recipe quick
        cifarnet train --dataset folder --data-dir photos --recipe quick
        cifarnet train --resume                                     # the newest run
    """
    named = given_options(context)
    fields = TrainConfig.__dataclass_fields__
    given = {name: value for name, value in context.params.items() if name in named and name in fields}
    if constants := given_constants(context.params, named):
        given["loss_options"] = constants
    if resume and (overwrite or init_from or config or "recipe" in named):
        raise Refused("resume", "goes on with a run as it is", "drop --overwrite, --init-from, --config and --recipe")
    if resume and dry_run:
        raise Refused("--dry-run", "is of a new run", "leave --resume out")
    if resume:
        chosen, out = resumed_config(out, given)
    else:
        chosen = new_config(recipe, config, given)
    if animate:
        from cifarnet.cli.animate import check_animation

        check_animation(chosen)
    page = check_live(live, overwrite, resume) if live is not None and launched().first else None
    if tensorboard:
        check_tensorboard()
    from cifarnet.cli.beside import with_others
    from cifarnet.cli.watcher import TerminalWatcher
    from cifarnet.engine.fit import fit

    watcher = TerminalWatcher(messages(quiet), [] if resume else headline(recipe, chosen, given), animate)
    if dry_run:
        rehearse_and_say(chosen, out, watcher, json_output, overwrite=overwrite, init_from=init_from)
        return
    about = {"recipe": recipe, "command": shlex.join(["cifarnet", *context.find_root().obj])}
    told = with_others(watcher, page, tensorboard)
    fit(chosen, out, resume=resume, overwrite=overwrite, init_from=init_from, about=about, watcher=told)
    if not launched().first:
        return
    if json_output:
        print_json(watcher.summary)
    else:
        from cifarnet.cli.tables import print_summary

        print_summary(results(), watcher.summary)


def rehearse_and_say(
    config: TrainConfig, out: Path | None, watcher: "TerminalWatcher", as_json: bool, **start: Any
) -> None:
    """Carries out --dry-run: what would be trained on stderr, time and files on stdout."""
    from cifarnet.cli.forecast import forecast_lines, forecast_of
    from cifarnet.engine.rehearsal import rehearse
    from cifarnet.storage.run_folder import RunFolder

    if launched().world > 1:
        raise Refused("--dry-run", "is of one process", "start it without torchrun")
    found = rehearse(config, lambda: watcher.load(config), out, **start)
    watcher.announce(found.run, RunFolder(found.path))
    for warning in found.warnings:
        watcher.warn(warning)
    if as_json:
        print_json(forecast_of(found))
        return
    for name, text in forecast_lines(found):
        results().say(f"{name:<8} {spoken(text)}")


def headline(recipe: str, config: TrainConfig, given: dict[str, Any]) -> list[tuple[str, str]]:
    """The recipe, the values it sets, and those that the command line put in their place."""
    values = merged(recipe_values(recipe, config.loss), FEATURE_VALUES if config.dataset == SYNTHETIC else {})
    here, changed = spelled(values, config), spelled(given, config)
    rows = [("recipe", f"{recipe}: {RECIPES[recipe].summary}")]
    if config.data_dir is not None and config.dataset != TrainConfig.dataset and "dataset" not in given:
        rows.append(
            ("data", f"what lies in {printable(config.data_dir)} is taken as {typed('dataset', config.dataset)}")
        )
    rows += [("sets", " ".join(text for text in here if text not in changed)), ("changed", " ".join(changed))]
    return [(name, text) for name, text in rows if text]


def spelled(values: dict[str, Any], config: TrainConfig) -> list[str]:
    """The options named in `values`, with the values that `config` has of them."""
    found = [typed(name, getattr(config, name)) for name in values if name != "loss_options"]
    constants = {name: config.loss_options.get(name) for name in values.get("loss_options", {})}
    return found + [typed(name, value) for name, value in constants.items()]


def new_config(recipe: str, file: Path | None, given: dict[str, Any]) -> TrainConfig:
    """The recipe's values, replaced by the file's, replaced by those given on the command line."""
    from_file: dict[str, Any] = {}
    if file is not None:
        from cifarnet.storage.run_files import read_json
        from cifarnet.storage.run_folder import split_config

        from_file, _ = split_config(read_json(file, "name a JSON file of options"))
        TrainConfig.from_dict(from_file, str(file))
    asked = found_dataset(merged(from_file, given))
    values = recipe_values(recipe, asked.get("loss"))
    if asked.get("dataset") == SYNTHETIC:
        values |= FEATURE_VALUES
    return TrainConfig.from_dict(merged(values, asked), "options")


def found_dataset(asked: dict[str, Any]) -> dict[str, Any]:
    """The values asked for, with the data set that lies in `data_dir` where none is named."""
    if "dataset" in asked or asked.get("data_dir") is None:
        return asked
    from cifarnet.data.sources.layouts import guess_dataset

    found = guess_dataset(asked["data_dir"])
    return asked | {"dataset": found} if found else asked


def resumed_config(out: Path | None, given: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """The configuration that the run was saved with, with what may change taken from the command line, and its folder."""
    from cifarnet.storage.run_folder import open_run
    from cifarnet.storage.runs import newest_state

    folder = out or newest_state()
    if folder is None:
        raise Refused("resume", "there is no run yet", "name its folder with --out")
    from cifarnet.engine.open_split import folder_of
    from cifarnet.engine.resume import check_same_run, load_config

    saved = load_config(open_run(folder, resume=True, overwrite=False).state)
    if "data_dir" not in given:  # of a run that came from elsewhere not even looked at
        given = given | {"data_dir": folder_of(saved, saved.dataset, None)}
    asked = TrainConfig.from_dict(merged(saved.to_dict(), given), "options")
    check_same_run(saved, asked)
    return asked, folder
