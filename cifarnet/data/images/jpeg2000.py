"""The end of a JPEG 2000 file: its decoder fills what is missing of a cut one with grey and says nothing."""

import io
from typing import BinaryIO

RAW = b"\xff\x4f\xff\x51"  # begins a codestream that lies in no boxes
END = b"\xff\xd9"  # ends every codestream


def check_end(file: BinaryIO) -> None:
    """Raises OSError where the codestream in a file does not reach its end mark; the file's place stays."""
    place = file.tell()
    try:
        end = end_of_codestream(file, file.seek(0, io.SEEK_END))
        file.seek(max(end - len(END), 0))
        if file.read(len(END)) != END:
            raise OSError("its end is missing")
    finally:
        file.seek(place)


def end_of_codestream(file: BinaryIO, size: int) -> int:
    """Where the codestream ends by the lengths of its boxes (ISO 15444-1, I.4); the file's end where it lies in none."""
    file.seek(0)
    if file.read(len(RAW)) == RAW:
        return size
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16])
        if kind == b"jp2c":
            return place + length if length else size
        if length < 8:
            break
        place += length
    return 0
