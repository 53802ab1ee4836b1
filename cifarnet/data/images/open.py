"""A picture's file opened and its pixels loaded by Pillow, or the reason why it cannot be used."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from cifarnet.core.errors import Failed, printable
from cifarnet.core.process_wide import ProcessWide
from cifarnet.data.images.formats import FORMATS, MARK, format_of, formats_of
from cifarnet.data.images.jpeg2000 import check_end
from cifarnet.data.images.lean import lean_copies
from cifarnet.data.images.sixteen import clear_where_equal, is_16_bit, range_remark, transparent_colour

MAX_PIXELS = 100_000_000
LARGE = 1 << 24  # pixels above which a picture is made smaller in pieces, before all of it is RGB
ENOUGH = 3  # of its sides, how many times the wanted size are enough then

# What a file may cost follows from its size: so much memory for any, and so much for each of its bytes (deflate packs
# a thousand to one). Below are bytes a pixel, as Pillow takes them at the most until the picture is small.
FREE, JUSTIFIED = 256 << 20, 1024
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "LA": 4}
FORMAT_BYTES = {"WEBP": 16, "JPEG": 6, "MPO": 6, "AVIF": 16, "JPEG2000": 24}
REREAD = 1 << 28  # bytes of a file up to which it is tried again without its notes

# How Pillow says that it lacks a kind, which may be a sound one; and what TIFFs it lists but mostly cannot unpack.
LACKING = (
    "unsupported", "not yet supported", "unknown pixel mode", "unknown data organization", "cannot handle",
    "value for samples per pixel",
)  # fmt: skip
RARE = ("tiff_jpeg", "webp", "tiff_sgilog", "tiff_sgilog24", "tiff_thunderscan")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what matters of its lines comes as an exception


class ImageError(Failed):
    """One image cannot be used; others may."""


class Unreadable(ImageError):
    """Its pixels cannot be read as the file stands."""


def open_picture(name: str, file: BinaryIO, weight: int, size: int) -> tuple[Image.Image, list[str]]:
    """The picture with its first frame loaded, and remarks fit for the user.

    Args:
        name: what it is called in a message, fit for a terminal.
        weight: bytes of the file.
        size: height and width that are wanted: a large JPEG comes smaller, but not below `ENOUGH` times that.

    Raises:
        ImageError: no image, damaged, of a kind that Pillow lacks, or more than its file may cost.
    """
    try:
        return load_first(name, file, weight, size)
    except Unreadable as error:
        file.seek(0)
        for lean in lean_copies(file.read()) if weight <= REREAD else ():
            with contextlib.suppress(ImageError):
                image, remarks = load_first(name, io.BytesIO(lean), weight, size)
                notes = "the notes in it (text, colour profile, camera data) are damaged or too long"
                return image, [f"{name}: {notes}; they are left out and the picture is used", *remarks]
        raise error


def load_first(name: str, file: BinaryIO, weight: int, size: int) -> tuple[Image.Image, list[str]]:
    """As `open_picture`, of the file as it stands."""
    file.seek(0)
    if all(announced := webp_size(file.read(30)) or (0, 0)):  # Pillow makes room for it as soon as it opens the file
        check_size(name, announced, FORMAT_BYTES["WEBP"], weight)
    try:
        image = Image.open(file, formats=formats_of(name))
    except Image.DecompressionBombError as error:
        raise ImageError(name, f"has more than {MAX_PIXELS:,} pixels", "make it smaller") from error
    except UnidentifiedImageError as error:
        raise unidentified(name, file) from error
    except Exception as error:  # a decoder given a broken header may raise anything
        raise unreadable(name, signature(file), error) from error
    check_cost(name, image, weight)
    try:
        if has_frames(image):
            image.seek(0)
        if image.width * image.height > LARGE:
            image.draft(None, (ENOUGH * size, ENOUGH * size))
        if image.format == "JPEG2000":
            check_end(file)
        deep, clear = is_16_bit(image), transparent_colour(image)
        load(image)
        if clear is not None:
            clear_where_equal(image, file, clear)
        remark = range_remark(image) if deep else None
    except Exception as error:
        packed = image.info.get("compression")
        lacking = image.format == "TIFF" and packed in RARE
        why = OSError(f"unsupported compression {packed}") if lacking else error
        raise unreadable(name, image.format, why) from error
    return image, [f"{name}: {remark}"] if remark else []


def has_frames(image: Image.Image) -> bool:
    """Does it hold several frames or pages? (MPO, a photo and its preview, does not count.)"""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def load(image: Image.Image) -> None:
    """Reads the pixels of the present frame; raises anything where they are not whole."""
    if image.mode == "P" and image.palette is None:
        raise OSError("it has no palette")
    if image.format == "TIFF":
        check_tiles(image)
        with QUIET_LIBTIFF:
            image.load()
    else:
        image.load()


def check_cost(name: str, image: Image.Image, weight: int) -> None:
    """Raises ImageError where the present frame has no pixels, or more than a file of `weight` bytes may cost."""
    each = FORMAT_BYTES.get(image.format or "", MODE_BYTES.get(image.mode, 4))
    each *= 3 if image.mode == "RGB" and "transparency" in image.info else 1  # two copies, and what is clear in them
    check_size(name, image.size, each, weight)


def check_size(name: str, size: tuple[int, int], each: int, weight: int) -> None:
    """The same for width and height at `each` bytes a pixel."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}", "make it smaller")
    if width * height == 0:
        raise ImageError(name, "has no pixels")
    if width * height * each > FREE + JUSTIFIED * weight:
        cost = f"would take {width * height * each >> 20:,} MB of memory"
        why = f"has {width:,} x {height:,} pixels in a file of {weight:,} bytes, and {cost}"
        raise ImageError(name, why, "make it smaller")


