"""The formats of pictures that are read here: the suffixes of their files, and the marks that these begin with."""

import re

from PIL import features

SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpx"),
    "TGA": (".tga",),
}
PARTS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # of Pillow, which may be built without them
MARKS = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"BM": "BMP", b"GIF8": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG2000", b"\xff\x4f\xff\x51": "JPEG2000",
}  # fmt: skip
MARK = 12  # bytes that `format_of` wants


def is_here(kind: str) -> bool:
    """Does Pillow here have this format?"""
    part = PARTS.get(kind)
    known = features.modules.keys() | features.codecs.keys()
    return part is None or (part in known and bool(features.check(part)))


FORMATS = tuple(filter(is_here, SUFFIXES_OF))
UNMARKED = "TGA"  # a file of it begins with nothing of its own: only its name tells it
MARKED = tuple(kind for kind in FORMATS if kind != UNMARKED)
SUFFIXES = tuple(suffix for kind in FORMATS for suffix in SUFFIXES_OF[kind])
# Pictures all the same, and said to be so when they are left out.
UNREAD = tuple(suffix for kind, all_ in SUFFIXES_OF.items() if kind not in FORMATS for suffix in all_)
UNREAD += (
    ".heic",
    ".heif",
    ".svg",
    ".psd",
    ".ico",
    ".dds",
    ".exr",
    ".hdr",
    ".cr2",
    ".nef",
    ".arw",
    ".dng",
    ".jxl",
    ".qoi",
)


def is_image_name(name: str) -> bool:
    """Has the file's name the suffix of an image that is read here? (Hidden files have not.)"""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def formats_of(name: str) -> tuple[str, ...]:
    """The formats that a file of this name may have: all that its content tells, and TGA by its suffix alone."""
    return FORMATS if name.lower().endswith(SUFFIXES_OF[UNMARKED]) else MARKED


def format_of(start: bytes) -> str | None:
    """The format whose mark a file begins with.

    Args:
        start: its first `MARK` bytes.
    """
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if re.match(rb"P[1-6]\s", start):
        return "PPM"
    return next((kind for mark, kind in MARKS.items() if start.startswith(mark)), None)
