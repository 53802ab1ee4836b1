"""`cifarnet runs [DIR]`: a folder of runs -> a list: what was trained, how well, and how it ended."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli.common import messages, print_json, results


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that holds the runs.", show_default=True)
    ] = Path("runs"),
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the runs in a folder, the oldest first: recipe, model, loss, data, accuracy, epochs, state.

    Examples:
        cifarnet runs
        cifarnet runs --json
    """
    from cifarnet.cli.tables import of_views, runs_table
    from cifarnet.storage.runs import RUNS, list_runs

    none_yet = folder == RUNS and not folder.exists()
    listed, warnings = ([], []) if none_yet else list_runs(folder)
    for warning in warnings:
        messages().remark("warning", warning)
    if json_output:
        print_json([asdict(facts) for facts in listed])
    elif listed:
        results().print(runs_table(listed))
        named: dict[str, list[str]] = {}
        for facts in listed:
            if facts.tta and facts.accuracy is not None:
                named.setdefault(of_views(facts.views), []).append(facts.name)
        for words, names in named.items():
            results().say(f"{', '.join(names)}: measured on {words}")
    else:
        messages().say(f"no runs in {folder}: cifarnet train begins one")
