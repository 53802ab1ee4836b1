"""`--run RUN` in every command that takes a run or checkpoint, beside the argument where there is one."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.core.errors import Refused

Run = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="A run folder or checkpoint (default: runs/latest).", show_default=False),
]
Runs = Annotated[
    list[Path] | None, typer.Argument(metavar="RUN", help="Run folders (default: runs/latest).", show_default=False)
]


def with_run_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that has a parameter `run` (or `runs`: several) the option --run, and --checkpoint, its old name.

    The parameter is an argument, which stays, or the option itself. The command is called with what was named in one of
    the spellings; with None (of several: no run) where nothing was.
    """
    own = inspect.signature(function).parameters
    name = "runs" if "runs" in own else "run"
    if name not in own:
        return function
    info = own[name].annotation.__metadata__[0]
    is_argument = type(info).__name__ == "ArgumentInfo"
    text = (
        info.help if not is_argument else "As the argument." if name == "run" else "As the argument; may be repeated."
    )
    added = {
        "run_option": typer.Option("--run", metavar="RUN", help=text, show_default=False),
        "checkpoint": typer.Option("--checkpoint", hidden=True),
    }

    def command(**values: Any) -> None:
        given = {"--run": values.pop("run_option"), "--checkpoint": values.pop("checkpoint")}
        if is_argument and (argument := values.pop(name)):
            given["RUN"] = argument if isinstance(argument, list) else [argument]
        function(**values, **{name: chosen(given, several=name == "runs")})

    parameters = [one for one in own.values() if one.name != name or is_argument]
    place = next((i + 1 for i, one in enumerate(parameters) if one.name in (name, "images", "context")), 0)
    for key, option in reversed(added.items()):
        kind = Annotated[list[Path] | None, option]
        parameters.insert(place, inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__name__ = function.__name__
    return command


def chosen(given: dict[str, list[Path] | None], several: bool) -> Any:
    """The run, or with `several` the list of runs, that stands on the command line in one of its spellings.

    Raises:
        Refused: two spellings, or two runs where one is meant.
    """
    used = {spelling: runs for spelling, runs in given.items() if runs}
    if len(used) > 1:
        raise Refused(" and ".join(used), "name a run twice", "name it once")
    spelling, runs = next(iter(used.items()), ("", []))
    if several:
        return runs
    if len(runs) > 1:
        raise Refused(spelling, f"names {len(runs)} runs, and one is meant", "give it once")
    return runs[0] if runs else None
