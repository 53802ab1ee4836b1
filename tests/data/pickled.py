"""Python batches as their several writers spell them: Python 2's cPickle, and Python 3 with NumPy 1 or 2."""

import io
import pickle
import struct
from typing import Any

import numpy as np


def python2(content: dict[str, Any]) -> bytes:
    """What cPickle of Python 2 writes in protocol 2: byte strings, each remembered, and an array's bytes as one of them."""
    memo = iter(range(10**6))

    def put() -> bytes:
        number = next(memo)
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def text(data: bytes) -> bytes:
        short = len(data) < 256
        return (b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data + put()

    def number(value: int) -> bytes:
        if 0 <= value < 256:
            return b"K" + bytes([value])
        return b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)

    def array(values: np.ndarray) -> bytes:
        start = b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put()
        start += b"K\x00\x85" + put() + text(b"b") + b"\x87" + put() + b"R" + put()
        shape = b"".join(map(number, values.shape)) + b"\x86" + put()
        kind = b"cnumpy\ndtype\n" + put() + text(b"u1") + b"K\x00K\x01\x87" + put() + b"R" + put()
        kind += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" + put() + b"b"
        return start + b"(K\x01" + shape + kind + b"\x89" + text(values.tobytes()) + b"t" + put() + b"b"

    def listed(items: list[Any]) -> bytes:
        found = b"]" + put()
        for at in range(0, len(items), 1000):
            found += b"(" + b"".join(map(value, items[at : at + 1000])) + b"e"
        return found

    def value(one: Any) -> bytes:
        if isinstance(one, np.ndarray):
            return array(one)
        if isinstance(one, list):
            return listed(one)
        return number(one) if isinstance(one, int) else text(one.encode("latin-1"))

    pairs = b"".join(text(key.encode()) + value(one) for key, one in content.items())
    return b"\x80\x02}" + put() + b"(" + pairs + b"u."


class OldNames(pickle._Pickler):  # type: ignore[name-defined]
    """A pickler that names NumPy's modules as NumPy 1 does."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", "")
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)
            return
        module, name = module.replace("numpy._core", "numpy.core"), obj.__qualname__
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(obj)


OldNames.dispatch = pickle._Pickler.dispatch | dict.fromkeys((type(len), type(python2)), OldNames.save_global)


def python3(content: dict[str, Any], protocol: int, numpy: int) -> bytes:
    """What Python 3 writes, with NumPy 1 or 2."""
    if numpy == 2:
        return pickle.dumps(content, protocol)
    file = io.BytesIO()
    OldNames(file, protocol).dump(content)
    return file.getvalue()
