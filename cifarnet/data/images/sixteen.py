"""Pictures of 16 bits a value: scaled to 8, their transparent colour compared in full, and dark ones noticed."""

from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageChops

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags
WHITE_IS_ZERO = 0

Colour = tuple[int, int, int]


def is_16_bit(image: Image.Image) -> bool:
    """Does the file of a picture that is not yet loaded hold 16 bits a value?"""
    return image.format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]


def range_remark(image: Image.Image) -> str | None:
    """A remark on a loaded picture of 16 bits a value that uses less than a quarter of them, as cameras' 12 bits do."""
    highest, top = 0.0, 65535 if image.mode.startswith("I") else 255
    for band in image.getbands()[:3]:
        highest = max(highest, extremes(image, band)[1])
    if not 0 < highest <= top // 4:
        return None
    shade = "pale" if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO else "dark"
    wide = "has 16 bits a value but uses less than a quarter of their range"
    return f"{wide}, so it comes out very {shade}; if it holds 12 bits, scale them to 16"


def extremes(image: Image.Image, band: str) -> tuple[float, float]:
    """The smallest and the largest value of one band."""
    if image.mode == "I;16B":  # Pillow does not look through this one
        values = np.asarray(image)
        return values.min(), values.max()
    return cast("tuple[float, float]", (image if len(image.getbands()) == 1 else image.getchannel(band)).getextrema())


def grey_table(image: Image.Image) -> np.ndarray:
    """uint8 [65536]: for each value of a grey picture of up to 16 bits its 8 bits, rounded."""
    tags = getattr(image, "tag_v2", {})  # TIFF: 12 bits are not stretched to 16, and 0 may be white
    top = 2 ** min(tags.get(BITS_PER_SAMPLE, (16,))[0], 16) - 1
    grey = (np.arange(65536).clip(0, top) * 255 + top // 2) // top
    return (255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey).astype(np.uint8)


def grey_of(image: Image.Image, table: np.ndarray) -> Image.Image:
    """A grey picture of up to 16 bits with 8; a value that it declares transparent becomes so."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint16)
    result = Image.fromarray(table[values])
    if isinstance(clear := image.info.get("transparency"), int):
        result.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return result


def transparent_colour(image: Image.Image) -> Colour | None:
    """That of a PNG of 3 x 16 bits that is not yet loaded, for `clear_where_equal`: Pillow compares 8 bits of them.

    Of other PNGs it is put right where it is: Pillow scales a grey of 2 or 4 bits, but not this value.
    """
    clear = image.info.get("transparency")
    if image.format != "PNG" or clear is None or image.mode not in ("L", "RGB"):
        return None
    raw = image.tile[0].args  # type: ignore[attr-defined]
    if raw == "RGB;16B":
        return None if image.is_animated else image.info.pop("transparency")  # type: ignore[attr-defined]
    if image.mode == "L":
        top = {"L;2": 3, "L;4": 15}.get(raw, 255)
        image.info["transparency"] = (clear & top) * 255 // top
    else:
        image.info["transparency"] = tuple(value & 255 for value in clear)
    return None


def clear_where_equal(image: Image.Image, file: BinaryIO, clear: Colour) -> None:
    """Makes a loaded PNG of 3 x 16 bits, of which Pillow keeps the high bytes, transparent where it has this colour."""
    mask = equal(image, [value >> 8 for value in clear])
    file.seek(0)
    low = Image.open(file, formats=["PNG"])
    low.tile = [low.tile[0]._replace(args="RGB;16L")]  # type: ignore[attr-defined]  # the other byte of each value
    low.load()
    mask = ImageChops.darker(mask, equal(low, [value & 255 for value in clear]))
    image.putalpha(ImageChops.invert(mask))


def equal(image: Image.Image, colour: list[int]) -> Image.Image:
    """255 where an RGB picture has this colour, else 0."""
    masks = [image.getchannel(at).point([255 * (i == value) for i in range(256)]) for at, value in enumerate(colour)]
    return ImageChops.darker(ImageChops.darker(masks[0], masks[1]), masks[2])
