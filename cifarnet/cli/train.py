"""`cifarnet train`: configuration -> training run -> summary."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import given_options, messages, print_json, results
from cifarnet.cli.grammar import HelpAll
from cifarnet.cli.options import spoken, typed
from cifarnet.cli.train_options import BASIC as BASIC
from cifarnet.cli.train_options import MORE, file_values, given_values, new_config, resumed_config, with_config_options
from cifarnet.cli.watch_options import Live, TensorBoard, check_live, check_tensorboard
from cifarnet.core.config import FEATURE_VALUES, SYNTHETIC, TrainConfig, merged
from cifarnet.core.distributed import launched
from cifarnet.core.errors import Refused, printable
from cifarnet.engine.idle import idle_options
from cifarnet.engine.recipes import RECIPES, recipe_values
from cifarnet.losses import LOSSES

if TYPE_CHECKING:
    from cifarnet.cli.watcher import TerminalWatcher


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
    seeds: Annotated[str | None, typer.Option(help="As in 0,1,2: a run each, in <out>-seed0 ...")] = None,
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
        cifarnet train --dataset folder --data-dir photos --recipe quick
        cifarnet train --loss adaface --recipe quick --seeds 0,1,2
        cifarnet train --resume                                     # the newest run
    """
    named = given_options(context)
    given = given_values(context)
    series = parse_series(seeds, named)
    if resume and (overwrite or (not series and (init_from or config or "recipe" in named))):
        others = "" if series else ", --init-from, --config and --recipe"
        raise Refused("resume", "goes on with a run as it is", f"drop --overwrite{others}")
    if resume and dry_run:
        raise Refused("--dry-run", "is of a new run", "leave --resume out")
    from_file = file_values(config)
    if resume and not series:
        chosen, out = resumed_config(out, given)
    else:
        chosen = new_config(recipe, from_file, given)
    if animate:
        from cifarnet.cli.animate import check_animation

        check_animation(chosen)
    if series and (live is not None or tensorboard):
        raise Refused("--live and --tensorboard", "follow one run", "leave them out, or give `seed`")
    page = check_live(live, overwrite, resume) if live is not None and launched().first else None
    if tensorboard:
        check_tensorboard()
    from cifarnet.cli.beside import with_others
    from cifarnet.cli.watcher import TerminalWatcher
    from cifarnet.engine.fit import fit

    lines = [] if resume and not series else headline(recipe, chosen, given, config, from_file)
    watcher = TerminalWatcher(messages(quiet), lines, animate)
    start: dict[str, Any] = {"overwrite": overwrite, "init_from": init_from}
    if dry_run:
        rehearse_and_say(chosen, out, watcher, json_output, series, **start)
        return
    about = {"recipe": recipe, "command": shlex.join(["cifarnet", *context.find_root().obj])}
    if series:
        from cifarnet.cli.series import train_series

        shown: dict[str, Any] = {"animate": animate, "quiet": quiet, "json_output": json_output}
        train_series(context, chosen, series, out, lines, resume=resume, about=about, **start, **shown)
        return
    fit(chosen, out, resume=resume, about=about, watcher=with_others(watcher, page, tensorboard), **start)
    if not launched().first:
        return
    if json_output:
        print_json(watcher.summary)
    else:
        from cifarnet.cli.tables import print_summary

        print_summary(results(), watcher.summary)


def parse_series(seeds: str | None, named: set[str]) -> list[int]:
    """The seeds of --seeds; none without it. Raises Refused where --seed stands beside it, or it is not of seeds."""
    if seeds is None:
        return []
    if "seed" in named:
        raise Refused("seeds", "cannot be with `seed`", "leave one of them out")
    from cifarnet.cli.series import parse_seeds

    return parse_seeds(seeds)


def rehearse_and_say(
    config: TrainConfig, out: Path | None, watcher: "TerminalWatcher", as_json: bool, seeds: list[int], **start: Any
) -> None:
    """Carries out --dry-run: what would be trained on stderr, time and files on stdout; of a series the first run."""
    from cifarnet.cli.forecast import forecast_lines, forecast_of, series_line
    from cifarnet.engine.rehearsal import rehearse
    from cifarnet.storage.run_folder import RunFolder

    if launched().world > 1:
        raise Refused("--dry-run", "is of one process", "start it without torchrun")
    folders: list[Path] = []
    if seeds:
        from cifarnet.cli.series import seed_folders

        folders = seed_folders(config, seeds, out)
        config, out = replace(config, seed=seeds[0]), folders[0]
    found = rehearse(config, lambda: watcher.load(config), out, **start)
    watcher.announce(found.run, RunFolder(found.path))
    for warning in found.warnings:
        watcher.warn(warning)
    if as_json:
        print_json(forecast_of(found) | ({"runs": list(map(str, folders))} if folders else {}))
        return
    for name, text in [*forecast_lines(found), *series_line(found, folders)]:
        results().say(f"{name:<8} {spoken(text)}")


def headline(
    recipe: str,
    config: TrainConfig,
    given: dict[str, Any],
    file: Path | None = None,
    from_file: Mapping[str, Any] | None = None,
) -> list[tuple[str, str]]:
    """The recipe, the values it sets, those that a file and then the command line put in their place; options without effect."""
    values = merged(recipe_values(recipe, config.loss), FEATURE_VALUES if config.dataset == SYNTHETIC else {})
    asked = dict(from_file or {})
    changed = spelled(given, config)
    of_file = [text for text in spelled(asked, config) if text not in [*changed, *plain_values(values, config)]]
    here = [text for text in spelled(values, config) if text not in [*changed, *of_file]]
    rows = [("recipe", f"{recipe}: {RECIPES[recipe].summary}")]
    if file is not None:
        rows.append(("config", f"{printable(file)}: {' '.join(of_file) or 'changes nothing'}"))
    if config.data_dir is not None and config.dataset != TrainConfig.dataset and "dataset" not in {**asked, **given}:
        rows.append(
            ("data", f"what lies in {printable(config.data_dir)} is taken as {typed('dataset', config.dataset)}")
        )
    rows += [("sets", " ".join(here)), ("changed", " ".join(changed))]
    rows += [("note", spoken(text)) for text in idle_options(config, {*given, *asked})]
    return [(name, text) for name, text in rows if text]


def plain_values(values: dict[str, Any], config: TrainConfig) -> list[str]:
    """Every option and constant as `values` have it, else at its default: what stands without a file."""
    constants = LOSSES[config.loss].defaults if config.loss in LOSSES else {}
    plain = merged(TrainConfig().to_dict(), {"loss_options": constants}, values)
    return [
        *(typed(name, value) for name, value in plain.items() if name != "loss_options"),
        *(typed(name, value) for name, value in plain["loss_options"].items()),
    ]


def spelled(values: dict[str, Any], config: TrainConfig) -> list[str]:
    """The options named in `values`, with the values that `config` has of them."""
    found = [typed(name, getattr(config, name)) for name in values if name != "loss_options"]
    constants = {name: config.loss_options.get(name) for name in values.get("loss_options", {})}
    return found + [typed(name, value) for name, value in constants.items()]
