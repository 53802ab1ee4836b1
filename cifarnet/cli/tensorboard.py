"""`cifarnet train --tensorboard`: what metrics.jsonl says of each epoch as scalars, and the sphere as an image."""

import re
import tempfile
from pathlib import Path
from typing import Any

from cifarnet.cli.animate import SphereFrames, check_animation
from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import read_bytes
from cifarnet.engine.loop import Watcher
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.event_file import EventFile, event_files
from cifarnet.storage.run_folder import RunFolder

SPLIT = re.compile(r"(train|val|test)_(\w+)")
GRADIENT = re.compile(r"grad_norm_(\w+)")


class EventWatcher(Watcher):
    """Writes an event file in the run's folder `tensorboard`; the step of an event is its epoch, from 1.

    Args:
        animate: the frames of --animate are there, and are what is written.
    """

    def __init__(self, animate: bool) -> None:
        self.animate = animate
        self.events: EventFile | None = None
        self.sphere: SphereFrames | None = None

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Begins an event file. Epochs that an earlier one holds and that come again count from this one."""
        history, known = run.progress.history, event_files(folder.events)
        self.events = EventFile(folder.events, len(history) + 1 if known else 0)
        for record in [] if known else history:  # of a run that was begun without --tensorboard
            self.events.add(record["epoch"], scalars(record))
        if has_sphere(run):
            self.sphere = SphereFrames(run, folder.path, keep=True)

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """Writes the epoch's events."""
        if self.events is None:
            return
        picture = self.picture(record["epoch"]) if self.sphere is not None else None
        self.events.add(record["epoch"], scalars(record), {"sphere": picture} if picture else None)

    def picture(self, epoch: int) -> bytes:
        """The sphere after this epoch, PNG: the frame of --animate, or one that is drawn for this."""
        assert self.sphere is not None
        frame = self.sphere.frame(epoch)
        if self.animate and frame.exists():
            return read_bytes(frame)
        with tempfile.TemporaryDirectory() as place:
            return read_bytes(self.sphere.draw(epoch, Path(place, "sphere.png")))


def has_sphere(run: TrainState) -> bool:
    """True where --animate could draw the features of this run."""
    try:
        check_animation(run.config)
    except Refused:
        return False
    return True


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl by tags that TensorBoard groups: train_loss -> loss/train."""
    found = {}
    for name, value in record.items():
        if name not in ("epoch", "views"):
            tag = SPLIT.sub(r"\2/\1", name)
            found[GRADIENT.sub(r"grad_norm/\1", tag)] = float(value)
    return found
