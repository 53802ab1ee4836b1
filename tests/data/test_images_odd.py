"""Pictures that are whole, and yet not what they seem: broken notes, nothing to see, 16 bits, rare kinds."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from pictures import chunk, encoded, photo, png
from PIL import Image

from cifarnet.data.images import open as opening
from cifarnet.data.images.decode import ImageError, read_square_bytes
from cifarnet.data.registry import load

SIZE = 32
EMPTY = (0, 0, 0, 0)


def read(data: bytes, size: int = SIZE) -> tuple[torch.Tensor, list[str]]:
    """Pixels, and remarks without the name before them."""
    found = read_square_bytes("a", data, size)
    pixels, remarks = found.pixels, found.remarks
    assert all(remark.startswith("a: ") and "\n" not in remark for remark in remarks)
    return pixels, [remark.removeprefix("a: ") for remark in remarks]


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


def with_notes(data: bytes, notes: bytes, behind: bool = False) -> bytes:
    """A PNG with chunks put behind its header or behind its pixels."""
    place = data.index(b"IEND") - 4 if behind else 33
    return data[:place] + notes + data[place:]


LONG = zlib.compress(bytes(2 << 20))
NOTES = {
    "long text": chunk(b"zTXt", b"key\0\0" + LONG),
    "long international text": chunk(b"iTXt", b"key\0\1\0\0\0" + LONG),
    "many texts": chunk(b"zTXt", b"key\0\0" + zlib.compress(b"x" * 1_000_000)) * 68,
    "long profile": chunk(b"iCCP", b"key\0\0" + LONG),
    "unknown packing": chunk(b"iCCP", b"key\0\7" + LONG),
    "no end of a name": chunk(b"iCCP", b"key"),
    "wrong checksum": chunk(b"tEXt", b"key\0text", checksum=1),
    "wrong checksum of EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0", checksum=1),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", b"\0"),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "short sRGB": chunk(b"sRGB", b""),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "short acTL": chunk(b"acTL", b"\0"),
    "an animation out of order": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 7) + bytes(22)),
    "unknown note": chunk(b"prIv", b"text", checksum=1),
}  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind"])
def test_broken_notes_of_a_png_do_not_hide_the_picture(note, behind):
    plain = encoded(photo(), "PNG")
    data = with_notes(plain, NOTES[note], behind)
    hides = False
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:
        hides = True  # what Pillow makes of it
    pixels, remarks = read(data)
    assert torch.equal(pixels, read(plain)[0])
    assert [remark.endswith("are left out and the picture is used") for remark in remarks] == [True] * hides
    assert hides or behind or note == "short acTL"  # behind the pixels some do no harm; a short acTL never does


def test_what_the_pixels_need_stays_with_a_broken_note():
    """Orientation, transparency and animation; a picture whose pixels are cut stays refused."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(photo(), "PNG", exif=exif)
    half = photo().convert("RGBA")
    half.paste(EMPTY, (0, 0, 30, 40))
    frames = [half, Image.new("RGBA", half.size, (1, 2, 3, 255))]
    animated = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    for data in (turned, encoded(half, "PNG"), animated):
        pixels, remarks = read(with_notes(data, NOTES["long text"]))
        expected, others = read(data)
        assert torch.equal(pixels, expected) and len(remarks) == len(others) + 1
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = with_notes(encoded(noise, "PNG"), NOTES["long text"])
    assert "truncated or damaged" in reason(whole[: len(whole) // 2])


def test_a_palette_picture_without_its_palette_is_refused():
    assert "it has no palette" in reason(png(np.zeros((4, 4), np.uint8), 8, 3))


def test_broken_notes_of_webp_tiff_and_jpeg():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    plain = encoded(photo(), "WEBP", lossless=True)
    data = encoded(photo(), "WEBP", lossless=True, exif=exif, xmp=b"<x/>")
    place = data.index(b"EXIF", 30)
    broken = data[: place + 4] + b"\xff\xff\xff\x7f" + data[place + 8 :]
    with pytest.raises(OSError):
        Image.open(io.BytesIO(broken))
    pixels, remarks = read(broken)
    assert torch.equal(pixels, read(plain)[0]) and "left out" in remarks[0]

    data = bytearray(encoded(photo(), "TIFF", description="d" * 40))
    directory = struct.unpack_from("<I", data, 4)[0]
    entries = [directory + 2 + 12 * number for number in range(struct.unpack_from("<H", data, directory)[0])]
    description = next(at for at in entries if struct.unpack_from("<H", data, at)[0] == 270)
    struct.pack_into("<II", data, description + 4, 4000, len(data) - 4)  # runs off the end
    with pytest.raises(OSError), pytest.warns(UserWarning, match="Truncated File Read"):
        Image.open(io.BytesIO(data))
    pixels, remarks = read(bytes(data))
    assert torch.equal(pixels, read(encoded(photo(), "PNG"))[0]) and "left out" in remarks[0]

    plain = encoded(photo(), "JPEG")
    profile = encoded(photo(), "JPEG", icc_profile=b"no profile at all")
    camera = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert torch.equal(read(profile)[0], read(plain)[0]) and torch.equal(read(camera)[0], read(plain)[0])


def clear_pictures() -> dict[str, bytes]:
    white = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (5, 5, 15, 15))
    empty = photo().convert("RGBA")
    empty.putalpha(0)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0, 0, 0, 100])
    found = {kind: encoded(empty, kind) for kind in ("PNG", "TIFF", "WEBP", "GIF")}
    return found | {
        "white on clear": encoded(white, "PNG"),
        "almost white": encoded(Image.fromarray(np.where(np.array(white) == 255, 253, 0).astype(np.uint8)), "PNG"),
        "grey and alpha": encoded(Image.new("LA", (8, 8), (7, 0)), "PNG"),
        "palette": encoded(palette, "PNG", transparency=0),
        "all frames": encoded(empty, "PNG", save_all=True, append_images=[empty, white]),
    }


