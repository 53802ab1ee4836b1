"""`train --live` and `--tensorboard`: the options, and what is refused before any work; without torch."""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli.train_options import MORE
from cifarnet.core.errors import Refused
from cifarnet.core.launcher import restarts
from cifarnet.core.plain_file import open_plain
from cifarnet.storage.output import check_output

Live = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html", help="A page that follows the training in a browser, from the disk.", rich_help_panel=MORE
    ),
]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Event files for TensorBoard, in the run's folder.", rich_help_panel=MORE),
]


def check_live(path: Path, overwrite: bool, resume: bool) -> Path:
    """Where the page goes; a run that goes on may replace the page that it wrote before.

    Raises:
        Refused: no name of an HTML file, a file that is there without `overwrite`, a folder that cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise Refused(f"--live {path}", f"'{path.suffix}' is no suffix of a page", "end the name in .html")
    real = check_output(path, overwrite=True)
    if not real.exists():
        return real
    if not real.is_file():
        raise Refused(str(path), "is no plain file", "name another file for --live")
    if not (resume or restarts()):
        return check_output(path, overwrite)
    if not is_live(real):
        raise Refused(str(path), "is there already, and no page of --live", "name another file")
    return real


def check_tensorboard() -> None:
    """Raises Refused where the package is not installed."""
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        fix = 'pip install "cifarnet[tensorboard]"'
        raise Refused("--tensorboard", "the tensorboard package is not installed", fix) from error


def is_live(path: Path) -> bool:
    """True for a page that --live wrote."""
    from cifarnet.analysis.live.page import MARK

    try:
        with open_plain(path) as file:
            return MARK in file.read(1000)
    except OSError:
        return False
