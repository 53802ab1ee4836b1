"""Small copies of images, all in one picture."""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F

from cifarnet.data import AnySplit

LARGEST = 64  # pixels a side
ROOM = 12_000_000  # pixels of all: some 5 MB as JPEG
CHUNK = 500
QUALITY = 80  # of JPEG; 4:4:4, since colour is half of what a picture of 32 pixels shows


def thumbnails(images: AnySplit, size: int) -> np.ndarray:
    """The images of a split, whose sides are `size` pixels, as uint8 [N, side, side, 3], side at most 64 and less for many."""
    side = max(8, min(size, LARGEST, math.isqrt(ROOM // len(images))))
    small = []
    for batch in images.batches(torch.arange(len(images)).split(CHUNK)):
        pixels = batch.cpu()
        if side != size:
            pixels = F.interpolate(pixels.float(), (side, side), mode="bilinear", antialias=True).round().byte()
        small.append(pixels.permute(0, 2, 3, 1).numpy())
    return np.concatenate(small)


def sprite(small: np.ndarray) -> tuple[bytes, int]:
    """All thumbnails [N, side, side, 3] in one JPEG, row by row, and how many a row has."""
    from PIL import Image

    count, side = small.shape[:2]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, side, side, 3), np.uint8)
    sheet[:count] = small
    whole = sheet.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue(), columns