def webp_size(start: bytes) -> tuple[int, int] | None:
    """Width and height by the first 30 bytes of a WebP; None of another file."""
    if not (start.startswith(b"RIFF") and start[8:12] == b"WEBP"):
        return None
    if start[12:16] == b"VP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if start[12:16] == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(start[26:28], "little") & 0x3FFF, int.from_bytes(start[28:30], "little") & 0x3FFF


def unidentified(name: str, file: BinaryIO) -> ImageError:
    """The error for a file whose format Pillow does not know: the reader of the format whose mark it bears tells why."""
    kind = signature(file)
    if kind in FORMATS:
        try:
            file.seek(0)
            Image.OPEN[kind][0](file, "")
        except Exception as error:
            return unreadable(name, kind, error)
    return Unreadable(name, f"is not an image of a known format ({', '.join(FORMATS)})")


def unreadable(name: str, kind: str | None, error: Exception) -> Unreadable:
    """Damaged; or sound perhaps, but of a kind that Pillow lacks. (That memory ran out says nothing about the picture.)"""
    if isinstance(error, MemoryError):
        raise error
    why = printable(str(error))
    if kind == "TIFF" and isinstance(error.__cause__, KeyError) and why.isdigit():  # its table of compressions lacks it
        why = f"unsupported compression {why}"
    if kind is not None and any(words in why.lower() for words in LACKING):
        return Unreadable(name, f"this kind of {kind} cannot be read here ({why})", "save it as PNG or JPEG")
    return Unreadable(name, f"is truncated or damaged ({why})")


def signature(file: BinaryIO) -> str | None:
    """The format whose mark the file begins with."""
    file.seek(0)
    return format_of(file.read(MARK))


def check_tiles(image: Image.Image) -> None:
    """Raises OSError where strips or tiles are missing: Pillow would leave their part of the image black."""
    held = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)  # type: ignore[attr-defined]
    if held < image.width * image.height:
        raise OSError(f"it holds {held:,} of {image.width * image.height:,} pixels")


@contextlib.contextmanager
def _quiet_libtiff() -> Iterator[None]:
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


@contextlib.contextmanager
def _our_pillow() -> Iterator[None]:
    truncated, most = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = truncated, most


# libtiff's own remarks stay off the error stream of the process: what matters of them comes as an exception.
QUIET_LIBTIFF = ProcessWide(_quiet_libtiff)
# Pillow's settings are ours, whatever the caller's: half a picture is none. Its remarks on metadata are not shown.
OUR_PILLOW = ProcessWide(_our_pillow)
