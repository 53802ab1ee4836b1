"""Hashes of an image's pixels, which no file format, name or place changes; and digests of many."""

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


def sum_of_hashes(labels: Tensor, hashes: Tensor) -> str:
    """64 hex digits: the sum modulo 2^256 of SHA-256 over each label, as uint32 in little-endian order, and its image's hash.

    Args:
        labels: int64 [N]; hashes: uint8 [N, 32].
    """
    numbers = labels.numpy().astype("<u4")[:, None].view(np.uint8)
    rows = memoryview(np.concatenate([numbers, hashes.numpy()], axis=1).tobytes())
    size = 4 + LENGTH
    found = b"".join([hashlib.sha256(rows[at : at + size]).digest() for at in range(0, len(rows), size)])
    words = np.frombuffer(found, "<u4").reshape(-1, LENGTH // 4).sum(0, dtype=np.uint64).tolist()
    return f"{sum(word << 32 * place for place, word in enumerate(words)) % 2**256:064x}"


def order_by_hash(labels: Tensor, hashes: Tensor) -> Tensor:
    """int64 [N]: where the images stand in the order of their hashes, of equal images in that of their labels."""
    words = hashes.numpy().view(">u8")  # [N, 4], compared from the left
    return torch.from_numpy(np.lexsort((labels.numpy(), *words.T[::-1])))


def hash_picture(pixels: np.ndarray) -> bytes:
    """The hash of one image, uint8 [3, H, W]: 32 bytes."""
    found = hashlib.sha256(np.array(pixels.shape[1:], dtype="<u4").tobytes())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()
