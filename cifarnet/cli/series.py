"""`cifarnet train --seeds 0,1,2`: one configuration -> a run a seed, a table of their scores with mean and deviation."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cifarnet.cli.common import messages, print_json, results, resume_command
from cifarnet.cli.options import spoken_error
from cifarnet.cli.series_tables import series_table
from cifarnet.cli.tables import of_views
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Interrupted, Refused
from cifarnet.core.percent import percent
from cifarnet.core.signals import Stopped

if TYPE_CHECKING:
    from cifarnet.engine.series import SeedRun

LARGEST = 2**31 - 1


def parse_seeds(text: str) -> list[int]:
    """The seeds in "0,1,2". Raises Refused for what is no whole number from 0 to 2^31 - 1, and for none at all."""
    seeds = []
    for word in text.split(","):
        if not (word.strip().isascii() and word.strip().isdecimal() and len(word) < 20 and int(word) <= LARGEST):
            raise Refused("seeds", f"'{word}' is no seed", f"give whole numbers from 0 to {LARGEST}, as in 0,1,2")
        seeds.append(int(word))
    return seeds


def resumed_base() -> Path:
    """The folder of the newest series, without the ending of its seeds. Raises Refused where there is none."""
    from cifarnet.storage.runs import newest_series

    base = newest_series()
    if base is None:
        raise Refused("resume", "there is no series of seeds in runs yet", "name its folder with --out")
    return base


def train_series(
    context: typer.Context, config: TrainConfig, seeds: list[int], out: Path | None, headline: Any, **start: Any
) -> None:
    """Trains the runs, and prints their table, or one JSON document.

    Args:
        headline: what is said before the first of them.
        start: resume, overwrite, init_from, about: as `fit_seeds`; animate, quiet, json_output.

    Raises:
        Failed: one of them failed; the others were trained.
    """
    from cifarnet.cli.watcher import TerminalWatcher
    from cifarnet.engine.series import check_series, fit_seeds
    from cifarnet.storage.runs import next_name

    animate, quiet, as_json = (start.pop(name) for name in ("animate", "quiet", "json_output"))
    check_series(config, seeds)
    if out is None:
        out = resumed_base() if start["resume"] else None
    base = out or next_name(config)
    console = messages(quiet)

    def watcher_of(seed: int) -> TerminalWatcher:
        number = seeds.index(seed) + 1
        return TerminalWatcher(
            console, [*(headline if number == 1 else []), ("seed", f"{seed}, run {number} of {len(seeds)}")], animate
        )

    def heed(one: "SeedRun") -> None:
        if one.before:
            console.say(f"seed {one.seed}, {one.path}: finished before")
        if error := one.error:
            messages().remark(
                "warning", f"seed {one.seed}, {one.path}: {spoken_error(error.what, error.why, error.fix)}"
            )

    try:
        runs = fit_seeds(config, seeds, base, watcher_of=watcher_of, heed=heed, **start)
    except Interrupted as stop:
        stop.command = resume_command(context, base)
        raise
    except Stopped:
        messages().say(f"go on with: {resume_command(context, base)}", soft_wrap=True)
        raise
    say_series(runs, base, as_json)
    if failed := [str(one.seed) for one in runs if one.error]:
        why = f"{len(failed)} of {len(runs)} runs failed: seed {', '.join(failed)}"
        raise Failed("seeds", why, "see the warnings above; the same command with `resume` tries again")


def say_series(runs: Sequence["SeedRun"], base: Path, as_json: bool) -> None:
    """The results on stdout; the interval of the mean accuracy is cut off at 0% and 100%."""
    from cifarnet.analysis.significance import PART, student_interval

    done = [one for one in runs if one.summary]
    interval = student_interval([one.summary["test"]["accuracy"] for one in done], within=PART)  # type: ignore[index]
    if as_json:
        failed = [{"seed": one.seed, "run": str(one.path), "error": str(one.error)} for one in runs if one.error]
        accuracy = vars(interval) if interval else None
        print_json({"runs": [one.summary for one in done], "accuracy": accuracy, "failed": failed})
        return
    console = results()
    console.print(series_table(runs))
    measured = [one.summary for one in done if one.summary and one.summary.get("tta")]
    for words in dict.fromkeys(of_views(summary.get("views")) for summary in measured):
        console.say(f"measured on {words}")
    if interval and not interval.defined:
        console.say(f"accuracy: the same of all {interval.n} seeds, which says nothing of the spread: no interval")
    elif interval:
        ends = f"{percent(interval.low)} to {percent(interval.high)}"
        console.say(f"accuracy: 95% interval of the mean {ends} (Student's t, n = {interval.n})")
    if len(done) > 1:
        console.say(f"side by side: cifarnet report {shlex.quote(str(base))}-seed*", soft_wrap=True)


def seed_folders(config: TrainConfig, seeds: Sequence[int], out: Path | None) -> list[Path]:
    """The folders that a series would have, for --dry-run; none is made. Raises Refused as `fit_seeds` would."""
    from cifarnet.engine.series import check_series, series_folders

    check_series(config, seeds)
    return [path for _, path in series_folders(config, seeds, out)]
