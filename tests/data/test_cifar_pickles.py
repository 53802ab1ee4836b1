"""Python batches are read without being run: against pickle.loads where they are plain, refused where they are not."""

import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from pickled import python2, python3

from cifarnet.data.sources import pickle_walk
from cifarnet.data.sources.pickle_array import Array, NotPlain
from cifarnet.data.sources.pickle_walk import CODES, STEPS, read_pickle

RNG = np.random.default_rng(0)
BATCH = {
    "batch_label": "training batch 1 of 5",
    "labels": RNG.integers(0, 10, 1234).tolist(),
    "data": RNG.integers(0, 256, (1234, 48)).astype(np.uint8),
    "filenames": [f"camion_s_{i:06}.png" for i in range(1234)],
    "numbers": [0, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**40, True, None],
}


def same(found, known) -> bool:
    """Is what the walk gives what pickle.loads gives? An array, a view and a bytearray count by their bytes."""
    if isinstance(known, dict):
        return found.keys() == known.keys() and all(same(found[key], known[key]) for key in known)
    if isinstance(known, list | tuple):
        return type(found) is type(known) and len(found) == len(known) and all(map(same, found, known))
    if isinstance(known, np.ndarray):
        found = found.values
        return found.dtype == known.dtype == np.uint8 and found.shape == known.shape and np.array_equal(found, known)
    return found == known and (type(found) is type(known) or isinstance(found, memoryview))


