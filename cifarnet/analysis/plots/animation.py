"""Frames -> an animated GIF."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cifarnet.core.plain_file import open_plain
from cifarnet.storage.atomic import write_file

WIDTH = 640  # pixels
FRAME, LAST = 350, 2500  # milliseconds


def write_gif(frames: Sequence[Path], path: Path) -> Path:
    """Joins PNG frames into a GIF that repeats, the last frame shown longer.

    Raises:
        Failed: the file cannot be written.
    """
    pictures = [small(frame) for frame in frames]
    times = [FRAME] * (len(pictures) - 1) + [LAST]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=True)
    write_file(path, buffer.getvalue())
    return path


def small(frame: Path) -> Image.Image:
    """A frame in the GIF's size and 64 colours."""
    with open_plain(frame, within=frame.parent) as file, Image.open(file, formats=("PNG",)) as picture:
        height = round(picture.height * WIDTH / picture.width)
        return picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(64)
