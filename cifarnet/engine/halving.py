"""Successive halving: many settings for few epochs, the best of them for more (Jamieson & Talwalkar 2016, algorithm 1)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cifarnet.core.errors import Refused

S = TypeVar("S")


@dataclass(frozen=True)
class Rung:
    """`trials` settings, each measured after `epochs` epochs, of which `trained` are trained on this rung."""

    trials: int
    epochs: int
    trained: int


@dataclass(frozen=True)
class Outcome:
    """The result of a trial: accuracy on `images` held-out images, in [0, 1]; None: it diverged, `error` says how."""

    accuracy: float | None
    images: int = 0
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """Setting number `setting` on rung number `rung`, both from 0. promoted: it goes on to the next rung."""

    setting: int
    rung: int
    outcome: Outcome
    promoted: bool = False


def rungs_of(settings: int, epochs: int, eta: int, goes_on: bool) -> list[Rung]:
    """The rungs for so many settings, the last of them of `epochs` epochs.

    Rung k of 0 .. s, s = ⌊log_eta(settings)⌋, has ⌊settings / eta^k⌋ trials of ⌊epochs / eta^(s - k)⌋ epochs: about as many
    epochs on each rung.

    Args:
        goes_on: a promoted trial goes on from where it stands; else it starts again, and all its epochs count.

    Raises:
        Refused: too few epochs for the first rung to have one.
    """
    last = 0
    while eta ** (last + 1) <= settings:
        last += 1
    if epochs < eta**last:
        why = f"{epochs} is too few for {last + 1} rungs, each of {eta} times the epochs of the one before"
        raise Refused("epochs", why, f"give {eta**last} or more, or fewer settings")
    found: list[Rung] = []
    for k in range(last + 1):
        here = epochs // eta ** (last - k)
        before = found[-1].epochs if found and goes_on else 0
        found.append(Rung(settings // eta**k, here, here - before))
    return found


def all_epochs(rungs: Sequence[Rung]) -> int:
    """Epochs that a search over these rungs trains."""
    return sum(rung.trials * rung.trained for rung in rungs)


def halve(rungs: Sequence[Rung], run: Callable[[int, int], Outcome], heed: Callable[[Trial], None]) -> list[Trial]:
    """Runs the trials rung by rung; on each rung the best go on. Of equal ones the first setting does, a failed one never.

    Args:
        run: (setting, rung) -> what the trial comes to.
        heed: called with each trial as it ends; promoted or not is known only when its rung has ended.

    Returns:
        all trials, in the order in which they ran.
    """
    trials: list[Trial] = []
    going = list(range(rungs[0].trials))
    for number in range(len(rungs)):
        here = []
        for setting in going:
            here.append(Trial(setting, number, run(setting, number)))
            heed(here[-1])
        best = ranked(here)
        room = rungs[number + 1].trials if number + 1 < len(rungs) else 0
        going = sorted(trial.setting for trial in best[:room])
        trials += [replace(trial, promoted=trial.setting in going) for trial in here]
    return trials


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that did not fail, the best first."""
    good = [trial for trial in trials if trial.outcome.accuracy is not None and not math.isnan(trial.outcome.accuracy)]
    return sorted(good, key=lambda trial: -(trial.outcome.accuracy or 0.0))


def winner(trials: Sequence[Trial]) -> Trial | None:
    """The best trial of the last rung that any setting ended; None where all failed."""
    last = max((trial.rung for trial in trials if trial.outcome.accuracy is not None), default=0)
    return next(iter(ranked([trial for trial in trials if trial.rung == last])), None)
