"""How long a training will take, said before it is begun (--dry-run) or while it is hopeless (a day or more on a CPU)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarnet.core.errors import plural
from cifarnet.engine.recipes import RECIPES

if TYPE_CHECKING:
    from cifarnet.engine.rehearsal import Rehearsal
    from cifarnet.engine.train_state import TrainState

HOPELESS = 24 * 3600.0  # seconds on a CPU
LOOK_AFTER = 10.0  # seconds of training, after which its pace is known
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
QUICK = "quick"


def about(seconds: float) -> str:
    """A length of time in words, in the largest unit of which there are two or more: 40 s, "about 6 days"."""
    name, unit = next(((name, unit) for name, unit in UNITS if seconds >= 2 * unit), UNITS[-1])
    count = max(round(seconds / unit), 1)
    return f"about {count} {name}{'s' if count != 1 else ''}" if seconds >= 1 else "less than a second"


class Forecast:
    """Looks once at the pace of a training on a CPU, and has a line for the user where it would take a day or more."""

    def __init__(self) -> None:
        # When the first step of this process ended, and what was done then.
        self.begun: tuple[float, float] | None = None
        self.seen = False

    def line(self, run: "TrainState", now: float) -> str | None:
        """The line to print after a step that ended at `now`, in seconds; None: nothing, or not yet."""
        if self.seen:
            return None
        done, everything = run.work
        if self.begun is None:
            self.begun = now, done
        spent, since = now - self.begun[0], done - self.begun[1]
        if spent < LOOK_AFTER or since <= 0:
            return None
        self.seen = True
        left = (everything - done) * spent / since
        if run.device.type != "cpu" or left < HOPELESS:
            return None
        text = f"this training takes {about(left)} on this CPU"
        quick = quick_seconds(run, everything * spent / since)
        return f"{text}; `recipe={QUICK}` needs {about(quick)}" if quick < left else text


def quick_seconds(run: "TrainState", whole: float) -> float:
    """Seconds that recipe `quick` needs of the same network, by its passes over the images; `whole`: those of all epochs now."""
    return whole * RECIPES[QUICK].values["epochs"] / run.config.epochs


def forecast_of(found: "Rehearsal") -> dict[str, Any]:
    """The document of --dry-run --json: plain JSON values."""
    run = found.run
    return {
        "config": run.config.to_dict(),
        "parameters": run.parameters,
        "device": str(run.device),
        "precision": run.precision,
        "backend": run.backend,
        "data_digest": run.data.digest,
        "source_digest": run.data.source,
        "train_images": len(run.train.split),
        "test_images": len(run.test.split),
        "epoch_seconds": found.train_seconds + found.evaluation_seconds,
        "seconds": found.seconds,
        "run": str(found.path),
        "bytes": found.size,
    }


def forecast_lines(found: "Rehearsal") -> list[tuple[str, str]]:
    """(name, text) of what --dry-run says of time and files."""
    config, size = found.run.config, found.size
    epoch, whole = found.train_seconds + found.evaluation_seconds, found.seconds
    files = "config.json, metrics.jsonl, state.safetensors, last.safetensors"
    files += ", best.safetensors" if config.val_fraction else ""
    whole_time = f", all {config.epochs} {about(whole)}" if config.epochs > 1 else ""
    lines = [("time", f"an epoch takes {about(epoch)} here{whole_time}")]
    quick = quick_seconds(found.run, whole)
    if found.run.device.type == "cpu" and whole >= HOPELESS and quick < whole:
        lines.append(("note", f"`recipe={QUICK}` needs {about(quick)}"))
    lines.append(
        ("writes", f"{found.path}: {files}, summary.json, curves.png, confusion.png; about {size / 1e6:,.0f} MB")
    )
    return lines


def series_line(found: "Rehearsal", folders: Sequence[Path]) -> list[tuple[str, str]]:
    """(name, text) of a series of runs in `folders`, of which `found` is the first; nothing where there is none."""
    if not folders:
        return []
    names = ", ".join(path.name for path in folders)
    return [("series", f"{plural(len(folders), 'run')}, {about(len(folders) * found.seconds)} in all: {names}")]
