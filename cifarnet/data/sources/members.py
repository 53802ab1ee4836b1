"""Images that lie within larger files: each is read by its place there."""

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np

from cifarnet.data.images.decode import ImageError, Square, printable, read_square_bytes, why_unreadable
from cifarnet.data.images.streamed import hash_arrays
from cifarnet.data.sources.tar_index import Shard, open_shard


@dataclass(frozen=True, eq=False)
class Members:
    """Images within tar files.

    Args:
        shards: the files.
        shard_of: int32 [N], an index into them.
        offsets, sizes: int64 [N], bytes.
        names: bytes of a fixed width [N], of the members, cut where they are long: for messages.
    """

    shards: tuple[Shard, ...]
    shard_of: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, index: int) -> str:
        """`shard.tar/key.jpg`, fit for a terminal."""
        return printable(os.path.join(self.shards[self.shard_of[index]].path, os.fsdecode(self.names[index])))

    def read(self, index: int, size: int, hashed: bool = False) -> Square:
        """Image `index`, its hash too where `hashed`; raises ImageError, also where the tar is no longer what was listed."""
        shard = self.shards[self.shard_of[index]]
        try:
            file, stamp = open_shard(shard.path)
            try:
                if stamp != shard.stamp:
                    raise ImageError(printable(shard.path), "was changed since the start", "start again")
                data = os.pread(file, int(self.sizes[index]), int(self.offsets[index]))
            finally:
                os.close(file)
        except OSError as error:
            raise ImageError(printable(shard.path), why_unreadable(error)) from error
        return read_square_bytes(self.name(index), data, size, hashed=hashed)

    def take(self, indices: np.ndarray) -> "Members":
        """The images at `indices`."""
        chosen = {part: getattr(self, part)[indices] for part in ("shard_of", "offsets", "sizes", "names")}
        return replace(self, **chosen)

    def digest(self) -> str:
        """Hex digits over names, places and sizes, wherever the shards are."""
        return hash_arrays(self.shard_of, self.offsets, self.sizes, self.names)


def join(shards: list[Shard]) -> tuple[Members, np.ndarray, np.ndarray]:
    """The images of all shards in their order, with labels and keys (int64 [N] both)."""
    shard_of = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.offsets) for shard in shards])
    offsets, sizes, labels, called = (
        np.concatenate([getattr(shard, part) for shard in shards]) for part in ("offsets", "sizes", "labels", "names")
    )
    bases = [
        hashlib.blake2b(f"{os.path.realpath(shard.path)}\0{shard.stamp}".encode("utf-8", "surrogateescape")).digest()
        for shard in shards
    ]
    base = np.frombuffer(b"".join(digest[:8] for digest in bases), dtype=np.int64)
    keys = base[shard_of] ^ (offsets * np.int64(0x9E3779B97F4A7C1))  # an odd factor: within a shard no two are equal
    return Members(tuple(shards), shard_of, offsets, sizes, called), labels, keys
