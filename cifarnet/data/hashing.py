"""What an image is, told by its pixels: a hash that no file format, name or place changes."""

import hashlib

import numpy as np
import torch
from torch import Tensor

CHUNK = 4096  # images copied together, where they do not lie in one piece
LENGTH = 32  # bytes of a hash


def hash_images(images: Tensor) -> Tensor:
    """SHA-256 of each image: of its height and width, as uint32 in little-endian order, then its pixels, channel by channel.

    Args:
        images: uint8 [N, 3, H, W], as decoded and before resizing.

    Returns:
        uint8 [N, 32].
    """
    hashes = bytearray()
    for chunk in images.split(CHUNK):
        for pixels in chunk.cpu().contiguous().numpy():
            hashes += hash_picture(pixels)
    return torch.from_numpy(np.frombuffer(hashes, np.uint8).reshape(-1, LENGTH).copy())


def hash_picture(pixels: np.ndarray) -> bytes:
    """The hash of one image, uint8 [3, H, W]: 32 bytes."""
    found = hashlib.sha256(np.array(pixels.shape[1:], dtype="<u4").tobytes())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()