@pytest.mark.parametrize("kind", clear_pictures())
def test_a_picture_that_shows_nothing_is_remarked_on(kind):
    pixels, remarks = read(clear_pictures()[kind])
    assert pixels.min() >= 250 and "nothing in it is visible" in remarks[-1]


def test_honest_white_and_half_transparent_are_not():
    half = photo().convert("RGBA")
    half.paste(EMPTY, (0, 0, 30, 40))
    for image in (Image.new("RGB", (8, 8), "white"), Image.new("RGBA", (8, 8), "white"), half):
        assert read(encoded(image, "PNG"))[1] == []


def bmp(pixels: np.ndarray, masks: tuple[int, int, int, int], compression: int = 3) -> bytes:
    """A BMP of four bytes a pixel, [H, W, 4], bottom up, with a header of version 4."""
    height, width = pixels.shape[:2]
    header = struct.pack("<IiiHHIIiiII4I", 108, width, height, 1, 32, compression, 0, 0, 0, 0, 0, *masks).ljust(
        108, b"\0"
    )
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + pixels[::-1].tobytes()


def test_a_bmp_that_leaves_its_alpha_empty_is_opaque():
    """So Windows shows it; where some pixel has an alpha, alpha counts."""
    masks = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
    pixels = np.array(photo().convert("RGBA"))[:, :, [2, 1, 0, 3]]
    pixels[:, :, 3] = 0
    assert Image.open(io.BytesIO(bmp(pixels, masks))).getchannel("A").getextrema() == (0, 0)
    found, remarks = read(bmp(pixels, masks))
    assert torch.equal(found, read(encoded(photo(), "BMP"))[0]) and remarks == []
    pixels[:, 30:, 3] = 255
    found, remarks = read(bmp(pixels, masks))
    assert found[:, :, :14].min() == 255 and found[:, :, 18:].min() < 200 and remarks == []


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF"])
def test_the_first_frame_that_shows_something(kind):
    empty, red = Image.new("RGBA", (8, 8), EMPTY), Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    blue = Image.new("RGBA", (8, 8), (0, 0, 255, 255))
    data = encoded(empty, kind, save_all=True, append_images=[empty.copy(), red, blue], duration=50, lossless=True)
    # GIF and PNG join equals.
    number = next(at for at in range(4) if frame(data, at).convert("RGBA").getextrema()[3][1])
    pixels, remarks = read(data)
    assert pixels[0].min() > 250 and pixels[1:].max() < 5
    assert remarks == [f"has several frames or pages; the first that shows something, number {number + 1}, is used"]


