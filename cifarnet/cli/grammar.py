"""The commands as Typer's parser knows them: examples below the help, values in any case, hints for what is mistyped."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from cifarnet.cli import hints
from cifarnet.cli.run_option import with_run_options
from cifarnet.cli.typed_paths import check_paths
from cifarnet.cli.values import VALUES, canonical, completion_of
from cifarnet.core.errors import Refused

EXAMPLES = "\n\nExamples:\n"  # begins the lines of a docstring that are shown below the options
HELP_ALL = "help_all"  # the parameter of a command whose options in panels of their own are shown on request only


class _WithExamples:
    """Splits the examples from the help text, and shows them last, where a terminal stands still."""

    def __init__(self, *arguments: Any, help: str | None = None, **others: Any) -> None:
        text, _, examples = (help or "").partition(EXAMPLES)
        self.examples = [line.strip() for line in examples.splitlines() if line.strip()]
        super().__init__(*arguments, help=text, **others)  # type: ignore[call-arg]

    def format_help(self, context: Any, formatter: Any) -> None:
        """Typer's help, then the examples."""
        super().format_help(context, formatter)  # type: ignore[misc]
        if self.examples:
            formatter.write(" Examples:\n" + "".join(f"   {line}\n" for line in self.examples))

    def better(self, error: Any, context: Any, typed: Sequence[str]) -> Exception:
        """The parser's error, as ours where more can be said."""
        kind = type(error).__name__
        if kind == "NoSuchOption":
            return hints.unknown_option(error.option_name, context, typed)
        if kind == "BadOptionUsage":
            return hints.value_error(error.option_name, context, typed)
        if kind == "MissingParameter" and self.examples:
            return Refused(error.param.metavar or error.param.name, "none is given", f"for example: {self.examples[0]}")
        if kind == "BadParameter" and error.param is not None:
            why = error.message.partition(",")[0].replace("Input should be", "must be").rstrip(".")
            return Refused(error.param.opts[0], why + hints.not_the_given(error), hints.see(context))
        return error


class Command(_WithExamples, TyperCommand):
    """A command of cifarnet."""

    allow_extra_args = True  # they are looked at here

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Parses, and brings the values into their one spelling.

        Raises:
            Refused: an unknown option or value, a word too many, an address or an over-long path.
        """
        typed = list(args)
        try:
            rest = super().parse_args(context, args)
        except Exception as error:
            raise self.better(error, context, typed) from None
        if context.resilient_parsing:
            return rest
        if rest:
            raise hints.stray_argument(rest[0], context, typed)
        for one in self.params:
            value = context.params.get(one.name)
            if one.name in VALUES and isinstance(value, str):
                context.params[one.name] = canonical_of(one, value)
            elif one.name in VALUES and isinstance(value, (list, tuple)):
                context.params[one.name] = [canonical_of(one, each) for each in value]
        check_paths(context, typed)
        return rest

    def format_help(self, context: Any, formatter: Any) -> None:
        """The help; where there is --help-all, without the options that have a panel of their own."""
        params: list[Any] = self.params
        long = any(one.name == HELP_ALL for one in params) and not context.meta.get(HELP_ALL)
        left_out = [one for one in params if long and one.rich_help_panel and not one.hidden]
        for one in left_out:
            one.hidden = True
        try:
            super().format_help(context, formatter)
        finally:
            for one in left_out:
                one.hidden = False


class Group(_WithExamples, TyperGroup):
    """Commands below one name: `cifarnet` and `cifarnet visualize`."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Parses the options before the command; without anything at all the help is shown.

        Raises:
            Refused: an unknown option.
        """
        if not args and not context.resilient_parsing:
            show_help(context)
        typed = list(args)
        try:
            return super().parse_args(context, args)
        except Exception as error:
            raise self.better(error, context, typed) from None

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        """Finds the command. Raises Refused for one that is not there; it names the nearest."""
        if args[0] not in self.commands and not context.resilient_parsing:
            raise hints.unknown_command(args[0], context, args[1:])
        return super().resolve_command(context, args)


def canonical_of(parameter: Any, value: str) -> str:
    """`canonical`, whose refusal names an argument as the help does: NAME."""
    try:
        return canonical(parameter.name, value)
    except Refused as error:
        if parameter.opts[0].startswith("-"):
            raise
        raise Refused(parameter.metavar, error.why, error.fix) from None


def show_help(context: Any) -> NoReturn:
    """Prints the help on stdout and ends in good order."""
    print(context.get_help())  # Typer has written most of it by itself
    raise typer.Exit


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        context.meta[HELP_ALL] = True
        show_help(context)


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_show_all,
        is_eager=True,
        help="Show every option (margin, augmentation, optimizer ...) and exit.",
    ),
]


def add(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Makes a command of a function: its docstring is the help and holds the examples, its parameters are the options."""
    command = with_run_options(function)
    for parameter in inspect.signature(command).parameters.values():
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.autocompletion = completion_of(parameter.name)
    app.command(name, cls=Command, help=inspect.getdoc(function))(command)
