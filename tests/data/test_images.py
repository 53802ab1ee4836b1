"""Every kind of file that a user may hand over, made for real."""

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cifarnet.core.errors import Refused
from cifarnet.data.images.decode import ImageError, find_images, printable, read_image
from cifarnet.data.images.open import MAX_PIXELS
from cifarnet.data.images.plain_png import plain_png


def photo(width: int = 60, height: int = 40) -> Image.Image:
    """Smooth colours with a different value in each corner."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow cannot write all kinds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def reason(path: Path | str) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, 32)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_empty_folder_pipe_and_device(tmp_path):
    empty, pipe = tmp_path / "empty.png", tmp_path / "pipe.png"
    empty.touch()
    os.mkfifo(pipe)  # opening one blocks until someone writes: it must not be opened
    assert reason(tmp_path / "none.png") == f"{tmp_path}/none.png: there is no such file"
    assert reason(empty).endswith("is empty")
    assert "`recursive`" in reason(tmp_path)
    assert "pipe" in reason(pipe)
    assert "device" in reason("/dev/null")
    assert "cannot be read" in reason(empty / "below.png")


def test_unreadable():
    """Root may read every file, and so becomes another user for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "a.png")
        photo().save(path)
        assert read_image(path, 32)[0].shape == (3, 32, 32)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            assert "cannot be read (Permission denied)" in reason(path)
        finally:
            os.seteuid(user)


def test_not_an_image_and_formats_off_the_list(tmp_path):
    text, eps, tga = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.png"
    text.write_text("an honest text file")
    photo().save(eps, "EPS")
    photo().save(tga, "TGA")
    for path in (text, eps, tga):
        assert "not an image of a known format (JPEG, PNG," in reason(path)
    photo().save(tmp_path / "png.jpg", "PNG")  # the content counts, not the name
    assert read_image(tmp_path / "png.jpg", 32)[0].shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA"])
def test_truncated_anywhere_is_never_half_decoded(tmp_path, kind):
    """Cut at 40 places: either an error, or every pixel is there (a cut in what follows the pixels)."""
    path = tmp_path / ("image.tga" if kind == "TGA" else "image")
    photo().save(path, kind)
    data = path.read_bytes()
    whole, remarks = read_image(path, 32)
    assert remarks == []
    refused = 0
    for cut in sorted({len(data) * i // 40 for i in range(1, 40)} | {len(data) - 1, len(data) - 2}):
        path.write_bytes(data[:cut])
        try:
            image, _ = read_image(path, 32)
        except ImageError as error:
            refused += 1
            assert "truncated" in str(error) or "damaged" in str(error) or "known format" in str(error)
        else:
            assert torch.equal(image, whole), cut
    assert refused >= 30


def test_progressive_jpeg_cut_between_scans_is_refused(tmp_path):
    """Each scan covers the whole image, so a decoder could show a coarse one."""
    path = tmp_path / "a.jpg"
    photo(200, 200).save(path, progressive=True)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\xff\xda")])
    assert "truncated" in reason(path)


def test_bomb_is_refused_before_decoding(tmp_path):
    """A few bytes that announce 10 gigapixels, and a size just above the ceiling."""
    huge, above = tmp_path / "huge.png", tmp_path / "above.png"
    huge.write_bytes(png(100_000, 100_000, 8, 2, b"\0" * 1000))
    above.write_bytes(png(MAX_PIXELS // 10_000 + 1, 10_000, 1, 0, b"\0" * 1000))
    for path in (huge, above):
        assert f"{MAX_PIXELS:,}" in reason(path)


def test_bomb_takes_no_memory(tmp_path):
    """Highly compressed 90-megapixel rows under a header of 10 gigapixels: the process stays small."""
    path = tmp_path / "huge.png"
    path.write_bytes(png(100_000, 100_000, 8, 2, b"\0" * 90_000_000))
    code = (
        "import resource, sys; from cifarnet.data.images.decode import ImageError, read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(sys.argv[1], 32)\n"
        "except ImageError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 50_000  # kilobytes


def test_sixteen_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257 * 50, 257 * 200, 65535]], np.uint16).repeat(4, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 0, rows))
    Image.fromarray(values).save(tmp_path / "a.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 4 65535\n" + values.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        image, _ = read_image(tmp_path / name, 4)
        assert image[:, 0].tolist() == [[0, 50, 200, 255]] * 3, name
    clear = b"tRNS" + struct.pack(">H", 257 * 50)  # this value is transparent
    clear = struct.pack(">I", 2) + clear + struct.pack(">I", zlib.crc32(clear))
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 0, rows, clear))
    assert read_image(tmp_path / "a.png", 4)[0][:, 0].tolist() == [[0, 255, 200, 255]] * 3


def test_sixteen_bit_colour_is_scaled(tmp_path):
    values = np.array([0, 257 * 50, 65535], ">u2")
    rows = (b"\0" + values.tobytes() * 4) * 4
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 2, rows))
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 65535\n" + values.tobytes() * 16)
    for name in ("a.png", "a.ppm"):
        assert read_image(tmp_path / name, 4)[0][:, 0, 0].tolist() == [0, 50, 255], name


