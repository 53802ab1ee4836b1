"""A loaded picture of any mode, laid on white, as a small RGB square."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifarnet.data.hashing import hash_picture
from cifarnet.data.images.open import ENOUGH, LARGE, ImageError
from cifarnet.data.images.sixteen import extremes, grey_of, grey_table

BACKGROUND = (255, 255, 255)  # what transparent images are laid on
FAINT = 250  # a value from here on is not told from the background
PIECE = 1024  # height and width of the pieces in which a large picture is made smaller
MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))
UNLIMITED = ("I", "F")  # modes of 32 bits, whose values may mean anything

ORIENTATION = 274  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Square:
    """A picture made ready.

    Args:
        pixels: uint8 [3, size, size].
        remarks: fit for the user.
        blank: nothing of it shows on the background.
        hash: 32 bytes, that of the upright picture before it was resized (`hash_picture`), and of `pixels` where it was
            too large ever to be whole; empty where none was asked for.
    """

    pixels: Tensor
    remarks: list[str]
    blank: bool = False
    hash: bytes = b""


def square_of(name: str, image: Image.Image, size: int, crop: bool = False, hashed: bool = False) -> Square:
    """The present frame of a picture, turned upright as its EXIF block says.

    Args:
        name: what it is called in a remark.
        size: height and width of the result, resized with antialiasing (bilinear).
        crop: take the largest centred square; else all of it is squeezed.
        hashed: hash it too.

    Raises:
        ImageError: pixels that cannot be made RGB.
    """
    image.load()
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))  # after load, which turns a TIFF by itself
        remarks = []
    except Exception:
        turn, remarks = None, [f"{name}: its EXIF block cannot be read, so it is not turned"]
    converter = Converter(name, image)
    whole = converter(image) if max(image.width, size) * max(image.height, size) <= LARGE else None
    small = resized(image, whole, converter, size, crop)
    if turn is not None:
        small = small.transpose(turn)
    pixels = planes(small)
    found = b""
    if hashed and (whole is None or whole.size == small.size or is_reduced(image)):
        found = hash_picture(pixels)
    elif hashed and whole is not None:
        found = hash_picture(planes(whole if turn is None else whole.transpose(turn)))
    blank = converter.found_clear and int(pixels.min()) >= FAINT
    if blank:
        remarks.append(
            f"{name}: nothing in it is visible: its transparent parts are laid on white, and then all is white"
        )
    return Square(torch.from_numpy(pixels), remarks, blank, found)


def planes(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB picture, uint8 [3, H, W]."""
    return np.array(np.asarray(image).transpose(2, 0, 1), order="C")


def is_reduced(image: Image.Image) -> bool:
    """Was this a large JPEG, of which fewer pixels were decoded than it has?"""
    return getattr(image, "decoderconfig", ())[:1] not in ((), (1,))


class Converter:
    """Makes a picture, or a part that is cut out of it, 8-bit RGB: 16 bits scaled, transparency laid on the background.

    found_clear: some pixel so far was transparent, at least in part.
    """

    def __init__(self, name: str, image: Image.Image) -> None:
        self.found_clear = False
        self.table = None
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            self.table = grey_table(image)
        elif image.mode.startswith(UNLIMITED):
            raise ImageError(
                name, f"its pixels ({image.mode}) have no known range of values", "save it with 8 or 16 bits"
            )
        elif image.mode not in MODES:
            kind = f"this kind of {image.format or 'picture'}"
            raise ImageError(name, f"{kind} cannot be read here (colours {image.mode})", "save it as RGB")
        # A BMP whose alpha is 0 everywhere does not use it: Windows shows such a file as opaque.
        self.ignore_alpha = image.format == "BMP" and image.mode == "RGBA" and extremes(image, "A")[1] == 0

    def __call__(self, part: Image.Image) -> Image.Image:
        if self.table is not None:
            part = grey_of(part, self.table)
        if not part.has_transparency_data or self.ignore_alpha:
            return part if part.mode == "RGB" else part.convert("RGB")
        part = part.convert("RGBA")
        if extremes(part, "A")[0] == 255:
            return part.convert("RGB")
        self.found_clear = True
        return Image.alpha_composite(Image.new("RGBA", part.size, (*BACKGROUND, 255)), part).convert("RGB")


def resized(image: Image.Image, whole: Image.Image | None, converter: Converter, size: int, crop: bool) -> Image.Image:
    """An image as RGB of `size` x `size` pixels: the largest centred square of it, or all of it squeezed.

    Args:
        whole: all of it as RGB; None where it is too large for that.

    Of a large one only pieces are ever RGB: first their means over whole numbers of pixels are taken, as
    Pillow's `reducing_gap` does.
    """
    width, height = image.size
    box = 0.0, 0.0, float(width), float(height)
    if crop:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = left, top, left + side, top + side
    if whole is not None:
        return whole if whole.size == (size, size) else whole.resize((size, size), Image.Resampling.BILINEAR, box=box)

    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    across, down = (int((end - start) / size / ENOUGH) or 1 for start, end in ((left, right), (top, bottom)))
    small = Image.new("RGB", (math.ceil((right - left) / across), math.ceil((bottom - top) / down)))
    wide, high = (max(PIECE // factor, 1) * factor for factor in (across, down))
    for y in range(top, bottom, high):
        for x in range(left, right, wide):
            piece = image.crop((x, y, min(x + wide, right), min(y + high, bottom)))
            small.paste(converter(piece).reduce((across, down)), ((x - left) // across, (y - top) // down))
    box = (box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down
    return small.resize((size, size), Image.Resampling.BILINEAR, box=box)
