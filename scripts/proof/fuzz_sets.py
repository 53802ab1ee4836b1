"""Image folders and tar shards under the fuzzer: what is remembered of them in the user's cache, and the shards themselves."""

import io
import json
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutate import damage, damage_safetensors
from PIL import Image

from cifarnet.data import load
from cifarnet.data.images.cache import write_arrays


def indexed_sets(folder: Path) -> dict[str, Any]:
    """An image folder and tar shards in `folder`; of each, what is loaded, and the files of the cache."""
    for part in ("train", "test"):
        for name, data in SHARD_FILES.items():
            if name.endswith("png"):
                place = folder / "folder" / part / f"class{int(name[0]) % 2}"
                place.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
        (folder / "webdataset").mkdir(exist_ok=True)
        (folder / "webdataset" / f"{part}.tar").write_bytes(SHARD)
    found = {}
    for name in ("folder", "webdataset"):
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{name}")
        data = load(name, folder / name, image_size=8)
        files = {path.name: path.read_bytes() for path in (folder / f"cache-{name}").rglob("*.safetensors")}
        found[name] = folder / name, data, files
    return found


def damaged_index(sets: dict[str, Any], rng: random.Random, place: Path) -> None:
    """What is remembered of an image set: damaged, it changes nothing; forged under a right checksum, it harms nothing."""
    name = rng.choice(list(sets))
    root, expected, files = sets[name]
    os.environ["XDG_CACHE_HOME"] = str(place)
    cache, forged = place / "cifarnet" / "index", rng.random() < 0.5
    cache.mkdir(parents=True)
    for file, data in files.items():
        (cache / file).write_bytes(data)
        if forged:
            forge(cache / file, data, rng)
        elif rng.random() < 0.7:
            changed = damage_safetensors(data, rng) if rng.random() < 0.5 else damage(data, rng, [*files.values()])
            (cache / file).write_bytes(changed)
    data = load(name, root, image_size=8)
    next(data.test.batches([torch.arange(len(data.test))]))  # type: ignore[call-overload]
    if not forged:
        assert data.mean == expected.mean and torch.equal(data.train.labels, expected.train.labels)
        assert torch.equal(data.train.images, expected.train.images)  # type: ignore[union-attr]


def forge(path: Path, data: bytes, rng: random.Random) -> None:
    """Writes the arrays of a file in the cache again, some of them changed, as whoever knows the format could."""
    header = json.loads(data[8 : (start := 8 + int.from_bytes(data[:8], "little"))])
    metadata, arrays = header.pop("__metadata__"), {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        content = (
            damage(data[start + begin : start + end], rng, [data])
            if rng.random() < 0.5
            else data[start + begin : start + end]
        )
        dtype = np.dtype({"I64": np.int64, "U8": np.uint8}[entry["dtype"]])
        array = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        shape = [-1, *entry["shape"][1:]]
        width = int(np.prod(shape[1:]))
        arrays[name] = array[: len(array) // width * width].reshape(shape) if rng.random() < 0.9 else array
    write_arrays(path, metadata["kind"], arrays)


def shard(rng: random.Random, place: Path) -> None:
    """Tar shards; in half of the cases the damage lies behind the checksums of the headers."""
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    data = bytearray(damage(SHARD, rng, [SHARD]))
    if rng.random() < 0.5:
        data = bytearray(SHARD)
        for start in rng.sample(HEADERS, rng.randrange(1, 4)):
            field, length = rng.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
            blow = rng.choice(
                (rng.randbytes(length), bytes([128]) + rng.randbytes(length), b"7" * length, b"xgLKSD1256")
            )
            data[start + field : start + field + length] = blow[:length].ljust(length, b"\0")
            data[start + 148 : start + 156] = b"%06o\0 " % (
                sum(data[start : start + 148] + data[start + 156 : start + 512]) + 256
            )
    (place / "train.tar").write_bytes(data)
    (place / "test.tar").write_bytes(SHARD)
    load("webdataset", place, image_size=8)


def pack_shard() -> tuple[bytes, list[int]]:
    """A WebDataset shard of six images, and where its headers begin."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in SHARD_FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        return buffer.getvalue(), [member.offset for member in tar]


def png(number: int) -> bytes:
    """A picture of noise."""
    buffer = io.BytesIO()
    Image.effect_noise((12, 9), 50 + number).save(buffer, "PNG")
    return buffer.getvalue()


SHARD_FILES = {name: data for n in range(6) for name, data in ((f"{n}.png", png(n)), (f"{n}.cls", b"%d\n" % (n % 2)))}
SHARD, HEADERS = pack_shard()