def tiff16(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A one-strip little-endian TIFF; 12-bit pixels are packed two in three bytes."""
    height, width = values.shape
    if bits == 12:
        number = "".join(f"{v:012b}" for v in values.flatten())
        data = int(number, 2).to_bytes(len(number) // 8, "big")
    else:
        data = values.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_and_white_is_zero(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff16(np.array([[0, 1024, 2048, 4095]] * 4), 12, 1))
    assert read_image(tmp_path / "a.tif", 4)[0][0, 0].tolist() == [0, 64, 128, 255]
    (tmp_path / "b.tif").write_bytes(tiff16(np.array([[0, 257 * 50, 257 * 200, 65535]] * 4), 16, 0))
    assert read_image(tmp_path / "b.tif", 4)[0][0, 0].tolist() == [255, 205, 55, 0]


def test_a_damaged_tiff_is_one_error_and_no_remarks_of_its_library(tmp_path, capfd):
    path = tmp_path / "a.tif"
    photo().save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    start = data.index(b"\x80\x00")  # LZW begins with its clear code
    data[start + 2 : start + 60] = b"\xff" * 58
    path.write_bytes(data)
    with contextlib.suppress(OSError):
        Image.open(path).load()
    assert "tempfile.tif" in capfd.readouterr().err  # what Pillow alone lets through
    assert "damaged" in reason(path)
    assert capfd.readouterr() == ("", "")


def test_missing_strips_are_not_left_black(tmp_path):
    """A height of 1,000,000 over a single strip of 4 rows: Pillow alone gives 3,999,984 black pixels, and takes seconds."""
    data = tiff16(np.full((4, 4), 65535), 16, 1)
    entry = struct.pack("<HHII", 257, 4, 1, 4)
    assert data.count(entry) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(entry, struct.pack("<HHII", 257, 4, 1, 1_000_000)))
    assert "it holds 16 of 4,000,000 pixels" in reason(tmp_path / "a.tif")


def test_pixels_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        assert "no known range" in reason(tmp_path / name)


def test_transparency_lies_on_white(tmp_path):
    half = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    half.paste((0, 0, 100, 255), (0, 0, 4, 8))
    half.save(tmp_path / "rgba.png")
    half.save(tmp_path / "a.webp", lossless=True)
    half.save(tmp_path / "a.gif")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0, 0, 0, 100])
    palette.paste(1, (0, 0, 4, 8))
    palette.save(tmp_path / "palette.png", transparency=0)
    grey = Image.new("LA", (8, 8), (0, 0))
    grey.save(tmp_path / "la.png")
    for name in ("rgba.png", "a.webp", "palette.png"):
        image, _ = read_image(tmp_path / name, 8)
        assert image[:, 0, 0].tolist() == [0, 0, 100] and image[:, 0, 7].tolist() == [255] * 3, name
    assert read_image(tmp_path / "la.png", 8)[0].min() == 255
    assert read_image(tmp_path / "a.gif", 8)[0][:, 0, 7].tolist() == [255] * 3


def test_grey_bilevel_and_cmyk_become_rgb(tmp_path):
    Image.new("L", (8, 8), 70).save(tmp_path / "l.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "1.png")
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "c.jpg", quality=100)
    assert read_image(tmp_path / "l.png", 8)[0].unique().tolist() == [70]
    assert read_image(tmp_path / "1.png", 8)[0].unique().tolist() == [255]
    red, green, blue = read_image(tmp_path / "c.jpg", 8)[0].float().mean((1, 2)).tolist()
    assert red < 10 and green > 245 and blue > 245  # cyan


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_exif_turns_upright(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo().save(tmp_path / f"a.{kind}", exif=exif, quality=100, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / f"a.{kind}"))
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(read_image(tmp_path / f"a.{kind}", 32)[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    assert (upright.size == (40, 60)) == (orientation >= 5)


def test_broken_exif_does_not_stop_a_good_image(tmp_path):
    photo().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    photo().save(tmp_path / "b.jpg")
    assert torch.equal(read_image(tmp_path / "a.jpg", 32)[0], read_image(tmp_path / "b.jpg", 32)[0])


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_first_of_several_frames_with_a_warning(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:])
    image, remarks = read_image(tmp_path / f"a.{kind}", 8)
    assert image[0].min() > 250 and image[1:].max() < 5
    assert len(remarks) == 1 and "first is used" in remarks[0]


def test_a_photo_with_a_preview_is_a_plain_photo(tmp_path):
    """Phones write JPEG files with a second, smaller picture (MPO)."""
    photo().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photo(30, 20)])
    photo().save(tmp_path / "b.jpg", "JPEG")
    image, remarks = read_image(tmp_path / "a.jpg", 32)
    assert torch.equal(image, read_image(tmp_path / "b.jpg", 32)[0]) and remarks == []


def test_size_crop_and_antialiasing(tmp_path):
    """Against torchvision on the same pixels."""
    import torchvision.transforms.functional as tvf

    image = photo(301, 200)
    image.save(tmp_path / "a.png")
    squeezed = tvf.resize(image, [32, 32])
    assert np.array_equal(read_image(tmp_path / "a.png", 32)[0].permute(1, 2, 0), np.asarray(squeezed))
    cropped = np.asarray(tvf.center_crop(tvf.resize(image, 32), [32, 32])).astype(int)
    ours = read_image(tmp_path / "a.png", 32, crop=True)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - cropped)[:, :, :2].max() <= 4  # their resized width is rounded to whole pixels first
    checks = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    checks.save(tmp_path / "b.png")
    grey = read_image(tmp_path / "b.png", 32)[0]
    assert grey.min() >= 120 and grey.max() <= 135  # without antialiasing it would be black or white


def test_a_thin_line_can_be_cropped(tmp_path):
    """Enlarging the short side first would take 2 million pixels by 32."""
    Image.new("L", (60_000, 1), 9).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 32, crop=True)[0].unique().tolist() == [9]


def test_names_are_escaped(tmp_path):
    path = tmp_path / "a\x1b[31m\n\u202eb.png"
    assert reason(path).count("\\x1b[31m\\n\\u202eb.png") == 1
    assert printable("chien à poil.jpg") == "chien à poil.jpg"
    assert printable(b"\xff.jpg") == "\\udcff.jpg"
    path.write_text("text")
    assert "\x1b" not in reason(path)


def test_find_images(tmp_path):
    for name in ("b/2.PNG", "b/10.jpg", "a/x.jpeg", "a/notes.txt", ".hidden/h.png", "b/.h.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path], recursive=True)]
    assert names == ["c.png", "a/x.jpeg", "b/10.jpg", "b/2.PNG"]
    given = [tmp_path / "b" / "2.PNG", tmp_path / "b", tmp_path / "b" / "2.PNG"]
    assert find_images(given) == given
    (tmp_path / "none").mkdir()
    with pytest.raises(Refused, match="no image files in it"):
        find_images([tmp_path / "none"], recursive=True)
    with pytest.raises(Refused, match=r"^-: an image is read from a file, by its name; name the file"):
        find_images(["-"])


def test_what_is_no_image_in_a_folder_is_counted_and_bare_images_are_taken(tmp_path):
    """As `train` has it; links to folders are followed where they are asked for, in the folder itself, and in no circle."""
    top = tmp_path / "top"
    (top / "b").mkdir(parents=True)
    (tmp_path / "away" / "deep").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(top / "b" / "IMG_1", "JPEG")
    Image.new("RGB", (4, 4)).save(tmp_path / "away" / "x.png")
    for name in ("1.heic", "2.heic", "README", "notes.txt", ".DS_Store"):
        (top / "b" / name).write_bytes(b"no image")
    (top / "a").symlink_to(tmp_path / "away")
    (top / "loop").symlink_to(top)
    (tmp_path / "away" / "deep" / "link").symlink_to(top)

    def found(**options):
        with pytest.warns(UserWarning) as said:
            paths = find_images([top], recursive=True, **options)
        assert len(said) == 1
        return [str(path.relative_to(top)) for path in paths], str(said[0].message)

    rest = (
        "links to folders: 2, 2 .heic (no format that is read here), hidden: 1, 1 .txt, 1 without a suffix (no images)"
    )
    assert found() == (["b/IMG_1"], f"{top}: left out: {rest}")
    assert found(linked=True) == (["a/x.png", "b/IMG_1"], f"{top}: left out: {rest}")
    (top / "b" / "IMG_1").unlink()
    with pytest.raises(
        Refused,
        match=r"top: no image files in it \(left out: links to folders: 2, 2 .heic \(no format that is read here\)",
    ):
        find_images([top], recursive=True)


def test_a_plain_png_is_what_pillow_reads_and_any_other_is_left_to_it(tmp_path):
    """Each filter (as Pillow chooses them), several IDAT chunks, harmless chunks; else None, and so where a byte is wrong."""
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)[..., None].repeat(3, 2)
    for pixels in (noise, smooth, draw.integers(0, 256, (300, 400, 3), dtype=np.uint8)):
        for options in ({}, {"compress_level": 0}, {"optimize": True}, {"dpi": (72, 72)}):
            Image.fromarray(pixels).save(tmp_path / "a.png", **options)
            found = plain_png((tmp_path / "a.png").read_bytes())
            assert found is not None and np.array_equal(np.array(found), pixels)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for place in range(0, len(whole) - 12, 7):  # behind it lies the mark of the end
        assert plain_png(whole[:place]) is None
        assert plain_png(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]) is None, place
    for picture, options in (
        (Image.fromarray(noise).convert("RGBA"), {}), (Image.fromarray(noise).convert("L"), {}),
        (Image.fromarray(noise), {"transparency": (1, 2, 3)}), (Image.fromarray(noise).convert("P"), {}),
        (Image.fromarray(noise), {"exif": b"MM\0*\0\0\0\x08\0\0"}), (Image.new("RGB", (600, 2)), {}),
        (Image.fromarray(noise), {"save_all": True, "append_images": [Image.fromarray(noise[::-1])]}),
    ):  # fmt: skip
        picture.save(tmp_path / "a.png", **options)
        assert plain_png((tmp_path / "a.png").read_bytes()) is None