def frame(data: bytes, number: int) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.seek(number)
    return image


def test_clear_frames_before_a_broken_one():
    empty = Image.new("RGBA", (64, 64), EMPTY)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert("RGBA")
    data = encoded(empty, "TIFF", save_all=True, append_images=[noise])
    start = data.index(np.array(noise).tobytes()[:64])
    pixels, remarks = read(data[: start + 100])  # the second page's directory is gone
    assert pixels.min() == 255 and "nothing in it is visible" in remarks[-1]


def test_a_transparent_colour_is_compared_in_all_bits_of_the_file():
    """By the PNG specification (11.3.2.1): 16 bits of 16, and of 2 or 4 bits these, not their scaled value."""
    near, clear = [0x1234, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD]
    rows = np.array([[near, clear, near]] * 3, ">u2").reshape(3, 9).view(np.uint8)
    pixels, remarks = read(png(rows, 16, 2, chunk(b"tRNS", struct.pack(">3H", *clear))), size=3)
    assert pixels[:, 1].tolist() == [[0x12, 255, 0x12], [0x56, 255, 0x56], [0x9A, 255, 0x9A]] and remarks == []
    other = chunk(b"tRNS", struct.pack(">3H", 0x12, 0x56, 0x9A))  # equal only to the high bytes
    assert read(png(rows, 16, 2, other), size=3)[0][:, 1, 1].tolist() == [0x12, 0x56, 0x9A]
    four = np.array([[0x05, 0xF5]] * 4, np.uint8)  # 0 5 15 5
    found = read(png(four, 4, 0, chunk(b"tRNS", b"\0\5")), size=4)[0]
    assert found[0, 0].tolist() == [0, 255, 255, 255]
    assert read(png(four, 4, 0, chunk(b"tRNS", b"\0\0")), size=4)[0][0, 0].tolist() == [255, 85, 255, 85]
    two = np.array([[0b00011011]] * 4, np.uint8)
    assert read(png(two, 2, 0, chunk(b"tRNS", b"\0\1")), size=4)[0][0, 0].tolist() == [0, 255, 170, 255]
    bright = np.tile(np.array([1, 2, 3, 4, 5, 6], np.uint8), (2, 1))
    masked = chunk(b"tRNS", struct.pack(">3H", 0xFF01, 0xFF02, 0xFF03))  # of 8 bits the low ones count
    assert read(png(bright, 8, 2, masked), size=2)[0][:, 0].tolist() == [[255, 4], [255, 5], [255, 6]]


def grey16(top: int) -> np.ndarray:
    return np.linspace(0, top, 64, dtype=np.uint16).reshape(8, 8)


