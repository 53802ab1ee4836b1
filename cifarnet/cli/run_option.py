"""`--run RUN` in every command that takes a run or checkpoint, beside the argument where there is one."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.core.errors import Refused

HELP = "A run folder or checkpoint (default: runs/latest)."
Run = Annotated[Path | None, typer.Argument(help=HELP, show_default=False)]
Runs = Annotated[list[Path] | None, typer.Argument(help="Run folders (default: runs/latest).", show_default=False)]
OnlyOption = Annotated[Path | None, typer.Option("--run", help=HELP, show_default=False)]


def with_run_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that has a parameter `run` (or `runs`: several) the option --run, and --checkpoint, its old name.

    The command is called with the run that was named by one of them, and None (of several: none) where none was.
    """
    own = inspect.signature(function).parameters
    name = "runs" if "runs" in own else "run"
    if name not in own:
        return function
    info = own[name].annotation.__metadata__[0]
    is_argument = "ArgumentInfo" in type(info).__name__
    text = (
        info.help if not is_argument else "The same as the argument." if name == "run" else "The same; may be repeated."
    )
    option = typer.Option("--run", metavar="RUN", help=text, show_default=False)
    old = typer.Option("--checkpoint", hidden=True)
    added = {"run_option": option, "checkpoint": old}

    def command(**values: Any) -> None:
        given = {f"--{one.split('_')[0]}": values.pop(one) or [] for one in added}
        argument = values.pop(name) if is_argument else None
        given["RUN"] = (argument if name == "runs" else [argument]) if argument else []
        function(**values, **{name: chosen(given, several=name == "runs")})

    parameters = [p for p in own.values() if p.name != name or is_argument]
    place = next((i + 1 for i, p in enumerate(parameters) if p.name in (name, "images", "context")), 0)
    parameters[place:place] = [
        inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[list[Path] | None, one]
        )
        for key, one in added.items()
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = function.__name__
    return command


def chosen(given: dict[str, list[Path]], several: bool) -> Any:
    """The run, or with `several` the list of runs, that stands on the command line in one of its spellings.

    Raises:
        Refused: two spellings, or two runs where one is meant.
    """
    used = {spelling: runs for spelling, runs in given.items() if runs}
    if len(used) > 1:
        raise Refused(" and ".join(used), "name a run twice", "name it once")
    runs = next(iter(used.values()), [])
    if several:
        return runs
    if len(runs) > 1:
        raise Refused(next(iter(used)), f"names {len(runs)} runs, and one is meant", "give it once")
    return runs[0] if runs else None
