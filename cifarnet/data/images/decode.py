"""Any image file that a user may hand over, read whole and safely, or refused by name."""

import io
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from cifarnet.core.errors import Refused, printable
from cifarnet.core.plain_file import open_plain
from cifarnet.data.images.formats import SUFFIXES
from cifarnet.data.images.listing import walk
from cifarnet.data.images.open import LARGE, OUR_PILLOW, ImageError, check_cost, has_frames, load, open_picture
from cifarnet.data.images.plain_png import PLAIN, plain_png
from cifarnet.data.images.square import Square, square_of
from cifarnet.data.sources.left_out import LeftOut

FRAMES = 256  # of an animation, looked at for one that shows something


def find_images(paths: Iterable[str | os.PathLike[str]], recursive: bool = False, linked: bool = False) -> list[Path]:
    """The files that `paths` stand for, in a stable order. What is left out of a folder is said in one line.

    Args:
        paths: files and folders, kept in this order.
        recursive: look into folders for image files, as `walk` tells them, in the order of their names. Without it a folder
            stays in the list, for `read_image` to name.
        linked: follow links to folders that lie in the given ones, as `walk` does.

    Raises:
        Refused: a folder holds no image or cannot be read, or `-` stands in the place of a file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if str(path) == "-" and not path.exists():
            fix = "name the file; `/dev/stdin` is the one behind `<`"
            raise Refused("-", "an image is read from a file, by its name", fix)
        if not (recursive and path.is_dir()):
            found.append(path)
            continue
        left = LeftOut()
        inside = [Path(place, entry.name) for place, files in walk(path, left, linked) for entry in files]
        if not inside:
            seen = f" (left out: {left.in_words()})" if left else ""
            raise Refused(printable(path), f"no image files in it{seen}", f"images end in {' '.join(SUFFIXES)}")
        left.say(printable(path))
        found += inside
    return found


def read_image(path: str | os.PathLike[str], size: int, *, crop: bool = False) -> tuple[Tensor, list[str]]:
    """Read one image as RGB.

    Turned upright (EXIF); transparent parts laid on white; 16-bit values scaled; of several frames the first that
    shows something.

    Args:
        path: a file of one of `FORMATS`, told by its content.
        size: height and width of the result, resized with antialiasing (bilinear).
        crop: take the largest centred square; else the whole image is squeezed into the square.

    Returns:
        uint8 [3, size, size], and warnings fit for the user.

    Raises:
        ImageError: missing, not a plain file, not an image, truncated, or too large.
    """
    square = read_square(path, size, crop=crop)
    return square.pixels, square.remarks


def read_square(path: str | os.PathLike[str], size: int, *, crop: bool = False, hashed: bool = False) -> Square:
    """The same with all that is known of it, its hash too where `hashed`."""
    name = printable(path)
    try:
        with open_plain_file(path) as file:
            return decode(name, file, size, crop, hashed)
    except OSError as error:
        raise ImageError(name, why_unreadable(error)) from error


def read_square_bytes(name: str, data: bytes, size: int, *, hashed: bool = False) -> Square:
    """The image that a file of these bytes would hold, as `read_square` gives it.

    Args:
        name: what the image is called in a message, fit for a terminal.

    Raises:
        ImageError: not an image, truncated, or too large.
    """
    try:
        return decode(name, io.BytesIO(data), size, hashed=hashed)
    except OSError as error:
        raise ImageError(name, why_unreadable(error)) from error


def open_plain_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file that is not empty; a pipe or a device is refused without waiting for it."""
    name = printable(path)
    state = os.stat(path)
    if stat.S_ISDIR(state.st_mode):
        raise ImageError(name, "is a folder", "add `recursive` to take the images in it")
    if not stat.S_ISREG(state.st_mode):
        raise ImageError(name, "is not a plain file (a pipe, a socket or a device)")
    if state.st_size == 0:
        raise ImageError(name, "is empty")
    return open_plain(path)


def why_unreadable(error: OSError) -> str:
    """The reason for a message: "there is no such file", or the system's own words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read ({error.strerror or error})"


def decode(name: str, file: BinaryIO, size: int, crop: bool = False, hashed: bool = False) -> Square:
    """The first frame that shows something."""
    weight = file.seek(0, io.SEEK_END)
    if weight <= PLAIN:
        file.seek(0)
        if (plain := plain_png(file.read())) is not None:
            return square_of(name, plain, size, crop, hashed)
    with OUR_PILLOW:
        image, remarks = open_picture(name, file, weight, size)
        square = square_of(name, image, size, crop, hashed)
        if has_frames(image):
            square, number = shown(name, image, weight, square, size, crop, hashed)
            which = f"the first that shows something, number {number}, is used" if number > 1 else "the first is used"
            remarks.insert(0, f"{name}: has several frames or pages; {which}")
        return replace(square, remarks=remarks + square.remarks)


def shown(
    name: str, image: Image.Image, weight: int, first: Square, size: int, crop: bool, hashed: bool
) -> tuple[Square, int]:
    """The first frame that is not blank, and its number from 1; the first of all where none is found."""
    looked_at, frame = image.width * image.height, first
    for number in range(1, FRAMES):
        if not frame.blank:
            return frame, number
        try:
            image.seek(number)
            check_cost(name, image, weight)
            looked_at += image.width * image.height
            if looked_at > LARGE:
                break
            load(image)
            frame = square_of(name, image, size, crop, hashed)
        except MemoryError:
            raise
        except Exception:  # there are no more, or this one is broken
            break
    return first, 1
