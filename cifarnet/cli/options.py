"""The command line's spelling: arguments of the library become flags, the constants of the losses become options."""

import dataclasses
import inspect
import re
import shlex
from typing import Annotated, Any

import typer

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted, Refused
from cifarnet.losses.registry import LOSSES, Constant, flag_constants, range_of

# Arguments of the library's calls that are options of the commands, besides the configuration's fields.
# fmt: off
ARGUMENTS = {
    "animate", "bootstrap", "channels", "config", "convert", "crop", "csv", "data_out", "degrade", "deletion", "dims", "far",
    "figure", "flip", "folder", "folds", "format", "fp16", "fpir", "gallery", "grad_cam", "init_from", "int8", "layer", "layer_cam",
    "maps", "method", "metric", "neighbors", "out", "overwrite", "pairs", "predictions", "probes", "project", "recipe", "recursive", "resume",
    "run", "samples", "save_gallery", "scores", "seeds", "split", "template", "threshold", "thresholds",
}
# fmt: on
SPOKEN = {item.name for item in dataclasses.fields(TrainConfig)} | ARGUMENTS | set(flag_constants())
# It stands alone, as a word of a sentence does: backticks within the name of a file (`lr`.png, a/`lr`) are the file's.
QUOTED = re.compile(r"(?<![\w/\\.-])`([a-z_][a-z_0-9]*)(?:=([^`]*))?`(?![\w/\\-]|\.\w)")


def flag(name: str) -> str:
    """The command-line spelling of an argument: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def typed(name: str, value: Any) -> str:
    """An argument with its value as it can be typed: `--lr 0.1`, `--no-normalize`, `--data-dir 'my data'`."""
    text = str(value)
    if name not in SPOKEN:
        return f"--loss-option {name}={text.lower()}"
    if text in ("True", "False"):
        return flag(name if text == "True" else f"no_{name}")
    return f"{flag(name)} {shlex.quote(text)}"


def spoken(text: str) -> str:
    """A message of the library for the command line: `lr` in backticks -> --lr, `loss=ce` -> --loss ce."""

    def as_flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in SPOKEN and name not in all_constants():
            return found[0]
        return typed(name, value) if value else flag(name) if name in SPOKEN else f"--loss-option {name}"

    return QUOTED.sub(as_flag, text)


def spoken_error(what: str, why: str, fix: str) -> str:
    """An error's line for the command line; `what` may be an argument's bare name."""
    subject = spoken(f"`{what}`") if what in SPOKEN or what in all_constants() else spoken(what)
    return f"{subject}: {spoken(why)}; {spoken(fix)}" if fix else f"{subject}: {spoken(why)}"


def how_to_go_on(stop: Interrupted) -> str:
    """The line after Ctrl-C or SIGTERM in a training: what is saved, and the command that goes on."""
    by = "Ctrl-C" if stop.by == "SIGINT" else stop.by
    command = stop.command or f"cifarnet train --resume --out {shlex.quote(str(stop.folder))}"
    return f"stopped by {by} in epoch {stop.epoch}, step {stop.step}; everything is saved, go on with: {command}"


def all_constants() -> set[str]:
    """The names of all constants of all losses."""
    return {name for row in LOSSES.values() for name in row.constants}


def loss_flags(panel: str) -> list[inspect.Parameter]:
    """An option for each constant that has a flag, and --loss-option for the others."""
    parameters = [_parameter(name, constant, panel) for name, constant in flag_constants().items()]
    others = sorted(all_constants() - flag_constants().keys())
    text = f"Another constant of the loss: {', '.join(others)}." if others else "A constant of the loss, by name."
    option = typer.Option(help=text, rich_help_panel=panel, metavar="NAME=VALUE", show_default=False)
    kind = Annotated[list[str], option]
    return [*parameters, inspect.Parameter("loss_option", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=kind)]


def _parameter(name: str, constant: Constant, panel: str) -> inspect.Parameter:
    words = constant.auto or isinstance(constant.default, str)
    kind: Any = bool if isinstance(constant.default, bool) else str | None if words else float | None
    default = False if kind is bool else None
    values = range_of(name)
    text = f"{constant.help} ({values})" if values else constant.help
    option = typer.Option(help=text, rich_help_panel=panel, show_default=kind is bool)
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def number_or_text(text: Any) -> Any:
    """ "0.3" -> 0.3, "true" -> True; anything else stays as it is, for the row's own check."""
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false", "auto"):
        return {"true": True, "false": False}.get(text.lower(), "auto")
    try:
        return float(text)
    except ValueError:
        return text


def given_constants(parameters: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The loss's constants that stand on the command line, as flags and as --loss-option NAME=VALUE.

    Raises:
        Refused: a --loss-option without a name and a value, or of a name that no loss has.
    """
    constants = {name: number_or_text(parameters[name]) for name in flag_constants() if name in given}
    return constants | {name: number_or_text(value) for name, value in map(loss_option, parameters["loss_option"])}


def loss_option(text: str) -> tuple[str, str]:
    """Name and value of a --loss-option NAME=VALUE. Raises Refused where it is none, or no loss has such a constant."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Refused("--loss-option", f"'{text}' is not NAME=VALUE", "for example --loss-option scale=30")
    name = name.replace("-", "_")
    if name not in all_constants():
        known = ", ".join(sorted(all_constants()))
        raise Refused(f"--loss-option {name}", "no loss has such a constant", f"the losses have {known}")
    return name, value
