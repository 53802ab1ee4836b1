"""A picture's file without its notes (texts, colour profile, times), which may be broken where the pixels are whole.

A reader of pictures stops at notes that it cannot take. The pixels, what they need, transparency, orientation and
animation stay; what else the file holds is left out, and so is all that lies behind a break.
"""

import struct
import zlib
from collections.abc import Iterator

PNG, RIFF, TIFF = b"\x89PNG\r\n\x1a\n", b"RIFF", {b"II*\0": "<", b"MM\0*": ">"}

PNG_KEPT = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # beside the critical ones, whose names begin with a capital
PNG_ENOUGH = (b"tRNS",)

WEBP_KEPT = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L", b"EXIF")
WEBP_ENOUGH = WEBP_KEPT[:-1]
WEBP_FLAGS = 0b00010010  # of VP8X: alpha, animation
WEBP_EXIF = 0b00001000

# Size, kind and place of strips and tiles; prediction, palette, JPEG, YCbCr; orientation.
TIFF_KEPT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293,
    317, 320, 322, 323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532,
))  # fmt: skip


def lean_copies(data: bytes) -> Iterator[bytes]:
    """The file with fewer and fewer notes; nothing for a format that needs none of it."""
    if data.startswith(PNG):
        yield from (lean_png(data, kept) for kept in (PNG_KEPT, PNG_ENOUGH, ()))
    elif data.startswith(RIFF):
        yield from (lean_webp(data, kept) for kept in (WEBP_KEPT, WEBP_ENOUGH))
    elif data[:4] in TIFF:
        yield lean_tiff(data, TIFF[data[:4]])


def lean_png(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """Critical chunks as they are, and of the others those of `kept` whose checksum is right."""
    parts, place = [PNG], len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length:
            break
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or (kind in kept and sound):
            parts.append(chunk)
        place += len(chunk)
    return b"".join(parts)


def lean_webp(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The chunks of `kept`, with the flags that fit them."""
    chunks, place = {}, 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        chunk = data[place : place + 8 + length + length % 2]
        if len(chunk) < 8 + length:
            break
        if kind in kept:
            chunks[place] = chunk
        place += 8 + length + length % 2
    parts = list(chunks.values())
    if parts and parts[0].startswith(b"VP8X") and len(parts[0]) > 8:
        exif = WEBP_EXIF if any(part.startswith(b"EXIF") for part in parts) else 0
        parts[0] = parts[0][:8] + bytes([parts[0][8] & WEBP_FLAGS | exif]) + parts[0][9:]
    body = b"WEBP" + b"".join(parts)
    return RIFF + struct.pack("<I", len(body)) + body


def lean_tiff(data: bytes, order: str) -> bytes:
    """The first page's directory with the entries of `TIFF_KEPT` alone; all else stays in its place."""
    place = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    if place + 2 > len(data):
        return data
    count = struct.unpack_from(f"{order}H", data, place)[0]
    directory = data[place + 2 : place + 2 + 12 * count + 4]
    entries = [directory[at : at + 12] for at in range(0, 12 * count, 12)]
    entries = [
        entry for entry in entries if len(entry) == 12 and struct.unpack_from(f"{order}H", entry)[0] in TIFF_KEPT
    ]
    following = directory[12 * count :].ljust(4, b"\0")
    shorter = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + following
    return data[:place] + shorter + data[place + len(shorter) :]
