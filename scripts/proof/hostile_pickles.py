"""What fuzz_pickles.py feeds: batches in each spelling, blows on them, rows of opcodes at random, and bombs."""

import pickle
import random
import struct

import numpy as np
from mutate import damage

from cifarnet.data.sources.pickle_array import NAMES
from cifarnet.data.sources.pickle_walk import MOST

BOMB_EVERY = 1000  # cases; a bomb takes up to a second


def u4(number: int) -> bytes:
    return struct.pack("<I", number)


def python2() -> bytes:
    """A batch as Python 2's cPickle spells it, protocol 2."""
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85q\x07U\x01bq\x08\x87q\tRq\n"
    kind = (
        b"cnumpy\ndtype\nq\x0cU\x02u1q\rK\x00K\x01\x87q\x0eRq\x0f(K\x03U\x01|q\x10NNNJ"
        + b"\xff" * 4
        + b"J"
        + b"\xff" * 4
    )
    pixels = bytes(range(256)) * 2
    array += b"(K\x01K\x08K@\x86q\x0b" + kind + b"K\x00tq\x11b\x89T" + u4(len(pixels)) + pixels + b"q\x12tq\x13b"
    labels = b"]q\x03(" + b"".join(b"K" + bytes([label]) for label in range(8)) + b"e"
    return b"\x80\x02}q\x01(U\x06labelsq\x02" + labels + b"U\x04dataq\x04" + array + b"u."


