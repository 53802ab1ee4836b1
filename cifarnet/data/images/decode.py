"""Any image file that a user may hand over, read whole and safely, or refused by name."""

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cifarnet.core.errors import Failed, Refused, printable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
MAX_PIXELS = 100_000_000  # 300 MB as RGB
BACKGROUND = (255, 255, 255)  # what transparent images are laid on
MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))

BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION = 258, 262, 274  # TIFF tags; EXIF shares the last
WHITE_IS_ZERO = 0
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Failed):
    """One image cannot be used; others may."""


def find_images(paths: Iterable[str | os.PathLike[str]], recursive: bool = False) -> list[Path]:
    """The files that `paths` stand for, in a stable order.

    Args:
        paths: files and folders, kept in this order.
        recursive: look into folders for files with the suffix of an image, in the order of their names; links to
            folders are not followed. Without it a folder stays in the list, for `read_image` to name.

    Raises:
        Refused: a folder holds no image or cannot be read.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not (recursive and path.is_dir()):
            found.append(path)
            continue
        inside = list(walk(path))
        if not inside:
            raise Refused(printable(path), "no image files in it", f"images end in {' '.join(SUFFIXES)}")
        found += inside
    return found


def walk(folder: Path) -> Iterable[Path]:
    """Image files in and below `folder`, hidden ones left out."""

    def unreadable(error: OSError) -> None:
        raise Refused(printable(error.filename), f"cannot be read ({error.strerror})") from error

    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if is_image_name(name))


def is_image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_image(path: str | os.PathLike[str], size: int, *, crop: bool = False) -> tuple[Tensor, list[str]]:
    """Read one image as RGB.

    Turned upright (EXIF); transparent parts laid on white; 16-bit values scaled; the first frame of several.

    Args:
        path: a file of one of `FORMATS`, told by its content.
        size: height and width of the result, resized with antialiasing (bilinear).
        crop: take the largest centred square; else the whole image is squeezed into the square.

    Returns:
        uint8 [3, size, size], and warnings fit for the user.

    Raises:
        ImageError: missing, not a plain file, not an image, truncated, or too large.
    """
    name = printable(path)
    try:
        with open_plain_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata
            image, remarks = decode(name, file)
    except OSError as error:
        raise ImageError(name, why_unreadable(error)) from error
    return fit(image, size, crop), remarks


def read_image_bytes(name: str, data: bytes, size: int) -> Tensor:
    """The image that a file of these bytes would hold, as `read_image` gives it, without its warnings.

    Args:
        name: what the image is called in a message, fit for a terminal.

    Returns:
        uint8 [3, size, size].

    Raises:
        ImageError: not an image, truncated, or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return fit(decode(name, io.BytesIO(data))[0], size)
        except OSError as error:
            raise ImageError(name, why_unreadable(error)) from error


def fit(image: Image.Image, size: int, crop: bool = False) -> Tensor:
    """An RGB image as uint8 [3, size, size]: the largest centred square of it, or all of it squeezed."""
    width, height = image.size
    box = None
    if crop:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    if (width, height) != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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
    return open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))


def why_unreadable(error: OSError) -> str:
    """The reason for a message: "there is no such file", or the system's own words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read ({error.strerror or error})"


def decode(name: str, file: BinaryIO) -> tuple[Image.Image, list[str]]:
    """The whole first frame, upright, as 8-bit RGB."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(name, f"is not an image of a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(name, f"has more than {MAX_PIXELS:,} pixels", "make it smaller") from error
    except Exception as error:  # a decoder given a broken header may raise anything
        raise ImageError(name, f"is truncated or damaged ({printable(str(error))})") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}", "make it smaller")
    if width * height == 0:
        raise ImageError(name, "has no pixels")
    remarks = []
    try:
        if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photo and its preview
            remarks.append(f"{name}: has several frames or pages; the first is used")
            image.seek(0)
        if image.format == "TIFF":
            check_tiles(image)
            with quiet_libtiff():
                image.load()
        image.load()
    except Exception as error:
        raise ImageError(name, f"is truncated or damaged ({printable(str(error))})") from error
    rgb, unread = upright_rgb(name, image)  # after load, which turns a TIFF by itself
    return rgb, remarks + unread


def upright_rgb(name: str, image: Image.Image) -> tuple[Image.Image, list[str]]:
    """A loaded image as 8-bit RGB, turned as its EXIF block says, and remarks fit for the user."""
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        remarks = []
    except Exception:
        turn, remarks = None, [f"{name}: its EXIF block cannot be read, so it is not turned"]
    rgb = to_rgb(name, image)
    return (rgb if turn is None else rgb.transpose(turn)), remarks


def check_tiles(image: Image.Image) -> None:
    """Raises OSError where strips or tiles are missing: Pillow would leave their part of the image black."""
    held = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)  # type: ignore[attr-defined]
    if held < image.width * image.height:
        raise OSError(f"it holds {held:,} of {image.width * image.height:,} pixels")


@contextlib.contextmanager
def quiet_libtiff() -> Iterator[None]:
    """Keeps libtiff's own remarks off the error stream of the process: what matters of them comes as an exception."""
    try:
        error_stream = os.dup(2)
    except OSError:  # closed by the caller: nothing can be seen anyway
        yield
        return
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        yield
    finally:
        os.dup2(error_stream, 2)
        os.close(error_stream)
        os.close(silence)


def to_rgb(name: str, image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16 bits scaled, transparency laid on the background."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = from_16_bits(image)
    elif image.mode not in MODES:
        raise ImageError(name, f"its pixels ({image.mode}) have no known range of values", "save it with 8 or 16 bits")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(background, image.convert("RGBA"))
    return image.convert("RGB")


def from_16_bits(image: Image.Image) -> Image.Image:
    """Grey values of up to 16 bits scaled to 8, rounded; a grey value that is declared transparent becomes so."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})  # TIFF: 12 bits are not stretched to 16, and 0 may be white
    top = 2 ** min(tags.get(BITS_PER_SAMPLE, (16,))[0], 16) - 1
    grey = (np.arange(65536).clip(0, top) * 255 + top // 2) // top
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    result = Image.fromarray(grey.astype(np.uint8)[values])
    if isinstance(clear := image.info.get("transparency"), int):
        result.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return result
