"""`cifarnet train`: configuration -> training run -> summary."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.cli.common import given_options, messages, print_json, results
from cifarnet.core.config import FEATURE_VALUES, SYNTHETIC, TrainConfig
from cifarnet.core.distributed import launched
from cifarnet.core.errors import Refused
from cifarnet.core.fields import flag
from cifarnet.engine.recipes import RECIPES, recipe_values

NUMBER_OR_AUTO = float | str | None


def number_or_auto(text: str) -> float | str:
    """0.3 -> 0.3; anything else stays text, for the configuration's own check."""
    try:
        return float(text)
    except ValueError:
        return text


def with_config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for each field of TrainConfig, in the place of its `**options`."""
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for item in dataclasses.fields(TrainConfig):
        choices = item.metadata["choices"]
        option = typer.Option(
            help=item.metadata["help"],
            rich_help_panel=item.metadata["group"],
            show_default=item.default is not None,
            metavar="|".join(choices) if choices else None,
        )
        kind: Any = str | None if item.type == NUMBER_OR_AUTO else item.type  # Typer takes no other unions
        annotation = Annotated[kind, option]
        own.append(
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=annotation)
        )
    function.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return function


@with_config_options
def train(
    context: typer.Context,
    *,
    recipe: Annotated[str, typer.Option(help=f"A named set of values: {', '.join(RECIPES)}.")] = "report",
    config: Annotated[Path | None, typer.Option(help="A JSON file of options (config.json of a run).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder (default: runs/<arch>-<loss>-<dataset>-<n>).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out (default: runs/latest).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again in a folder that holds a run.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Start from the weights of a checkpoint or run.")] = None,
    animate: Annotated[
        bool, typer.Option("--animate", help="Draw the sphere after each epoch and a GIF of it (--embed-dim 2 or 3).")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the summary.")] = False,
    **options: Any,
) -> None:
    """Train a classifier: options in, a run folder with checkpoints, metrics and figures out.

    Values come from the recipe, then from --config, then from the flags given here. Without any, the report's protocol.
    """
    fields = TrainConfig.__dataclass_fields__
    given = {name: context.params[name] for name in given_options(context) if name in fields}
    given |= {name: number_or_auto(text) for name, text in given.items() if fields[name].type == NUMBER_OR_AUTO}
    if resume and (overwrite or init_from or config or "recipe" in given_options(context)):
        raise Refused("--resume", "goes on with a run as it is", "drop --overwrite, --init-from, --config and --recipe")
    if resume:
        chosen, out = resumed_config(out, given)
    else:
        chosen = new_config(recipe, config, given)
    from cifarnet.cli.training import train_with_progress

    summary = train_with_progress(
        chosen,
        out,
        resume=resume,
        overwrite=overwrite,
        init_from=init_from,
        console=messages(quiet),
        headline=[] if resume else headline(recipe, chosen, given),
        animate=animate,
    )
    if not launched().first:
        return
    if json_output:
        print_json(summary)
    else:
        from cifarnet.cli.tables import summary_table

        results().print(summary_table(summary))


def headline(recipe: str, config: TrainConfig, given: dict[str, Any]) -> list[tuple[str, str]]:
    """What is about to be trained: the recipe, the values it sets, and those that the command line put in their place."""
    values = recipe_values(recipe, config.loss) | (FEATURE_VALUES if config.dataset == SYNTHETIC else {})
    set_here = " ".join(f"{flag(name)} {getattr(config, name)}" for name in values if name not in given)
    changed = " ".join(f"{flag(name)} {value}" for name, value in given.items())
    rows = [("recipe", f"{recipe}: {RECIPES[recipe].summary}"), ("sets", set_here), ("changed", changed)]
    return [(name, text) for name, text in rows if text]


def new_config(recipe: str, file: Path | None, given: dict[str, Any]) -> TrainConfig:
    """The recipe's values, replaced by the file's, replaced by those given on the command line."""
    from_file: dict[str, Any] = {}
    if file is not None:
        from cifarnet.storage.run_folder import read_json

        from_file = read_json(file, "name a JSON file of options")
        TrainConfig.from_dict(from_file, str(file))
    loss = given.get("loss", from_file.get("loss"))
    values = recipe_values(recipe, loss)
    if (from_file | given).get("dataset") == SYNTHETIC:
        values |= FEATURE_VALUES
    return TrainConfig.from_dict(values | from_file | given, "options")


def resumed_config(out: Path | None, given: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """The configuration that the run was saved with, with what may change taken from the command line, and its folder."""
    from cifarnet.storage.run_folder import LATEST, open_run

    folder = out or LATEST.resolve()
    if out is None and not LATEST.exists():
        raise Refused("--resume", "there is no run yet", "name its folder with --out")
    from cifarnet.engine.resume import check_same_run, load_config

    saved = load_config(open_run(folder, resume=True, overwrite=False).state)
    asked = TrainConfig.from_dict(json.loads(json.dumps(saved.to_dict() | given)), "options")
    check_same_run(saved, asked)
    return asked, folder
