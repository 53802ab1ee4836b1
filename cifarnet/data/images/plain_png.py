"""The plain PNG: 8-bit RGB without anything else that bears on its pixels. Read without the ceremony that others need.

For the 32 x 32 pixels of a CIFAR image that ceremony takes twice as long as the decoding itself.
"""

import struct
import zlib

from PIL import Image

START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
DEPTH_8_RGB = b"\x08\x02\0\0\0"  # depth, colour type, compression, filter, no interlace
PLAIN, SIDE = 1 << 20, 512  # bytes and pixels: above them it makes no difference
HARMLESS = {b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"tIME": 7}  # chunks without effect here, and their bytes


def plain_png(data: bytes) -> Image.Image | None:
    """The picture in a PNG file's bytes, in the same decoder that Pillow uses; None where it is not plain and sound."""
    if not data.startswith(START) or data[24:29] != DEPTH_8_RGB:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not (0 < width <= SIDE and 0 < height <= SIDE):
        return None
    parts, place = [], 8
    while (chunk := data[place : place + 8])[4:] != b"IEND":
        kind, length = chunk[4:], int.from_bytes(chunk[:4])
        end = place + 8 + length
        if len(chunk) < 8 or zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return None
        if kind == b"IDAT":
            parts.append(data[place + 8 : end])
        elif place > 8 and HARMLESS.get(kind) != length:
            return None
        place = end + 4
    try:
        return Image.frombytes("RGB", (width, height), b"".join(parts), "zip", "RGB", False)
    except (ValueError, OSError):
        return None
