"""Ways to damage a file, all drawn from one random.Random: the same seed gives the same damage."""

import copy
import json
import random
import struct
from typing import Any

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 2**64, 10**400, 0.0, -0.5, 1e-320, 1e308, float("nan"), float("inf"),
    "", "0", "a", "auto", "../../etc/passwd", "\x00", "\x1b[2J", "\ud800", "x" * 100_000, [], {}, [[]], [0] * 1000, {"a": {}},
]  # fmt: skip
WORDS = [
    b"\0" * 8,
    b"\xff" * 8,
    b"\x80\x02",
    b"PK\x03\x04",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\1",
    b"<html>",
    b"\n",
    b"{",
    b"[",
]


def damage(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """`data` after one to four blows: bits, bytes, words, cuts, copies, or a piece of another file."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(out)
        place = rng.randrange(size + 1) if rng.random() < 0.5 else min(size, int(rng.expovariate(1 / 60)))
        length = min(size - place, int(rng.expovariate(1 / 30)) + 1)
        blow = rng.randrange(9)
        if blow == 0 and place < size:
            out[place] ^= 1 << rng.randrange(8)
        elif blow == 1 and place < size:
            out[place] = rng.randrange(256)
        elif blow == 2:
            out[place : place + length] = rng.randbytes(length)
        elif blow == 3:
            del out[place : place + length]
        elif blow == 4:
            del out[place:]
        elif blow == 5:
            out[place:place] = out[place : place + length] * rng.choice((1, 1, 50))
        elif blow == 6:
            word = rng.choice(WORDS)
            out[place : place + rng.choice((0, len(word)))] = word
        elif blow == 7:
            number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
            out[place : place + 4] = struct.pack(rng.choice("<>") + "I", number)
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[place : place + length] = other[start : start + length]
    return bytes(out)


def damage_json(document: Any, rng: random.Random) -> Any:
    """A copy of `document` with one to three of its values replaced, taken away, doubled, or put deep inside others."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder: Any = document
        while isinstance(holder, (dict, list)) and holder:
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.3:
                break
            holder = holder[key]
        if not isinstance(holder, (dict, list)) or not holder:
            return copy.deepcopy(rng.choice(NASTY))
        blow = rng.randrange(10)
        if blow < 6:
            holder[key] = copy.deepcopy(rng.choice(NASTY))
        elif blow == 6:
            del holder[key]
        elif blow == 7:
            holder[key] = [holder[key]] * 3
        elif blow == 8 and isinstance(holder, dict):
            holder[rng.choice(("extra", "", "__metadata__"))] = copy.deepcopy(rng.choice(NASTY))
        elif type(holder[key]) in (int, float) and abs(holder[key]) < 1e300:
            holder[key] = holder[key] * rng.choice((-1, 0, 10, 10**6)) + rng.choice((0, 1, -1, 0.5))
    return document


def as_json(document: Any, rng: random.Random) -> bytes:
    """The document as bytes, at times with a second key or nested too deep to be read."""
    text = json.dumps(document)
    if rng.random() < 0.02:
        text = "[" * 100_000 + text
    if rng.random() < 0.02:
        text = text.replace('":', '": {"a":', 1)
    return text.encode("utf-8", "surrogatepass")


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a value changed in its header, or in the JSON that stands as text in its metadata."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    texts = [name for name, text in header["__metadata__"].items() if text.startswith("{")]
    if rng.random() < 0.7 and texts:
        name = rng.choice(texts)
        inner = damage_json(json.loads(header["__metadata__"][name]), rng)
        header["__metadata__"][name] = as_json(inner, rng).decode("utf-8", "replace")
    else:
        header = damage_json(header, rng)
    text = as_json(header, rng)
    if rng.random() < 0.2:
        body = damage(body, rng, [body])
    size = len(text) if rng.random() < 0.95 else rng.choice((0, len(text) - 1, len(text) + 1, 10**8, 2**63))
    return struct.pack("<Q", size) + text + body