def good_ones() -> list[bytes]:
    """Batches in each spelling."""
    pixels = np.arange(512, dtype=np.uint8).reshape(8, 64)
    batch = {
        "labels": [*range(8)],
        "data": pixels,
        "filenames": [f"{i}.png" for i in range(8)],
        "batch_label": "x" * 300,
    }
    made = [pickle.dumps(batch, protocol) for protocol in (2, 3, 4, 5)]
    made.append(pickle.dumps({**batch, "data": np.asfortranarray(pixels)}, 4))
    old = [data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n") for data in made[:2]]  # NumPy 1
    return [*made, *old, python2(), python2()]


# Rows of opcodes: those of a batch, those that call, and every other opcode there is.
NAMED = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nexec\n", b"csubprocess\nPopen\n", b"cposix\nsystem\n"]
NAMED += [b"c" + f"{module}\n{name}\n".encode() for module, name in NAMES]
NAMED += [
    b"\x8c\x02os\x8c\x06system\x93",
    b"\x8c\x08builtins\x8c\x04eval\x93",
    b"ios\nsystem\n",
    b"cos\nsystem\n(U\x02idtR",
]
SMALL = [
    b"N",
    b"\x88",
    b"\x89",
    b"K\x00",
    b"K\x01",
    b"M\x00\x10",
    b"J\xff\xff\xff\xff",
    b"\x8a\x01\x07",
    b"\x8a\x0d" + b"1" * 13,
]
SMALL += [
    b"]",
    b"}",
    b")",
    b"(",
    b"U\x01b",
    b"U\x02u1",
    b"X\x02\0\0\0u1",
    b"X\x06\0\0\0latin1",
    b"C\x01b",
    b"U\x06labels",
    b"\x8c\x04data",
]
SMALL += [
    b"T" + u4(300) + b"d" * 300,
    b"B" + u4(64) + b"d" * 64,
    b"X" + u4(100) + b"\xc3\xbf" * 50,
    b"\x96" + struct.pack("<Q", 3) + b"abc",
]
SHAPED = [
    b"\x85",
    b"\x86",
    b"\x87",
    b"t",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"q\x00",
    b"q\x01",
    b"h\x00",
    b"h\x01",
    b"\x94",
    b"j\0\0\0\0",
]
OTHER = [bytes([code]) for code in range(256)]
MAKER = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
KIND = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ" + b"\xff" * 4 + b"J" + b"\xff" * 4 + b"K\x00tb"
WHOLE = [
    MAKER,
    KIND,
    MAKER + b"(K\x01K\x03\x85" + KIND + b"\x89U\x03abctb",
    b"c_codecs\nencode\nX\x03\0\0\0abcX\x06\0\0\0latin1\x86R",
]


def snippet(rng: random.Random) -> bytes:
    return rng.choice(rng.choice((SMALL, SMALL, SHAPED, SHAPED, SHAPED, NAMED, WHOLE, OTHER)))


def bomb(rng: random.Random) -> bytes:
    """What would take long or much, were it let."""
    text, call = b"X" + u4(30_000_000) + b"x" * 30_000_000, b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R"
    collide = b"".join(b"\x8a\x08" + struct.pack("<q", i * (2**61 - 1)) + b"N" for i in (1, 2))
    return b"\x80\x04" + rng.choice([
        lambda: b"]" * (MOST // 2) + b"a" * (MOST // 2 - 1) + b".",
        lambda: b")" + b"\x85" * (MOST - 3) + b".",
        lambda: b"(" * (MOST - 2) + b"t" * 5 + b".",
        lambda: b"}" * MOST + b".",
        lambda: b")q\x00" + b"h\x00h\x00\x86q\x00" * (MOST // 5) + b"h\x00\x93.",
        lambda: b")q\x00" + b"h\x00h\x00\x86q\x00" * (MOST // 5) + b"}h\x00Ns.",
        lambda: b"}(" + collide * (MOST // 5) + b"u.",
        lambda: b"]q\x00(" + b"h\x00" * (MOST - 10) + b"e.",
        lambda: b"Nr\xff\xff\xff\x7f.",
        lambda: text + b"q\x00" + call * 1000 + b".",
        lambda: text + b"q\x00" + (b"h\x00" * 300_000) + b"t.",
        lambda: b"X" + u4(60_000_004) + b"x" * 60_000_000 + "😀".encode() + b".",
        lambda: b"X" + u4(60_000_000) + b"\xc3\xbf" * 30_000_000 + b"q\x00" + call + b".",
        lambda: (b"X" + u4(64) + b"x" * 60 + "😀".encode()) * (MOST - 3) + b".",
        lambda: (b"B" + u4(65) + b"x" * 65) * (MOST - 3) + b".",
        lambda: (b"cos\n" + b"x" * 300 + b"\n") * MOST,
        lambda: b"cnumpy\nndarray\n" * (MOST - 3) + b".",
        lambda: (MAKER + b"(K\x01K\x03\x85" + KIND + b"\x89U\x03abctb") * (MOST // 40) + b".",
        lambda: b"B" + u4(2**31 - 1) + b"x",
        lambda: b"\x8e" + struct.pack("<Q", 2**63) + b"x",
        lambda: b"\x8b" + u4(2**31 - 1) + b"1" * 1000,
        lambda: b"I" + b"9" * 10_000_000 + b"\n.",
    ])()  # fmt: skip


def make_case(rng: random.Random, number: int, good: list[bytes]) -> bytes:
    if number % BOMB_EVERY == 0:
        return bomb(rng)
    kind = rng.randrange(4)
    if kind == 0:
        return damage(rng.choice(good), rng, good)
    if kind == 1:  # strange opcodes among its own
        data = bytearray(rng.choice(good))
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(2, len(data) + 1)
            data[place : place + rng.choice((0, 0, 1, 4))] = snippet(rng)
        return bytes(data)
    head = b"\x80" + bytes([rng.choice((2, 2, 3, 4, 5))])
    if kind == 2:  # a row at random
        return head + b"".join(snippet(rng) for _ in range(rng.randrange(1, 40))) + b"."
    inner = b"".join(snippet(rng) for _ in range(rng.randrange(1, 5)))  # an item that is none of a batch
    return head + b"}q\x00(U\x04data" + rng.choice(WHOLE) + b"U\x06labels" + inner + b"u."
