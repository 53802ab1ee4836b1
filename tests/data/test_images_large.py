"""Large pictures: what they may cost, and that making them smaller in pieces changes next to nothing."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from pictures import chunk, encoded, photo, png
from PIL import Image

from cifarnet.data.images import open as opening
from cifarnet.data.images import square
from cifarnet.data.images.decode import read_square_bytes

SIZE = 32


def memory_of(path) -> tuple[int, str]:
    """Megabytes by which a process grows that reads the file, and what it says."""
    code = (
        "import resource, sys; from cifarnet.data.images.decode import ImageError, read_image\n"
        "import numpy, torch; torch.from_numpy(numpy.zeros(1))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(sys.argv[1], 32); said = 'read'\n"
        "except ImageError as error: said = str(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, said)"
    )
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    megabytes, said = found.split(maxsplit=1)
    return int(megabytes), said.strip()


def test_a_small_file_costs_little_memory(tmp_path):
    """12 KB of palette PNG: 100 million pixels of a byte each. 38 bytes of WebP would take 1.5 GB, and are refused."""
    rows = np.zeros((10_000, 1_250), np.uint8)
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
    (tmp_path / "a.png").write_bytes(png(rows, 1, 3, palette, chunk(b"tRNS", b"\x80")))
    assert (tmp_path / "a.png").stat().st_size < 15_000
    megabytes, said = memory_of(tmp_path / "a.png")
    assert said == "read" and megabytes < 180
    (tmp_path / "b.png").write_bytes(png(np.zeros((4_000_000, 1), np.uint8), 8, 0))  # enlarged across, 512 MB
    megabytes, said = memory_of(tmp_path / "b.png")
    assert said == "read" and megabytes < 120
    Image.new("RGB", (10_000, 10_000), (9, 8, 7)).save(tmp_path / "a.webp", lossless=True, method=0)
    megabytes, said = memory_of(tmp_path / "a.webp")
    assert "in a file of 38 bytes, and would take 1,525 MB" in said and megabytes < 60


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {}, {"lossless": True, "exif": b"Exif\0\0"}], ids=["VP8L", "VP8", "VP8X"]
)
def test_the_size_of_a_webp_is_known_before_pillow_opens_it(options):
    data = encoded(photo(1201, 7), "WEBP", **options)
    assert opening.webp_size(data[:30]) == Image.open(io.BytesIO(data)).size == (1201, 7)


def large_kinds() -> dict[str, Image.Image]:
    image = photo(701, 403)
    half = image.convert("RGBA")
    half.putalpha(image.convert("L"))
    wide = Image.fromarray(np.array(image.convert("L"), np.uint16) * 257)
    return {"RGB": image, "RGBA": half, "P": image.quantize(200), "grey": image.convert("L"), "16 bits": wide}


@pytest.mark.parametrize("kind", large_kinds())
def test_a_large_picture_made_smaller_in_pieces_is_the_same(kind, monkeypatch):
    """Against all of it at once. Pieces are means of whole pixels first: a value may be off by a few."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(large_kinds()[kind], "PNG", exif=exif)
    for crop in (False, True):
        image = Image.open(io.BytesIO(data))
        whole = square.square_of("a", image, SIZE, crop).pixels
        with monkeypatch.context() as patch:
            patch.setattr(square, "LARGE", 10_000)
            patch.setattr(square, "PIECE", 64)
            pieces = square.square_of("a", image, SIZE, crop).pixels
        difference = (whole.int() - pieces.int()).abs()
        assert not torch.equal(whole, pieces) and difference.max() <= 12 and difference.float().mean() < 1


def test_a_large_jpeg_is_decoded_small(monkeypatch):
    data = encoded(photo(1601, 1203), "JPEG", quality=95)
    whole = read_square_bytes("a", data, SIZE).pixels
    monkeypatch.setattr(opening, "LARGE", 10_000)
    image, _ = opening.open_picture("a", io.BytesIO(data), len(data), SIZE)
    assert image.size == (201, 151)  # an eighth; 3 x 32 pixels would be enough
    assert (read_square_bytes("a", data, SIZE).pixels.int() - whole.int()).abs().max() <= 6
