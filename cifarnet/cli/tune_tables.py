"""The screens of `cifarnet tune`: the plan before it begins, the table at the end, the command that trains the chosen setting."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifarnet.cli.forecast import about
from cifarnet.cli.options import typed
from cifarnet.cli.table import Cell, Column, Table
from cifarnet.core.errors import plural
from cifarnet.core.option_values import value_text
from cifarnet.core.percent import percent
from cifarnet.engine.halving import ranked

if TYPE_CHECKING:
    from cifarnet.cli.tune_options import Asked
    from cifarnet.engine.halving import Outcome, Trial
    from cifarnet.engine.rehearsal import Rehearsal
    from cifarnet.engine.search import Search


def plan_lines(search: "Search", found: "Rehearsal", out: Path) -> list[tuple[str, str]]:
    """(name, text) of what is said before a search begins: settings, rungs, epochs, held-out images, time, folder."""
    losses, rungs = list(search.configs), search.rungs
    values = "; ".join(
        f"{spaced(name)} {', '.join(value_text(value) for value in values)}" for name, values in search.grid.items()
    )
    settings = plural(len(search.configs[losses[0]]), "setting")
    each, start = search.epochs // len(losses), "goes on from its saved state"
    if not search.goes_on:
        start = "starts again, since its schedule follows from the number of epochs"
    onward = (
        f"; the best 1/{search.eta} of a rung go on to the next; a promoted trial {start}" if len(rungs) > 1 else ""
    )
    steps = ", ".join(f"{plural(rung.trials, 'trial')} of {plural(rung.epochs, 'epoch')}" for rung in rungs)
    run = found.run
    assert run.validation is not None
    epoch = found.train_seconds + found.evaluation_seconds
    time = f"{about(epoch * search.epochs)}; an epoch takes {about(epoch)} here (what is trained already is read)"
    held = f"{len(run.validation.split):,} held out, on which the settings are compared, {len(run.train.split):,} trained on"
    held += "; the test images are not looked at"
    lines = [
        ("loss", f"{', '.join(losses)}: {settings} of each" + (f" ({values})" if values else "")),
        ("rungs", steps + onward),
        ("budget", f"{plural(each, 'epoch')} for each loss, {search.epochs:,} in all"),
        ("images", held),
        ("time", time),
        ("search", str(out)),
    ]
    return lines


def spaced(name: str) -> str:
    """A constant's name in words."""
    return name.replace("_", " ")


def setting_words(search: "Search", loss: str, number: int) -> str:
    """A setting in words: adaface, scale 16, margin 0.1."""
    return ", ".join(
        [loss, *(f"{spaced(name)} {value_text(value)}" for name, value in search.settings[number].items())]
    )


def trial_line(search: "Search", loss: str, trial: "Trial") -> str:
    """The line for a trial that has ended."""
    rung, outcome = search.rungs[trial.rung], trial.outcome
    result = "diverged" if outcome.accuracy is None else f"{percent(outcome.accuracy)} of the held-out images"
    place = f"rung {trial.rung + 1}/{len(search.rungs)}, {plural(rung.epochs, 'epoch')}"
    return f"{place}: {setting_words(search, loss, trial.setting)}: {result}"


def interval(outcome: "Outcome") -> str:
    """Wilson's 95% interval of an accuracy, in percent."""
    from cifarnet.analysis.significance import wilson_interval

    if outcome.accuracy is None:
        return "–"
    low, high = wilson_interval(round(outcome.accuracy * outcome.images), outcome.images)
    return f"{percent(low)} to {percent(high)}"


def search_table(search: "Search") -> Table:
    """A row a trial, in the order in which they ran."""
    columns = [Column("trial", number=False), Column("epochs"), Column("held out"), Column("95% interval", 1)]
    columns += [Column("promoted?", number=False)]
    best = search.best()
    rows: list[list[Cell]] = []
    for loss, trials in search.trials.items():
        for trial in trials:
            outcome, chosen = trial.outcome, best == (loss, trial)
            accuracy = "diverged" if outcome.accuracy is None else percent(outcome.accuracy)
            last = "chosen" if chosen else "yes" if trial.promoted else "no"
            name = setting_words(search, loss, trial.setting)
            style = "bold" if chosen else ""
            epochs = str(search.rungs[trial.rung].epochs)
            rows.append([(name, style), epochs, (accuracy, style), interval(outcome), (last, style)])
    return Table(columns, rows)


def notes(search: "Search") -> Sequence[str]:
    """The notes below the table."""
    best = search.best()
    assert best is not None
    found = [
        "Accuracy on held-out training images after the last epoch; Wilson's interval is of these images alone, not of seeds."
    ]
    last = [trial for trials in search.trials.values() for trial in trials if trial.rung == len(search.rungs) - 1]
    rivals = [t for t in last if t is not best[1] and t.outcome.accuracy is not None]
    low = lower_end(best[1].outcome)
    if any((rival.outcome.accuracy or 0) > low for rival in rivals):
        found.append(
            "Others of the last rung lie within the chosen one's interval: the choice is not sure; --seeds tells more."
        )
    if rungs := unsure_rungs(search):
        found.append(
            f"On {' and '.join(f'rung {number + 1}' for number in rungs)} a setting that did not go on lies within the "
            "interval of one that did: the choice is not sure; more held-out images tell more."
        )
    return found


def unsure_rungs(search: "Search") -> list[int]:
    """The rungs on which, of some loss, a trial that was not promoted lies within the interval of the least one that was."""
    found = set()
    for trials in search.trials.values():
        for rung in range(len(search.rungs) - 1):
            here = ranked([trial for trial in trials if trial.rung == rung])
            stay = [trial for trial in here if not trial.promoted]
            go = [trial for trial in here if trial.promoted]
            if go and stay and (stay[0].outcome.accuracy or 0) > lower_end(go[-1].outcome):
                found.add(rung)
    return sorted(found)


def lower_end(outcome: "Outcome") -> float:
    """The lower end of the interval that `interval` shows, in [0, 1]."""
    from cifarnet.analysis.significance import wilson_interval

    return wilson_interval(round((outcome.accuracy or 0) * outcome.images), outcome.images)[0]


def full_command(search: "Search", asked: "Asked") -> str:
    """The one command that trains the chosen setting on all training images, measured on the test images."""
    best = search.best()
    assert best is not None
    loss, trial = best
    words = ["cifarnet train"]
    if "recipe" in asked.named:
        words.append(typed("recipe", asked.recipe))
    if asked.file is not None:
        words.append(f"--config {shlex.quote(str(asked.file))} --val-fraction 0")
    words += [typed(name, value) for name, value in asked.given.items() if name != "val_fraction"]
    words.append(typed("loss", loss))
    if asked.init_from is not None:
        words.append(typed("init_from", asked.init_from))
    constants = {**asked.fixed, **search.settings[trial.setting]}
    words += [typed(name, value_text(value)) for name, value in constants.items()]
    return " ".join(words)
