"""TensorBoard's event files: a new one each time that a run is begun or goes on, read together in the order of their names.

TensorBoard's own writer would open its file itself, through whatever link stands in its place, and report a full disk by a
thread's traceback. Here its package makes the records, and `append` writes them, as every log of a run.
"""

import errno
import io
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cifarnet.storage.atomic import append

OURS = re.compile(r"events\.out\.tfevents\.(\d{10})\.cifarnet")  # TensorBoard looks for "tfevents" and sorts by name
VERSION = "brain.Event:2"  # what TensorBoard's own files begin with


def event_files(folder: Path) -> list[Path]:
    """Our event files in a folder, oldest first; none where the folder is a link, which may lead to anyone's files."""
    if folder.is_symlink():
        return []
    return sorted(path for path in folder.glob("*") if OURS.fullmatch(path.name) and not path.is_dir())


class EventFile:
    """A new event file in `folder`, which is made. What earlier files hold from step `begin` on counts no more.

    Raises:
        OSError: it cannot be written, or `folder` is a link.
    """

    def __init__(self, folder: Path, begin: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if folder.is_symlink():
            raise OSError(errno.EINVAL, "it is a link, not a folder", str(folder))
        folder.mkdir(exist_ok=True)
        number = max((int(path.name.split(".")[3]) for path in event_files(folder)), default=0) + 1
        self.path = folder / f"events.out.tfevents.{number:010d}.cifarnet"
        start = SessionLog(status=SessionLog.START)
        self._write(
            [
                Event(wall_time=time.time(), file_version=VERSION),
                Event(wall_time=time.time(), step=begin, session_log=start),
            ]
        )

    def add(self, step: int, scalars: Mapping[str, float], images: Mapping[str, bytes] | None = None) -> None:
        """Writes the scalars and PNG images of a step, by their tags; they are on the disk when this returns. Raises OSError."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        for tag, data in (images or {}).items():
            width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))  # of the PNG's header
            image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=data)
            values.append(Summary.Value(tag=tag, image=image))
        self._write([Event(wall_time=time.time(), step=step, summary=Summary(value=values))])

    def _write(self, events: Iterable[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        for event in events:
            RecordWriter(buffer).write(event.SerializeToString())
        append(self.path, buffer.getvalue())
