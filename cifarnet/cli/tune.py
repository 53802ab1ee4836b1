"""`cifarnet tune`: values of a loss's constants -> successive halving on held-out training images -> the command to train."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, results, resume_command
from cifarnet.cli.grammar import HelpAll
from cifarnet.cli.options import spoken
from cifarnet.cli.train_options import MORE
from cifarnet.cli.tune_options import Asked, with_search_options
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import Stopped
from cifarnet.engine.recipes import RECIPES

if TYPE_CHECKING:
    from cifarnet.engine.search import Search


@with_search_options
def tune(
    context: typer.Context,
    *,
    recipe: Annotated[str, typer.Option(help=f"A named set of values: {', '.join(RECIPES)}.")] = "report",
    config: Annotated[
        Path | None, typer.Option(help="A JSON file of options (config.json of a run).", rich_help_panel=MORE)
    ] = None,
    eta: Annotated[
        int, typer.Option(min=2, max=3, help="The best 1/eta of a rung go on, with eta times the epochs.")
    ] = 3,
    out: Annotated[
        Path | None, typer.Option(help="The search's folder (default: searches/<arch>-<dataset>-<n>).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command stopped (default: the newest).")
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start each trial from the weights of a checkpoint or run.", rich_help_panel=MORE),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the table as one JSON document.", rich_help_panel=MORE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many epochs it takes, and how long, and end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the table.", rich_help_panel=MORE)] = False,
    help_all: HelpAll = False,
    **options: Any,
) -> None:
    """Search a loss's constants by successive halving, on held-out training images; the test images are not looked at.

    --scale, --margin and the loss's other constants take several values, as in 16,32,64; all other options are those of train.
    --epochs is what the last rung trains.

    Examples:
        cifarnet tune --loss arcface --scale 8,16,32 --dataset digits --epochs 9
        cifarnet tune --loss arcface --loss cosface --margin 0.1,0.3 --dataset digits
    """
    from cifarnet.cli.progress import load_with_progress
    from cifarnet.cli.tune_tables import full_command, plan_lines
    from cifarnet.cli.watcher import say
    from cifarnet.engine.rehearsal import rehearse
    from cifarnet.engine.search import check_place, new_place, newest_search, plan_of, plan_search

    asked = Asked(context, recipe, config)
    search = plan_search(asked.losses, asked.grid, asked.config, eta)
    first = search.configs[asked.losses[0]][0]
    if out is None:
        out = newest_search() if resume else new_place(first)
    check_place(search, out, resume)
    console = messages(quiet)
    data = load_with_progress(first, console)
    # The clock does not depend on the rate; one that diverges is the trial's to find.
    found = rehearse(replace(first, lr=1e-9), lambda: data, out / "rehearsal", init_from=init_from, trial=True)
    if dry_run and json_output:
        seconds = search.epochs * (found.train_seconds + found.evaluation_seconds)
        print_json({"plan": plan_of(search), "epochs": search.epochs, "seconds": seconds, "search": str(out)})
        return
    for name, text in plan_lines(search, found, out):
        say(results() if dry_run else console, name, text)
    if dry_run:
        return
    for warning in found.warnings:
        console.remark("warning", spoken(warning))
    del found  # its model and optimizer
    try:
        carry_out(search, out, data, init_from, quiet)
    except Interrupted as stop:
        stop.command = resume_command(context, out)
        raise
    except Stopped:
        messages().say(f"go on with: {resume_command(context, out)}", soft_wrap=True)
        raise
    show(search, full_command(search, asked), json_output)


def carry_out(search: "Search", out: Path, data: Any, init_from: Path | None, quiet: bool) -> None:
    """Runs the search, with a line a trial on stderr."""
    from cifarnet.cli.trial_watcher import TrialWatcher
    from cifarnet.cli.tune_tables import trial_line
    from cifarnet.engine.trials import run_search

    console = messages(quiet)
    run_search(
        search,
        out,
        dataset=data,
        init_from=init_from,
        watcher_of=lambda name, rung: TrialWatcher(console, name),
        heed=lambda loss, trial: console.say(trial_line(search, loss, trial)),
    )


def show(search: "Search", command: str, as_json: bool) -> None:
    """The table and the command on stdout."""
    from cifarnet.cli.tune_tables import notes, search_table
    from cifarnet.engine.search import document_of

    best = search.best()
    assert best is not None  # `run_search` raises where no setting was measured
    if as_json:
        chosen = {"loss": best[0], "setting": search.settings[best[1].setting]}
        print_json(document_of(search, search.trials) | {"chosen": chosen, "command": command})
        return
    console = results()
    if console.is_terminal:
        console.print()  # between the trials and the table
    console.print(search_table(search))
    for note in notes(search):
        console.say(note)
    console.say(f"train it in full: {command}", soft_wrap=True)
