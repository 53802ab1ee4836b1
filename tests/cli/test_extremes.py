"""Numbers far out of range in every option of every command: refused at once, naming the option and the real range."""

import dataclasses
import re

import pytest
import typer

from cifarnet.cli import app
from cifarnet.core.config import TrainConfig
from cifarnet.core.fields import Bounds
from cifarnet.losses.registry import LOSSES, flag_constants, range_of


def numeric_options():
    """(command, option) of every option that takes a number."""
    commands = {(): typer.main.get_command(app)}
    while commands:
        path, command = commands.popitem()
        commands.update({(*path, name): below for name, below in getattr(command, "commands", {}).items()})
        for parameter in command.params:
            described = getattr(parameter, "type_descriptor", None)  # typer before 0.29: a click type
            kind = str(described.annotation) if described else type(parameter.type).__name__.lower()
            if "int" in kind or "float" in kind or (parameter.name in flag_constants() and "bool" not in kind):
                yield " ".join(path), parameter.opts[0]


NEEDED = {"predict": ["a.png"], "featuremaps": ["a.png"]}


@pytest.mark.parametrize(("command", "option"), sorted(numeric_options()))
def test_numbers_that_no_machine_can_serve(cli, command, option):
    """10^30 is out of every range; nothing is read, made or begun for it."""
    for value in (10**30, -(10**30), "1e308", "inf", "nan", 10**400):
        code, out, err = cli(*command.split(), *NEEDED.get(command, []), f"{option}={value}")
        assert code == 2 and out == "" and err.count("\n") == 1 and len(err) < 1000, (value, err)
        assert err.startswith((f"error: {option}: ", f"error: Invalid value for '{option}'")), (value, err)
        assert "internal" not in err
        if value == 10**30:  # what is allowed is said
            assert re.search(
                r"at most \d|<=\d|less than or equal to \d|choose from [\d, ]+|has no such constant", err
            ), err


def test_there_are_many():
    assert len(list(numeric_options())) > 30


@pytest.mark.parametrize("text", ["scale=1e30", "h=1e30", "scale=1e400", "margin=nan", "t-alpha=1e308"])
def test_constants_by_name_too(cli, text):
    name = text.partition("=")[0].replace("-", "_")
    for loss in (loss for loss, row in LOSSES.items() if name in row.constants):
        code, out, err = cli("train", "--loss", loss, "--loss-option", text)
        assert code == 2 and out == "" and err.startswith("error: --") and name.replace("_", "-") in err, err
        assert re.search(r"give a finite number (above|at least) [01] and at most \d|choose from 1, 2", err), err


def test_every_number_has_a_range_and_the_help_shows_it(cli):
    help_text = " ".join(cli("train", "--help-all")[1].replace("│", " ").split())
    for item in dataclasses.fields(TrainConfig):
        bounds = item.metadata["bounds"]
        if item.type in (int, float):
            assert bounds.high is not None and f"({bounds.range})" in help_text, item.name
    for row in LOSSES.values():
        for name, constant in row.constants.items():
            if not isinstance(constant.default, bool):
                assert constant.bounds.high is not None or constant.bounds.choices, name
    for name in flag_constants():
        assert range_of(name) in help_text


def test_the_words_of_a_range():
    assert [
        bounds.range
        for bounds in (Bounds(low=0, high=0.9), Bounds(above=0, high=1000), Bounds(choices=(1, 2)), Bounds())
    ] == [
        "0 to 0.9",
        "above 0, to 1000",
        "1, 2",
        "",
    ]
    assert range_of("scale") == "above 0, to 1000"
    assert range_of("margin") == "sphereface: 1, 2, 3, 4, 5; sphereface-r: 1 to 10; else 0 to 3.14159"