def real(data: bytes, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's remark on its old names
        return pickle.loads(data, **options)


def test_each_spelling_as_pickle_reads_it():
    for protocol in (2, 3, 4, 5):
        for numpy in (1, 2):
            data = python3(BATCH, protocol, numpy)
            module, other = (b"numpy.core.", b"numpy._core.") if numpy == 1 else (b"numpy._core.", b"numpy.core.")
            assert module in data and other not in data
            assert same(read_pickle(data), real(data)), (protocol, numpy)
    data = python2({**BATCH, "numbers": [0, 256, 65536, -1]})
    assert same(read_pickle(data), real(data, encoding="bytes")) and b"numpy.core.multiarray\n" in data
    assert {code.name for code, _, _ in pickletools.genops(data)} >= {"BINSTRING", "SHORT_BINSTRING", "LONG_BINPUT"}
    assert read_pickle(data)[b"data"].values.base is not None  # a view of the file, no copy


def test_less_usual_arrays_and_what_stands_behind():
    columns = np.asfortranarray(BATCH["data"])
    for protocol in (2, 4, 5):
        for array in (columns, np.zeros((0, 3072), np.uint8), np.frombuffer(b"abc", np.uint8), BATCH["data"][:1]):
            data = pickle.dumps([array, array, "é" * 100], protocol)
            if len(array) or protocol > 2:  # of no bytes at all protocol 2 makes a call
                assert same(read_pickle(data + b"trailing"), real(data))
    long = b"\x80\x02\x8a\x02\x10\x27."  # 10000L, as Python 2 on Windows has a shape
    assert read_pickle(long) == real(long) == 10_000


def test_the_operands_are_pickletools_own():
    """Each step reads as many bytes as pickletools says that its opcode has."""
    widths = {"uint1": 1, "uint2": 2, "uint4": 4, "int4": 4, "uint8": 8}
    for opcode in pickletools.opcodes:
        if opcode.arg and opcode.arg.name in widths and ord(opcode.code) in STEPS:
            with pytest.raises(NotPlain, match="cut short"):
                read_pickle(b"\x80\x02" + opcode.code.encode("latin-1") + bytes(widths[opcode.arg.name] - 1))


class Evil:
    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


MOST = 20_000  # opcodes in these tests
HEAD = b"\x80\x02"
NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"


def u4(number: int) -> bytes:
    return struct.pack("<I", number)


LONG = b"X" + u4(1_000_000) + b"x" * 1_000_000
AGAIN = b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R"
HOSTILE = {  # what calls, imports or swallows
    "system": lambda: pickle.dumps(Evil(os.system, ("touch pwned",)), 2),
    "system, protocol 4": lambda: pickle.dumps({"data": [Evil(os.system, ("touch pwned",))]}, 4),
    "eval": lambda: pickle.dumps({"labels": Evil(eval, ("1/0",))}, 5),
    "text protocol": lambda: pickle.dumps({"a": 1}, 0),
    "instance": lambda: HEAD + b"(ios\nsystem\n.",
    "object": lambda: HEAD + b"(cos\nsystem\nX\x01\0\0\0xo.",
    "new object": lambda: pickle.dumps(NotPlain("x"), 2),
    "built name": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "name that is an array": lambda: HEAD + NDARRAY + b"U\x06system\x93.",
    "extension": lambda: HEAD + b"\x82\x01.",
    "persistent": lambda: HEAD + b"U\x01xQ.",
    "call of an array's maker with other arguments": lambda: HEAD + b"cnumpy\nndarray\nK\x05\x85R.",
    "dtype of objects": lambda: pickle.dumps(np.array([1], dtype=object), 2),
    "dtype of floats": lambda: pickle.dumps(np.ones(3), 4),
    "codec": lambda: HEAD + b"c_codecs\nencode\nX\x01\0\0\0xX\x03\0\0\0zip\x86R.",
    "state of a list": lambda: HEAD + b"](K\x01tb.",
    "array filled twice": lambda: HEAD + NDARRAY + b"]b]b.",
    "array of another size": lambda: python2({"data": BATCH["data"]}).replace(b"M\xd2\x04K0", b"M\xd3\x04K0"),
    "huge count": lambda: HEAD + b"T\xff\xff\xff\x7fabc.",
    "negative count": lambda: HEAD + b"T\xff\xff\xff\xffabc.",
    "huge bytes": lambda: HEAD + b"\x8e" + b"\xff" * 8 + b"abc.",
    "huge memo": lambda: HEAD + b"]r\xff\xff\xff\xff.",
    "huge number": lambda: HEAD + b"\x8b" + u4(1 << 30) + b"1.",
    "decoded again and again": lambda: HEAD + LONG + b"q\x00" + AGAIN * 99,
    "four bytes a letter": lambda: HEAD + b"X" + u4(1_000_004) + b"x" * 1_000_000 + "😀".encode() + b".",
    "deep lists": lambda: HEAD + b"]" * (MOST // 2) + b"a" * (MOST // 2 - 1) + b".",
    "deep tuples": lambda: HEAD + b")" + b"\x85" * (MOST - 2) + b".",
    "doubled again and again": lambda: HEAD + b")q\x00" + b"h\x00h\x00\x86q\x00" * 4_000 + b"}h\x00Ns.",
    "a name of doubled tuples": lambda: b"\x80\x04)q\x00" + b"h\x00h\x00\x86q\x00" * 100 + b"h\x00\x93.",
    "itself": lambda: HEAD + b"]q\x00h\x00a}h\x00Ns.",
    "keys of one hash": lambda: HEAD + b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", i * (2**61 - 1)) + b"N" for i in (1, 2)) + b"u.",
    "marks": lambda: HEAD + b"(" * (MOST + 1) + b".",
    "nothing": lambda: b"",
    "endless": lambda: HEAD + b"N" * (MOST + 1),
    "empty stack": lambda: HEAD + b"\x86.",
    "no mark": lambda: HEAD + b"t.",
    "no memo": lambda: HEAD + b"h\x07.",
}  # fmt: skip


def test_hostile_pickles_are_refused(tmp_path):
    """In a process of its own, whose processor time and memory are limited: some of them would take for ever, or all of it."""
    code = "import resource, test_cifar_pickles\nresource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
    code += "test_cifar_pickles.refuse_all()"
    path = os.pathsep.join([*map(str, (Path(__file__).parent, Path(__file__).parents[2])), *filter(None, sys.path)])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split("\n")[:-1] == list(HOSTILE), (done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


def refuse_all() -> None:
    """Reads all of HOSTILE and prints each name; none takes more than 100 MB."""
    pickle_walk.MOST = MOST
    for name, make in HOSTILE.items():
        data, memory = make(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            value = read_pickle(data)
            assert name in ("deep lists", "deep tuples"), name  # plain, after all
            del value
        except NotPlain as error:
            assert str(error).isprintable() and len(str(error)) < 200, name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000, name  # kB
        print(name, flush=True)


def test_what_is_refused_is_named():
    for data, words in (
        (pickle.dumps(Evil(os.system, ("x",)), 2), "it would call posix.system"),
        (b"\x80\x02(ios\nsystem\n.", r"opcode INST at byte \d+ is no part of a plain value"),
        (b"\x80\x04\x8c\x03o\x1b[\x8c\x06system\x93.", r"it would call o\\x1b\[\.system"),
        (pickle.dumps(BATCH, 4)[:-5000], "cut short"),
        (b"\x1f\x8b\x08", "no pickle of protocol 2 to 5"),
    ):
        with pytest.raises(NotPlain, match=words):
            read_pickle(data)


def test_the_codes_are_those_of_pickle():
    assert all(CODES[name] == getattr(pickle, name)[0] for name in CODES if hasattr(pickle, name))
    assert isinstance(read_pickle(pickle.dumps(BATCH, 4))["data"], Array)