def grey_tiff(values: np.ndarray, order: str, photometric: int = 1) -> bytes:
    """Grey [8, 8] of 16 bits in an order of bytes (< or >); 0 is black (1) or white (0), as the tag says."""
    data = values.astype(f"{order}u2").tobytes()
    tags = [(256, 8), (257, 8), (258, 16), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 8), (279, len(data))]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack(f"{order}2sHI", {"<": b"II", ">": b"MM"}[order], 42, 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def rgb16(top: int) -> bytes:
    return png(np.repeat(grey16(top)[:, :, None], 3, 2).astype(">u2").reshape(8, 24).view(np.uint8), 16, 2)


def test_twelve_bits_in_sixteen_are_remarked_on():
    """As cameras write them: they come out nearly black. A full range, and an honest black, are not."""
    for top, told in ((4095, True), (16383, True), (65535, False), (0, False)):
        grey = Image.fromarray(grey16(top))
        for data in (encoded(grey, "PNG"), encoded(grey, "TIFF"), grey_tiff(grey16(top), ">"), rgb16(top)):
            pixels, remarks = read(data)
            assert abs(int(pixels.max()) - top / 257) <= 1
            assert [("less than a quarter" in remark and "very dark" in remark) for remark in remarks] == [True] * told
    pixels, remarks = read(grey_tiff(grey16(4095), "<", photometric=0))
    assert pixels.min() >= 239 and "very pale" in remarks[0]
    eight = Image.fromarray((grey16(4095) >> 8).astype(np.uint8))
    assert read(encoded(eight, "PNG"))[1] == []  # a dark picture of 8 bits is one


def lab_tiff() -> bytes:
    return encoded(Image.new("LAB", (8, 8), (50, 128, 128)), "TIFF")


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag."""
    changed = bytearray(data)
    directory = struct.unpack_from("<I", data, 4)[0]
    for at in range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", data, directory)[0], 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HIHH", changed, at + 2, 3, 1, value, 0)
    assert bytes(changed) != data
    return bytes(changed)


def test_a_kind_that_pillow_lacks_is_not_called_damaged():
    pixels = np.zeros((4, 4, 4), np.uint8)
    tiff = encoded(photo(), "TIFF", compression="tiff_lzw")
    jpeg = encoded(photo(), "JPEG")
    start = jpeg.index(b"\xff\xc0")
    kinds = {
        "BMP": [bmp(pixels, (0x3FF00000, 0xFFC00, 0x3FF, 0)), bmp(pixels, EMPTY, compression=4), b"BM" + bytes(12) + b"\x10\0\0\0" + bytes(60)],
        "TIFF": [with_tag(tiff, 259, 34712), with_tag(tiff, 259, 34676), with_tag(tiff, 262, 32803), with_tag(tiff, 277, 9)],
        "JPEG": [jpeg[: start + 4] + b"\x0c" + jpeg[start + 5 :]],
    }  # fmt: skip
    for kind, files in kinds.items():
        for data in files:
            assert f"this kind of {kind} cannot be read here" in reason(data), kind
    assert reason(lab_tiff()) == "a: this kind of TIFF cannot be read here (colours LAB); save it as RGB"


def test_nothing_of_pillow_reaches_the_error_stream(tmp_path):
    """In a process of its own: pytest has a handler for log lines, so that Python's last resort is not seen."""
    path = tmp_path / "a.tif"
    path.write_bytes(with_tag(encoded(photo(), "TIFF"), 277, 9))
    plain = f"from PIL import Image\ntry: Image.open({str(path)!r})\nexcept OSError: pass"
    ours = (
        "from cifarnet.data.images.decode import ImageError, read_image\n"
        f"try: read_image({str(path)!r}, 32)\nexcept ImageError: print('refused')"
    )
    alone, read_here = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for code in (plain, ours)
    )
    assert "More samples per pixel" in alone.stderr
    assert (read_here.stdout, read_here.stderr) == ("refused\n", "")


def test_too_little_memory_is_not_a_damaged_picture(monkeypatch):
    def load(_) -> None:
        raise MemoryError

    monkeypatch.setattr(opening, "load", load)
    with pytest.raises(MemoryError):
        read(encoded(photo(), "JPEG"))


def test_remarks_on_a_folders_images_are_passed_on(tmp_path):
    """At the first start, which looks at them; some by name, of the others the number."""
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(2):
            Image.new("RGBA", (8, 8), EMPTY).save(tmp_path / place / f"{number}.png")
    with pytest.warns(UserWarning) as caught:
        load("folder", tmp_path)
    lines = [str(one.message) for one in caught]
    assert sum("nothing in it is visible" in line for line in lines) == 5
    assert sum("3 more such remarks" in line for line in lines) == 1
