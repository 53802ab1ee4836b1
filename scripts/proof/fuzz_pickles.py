"""Feeds damaged and hostile pickles to the reader of Python batches, and proves that it runs nothing of theirs.

    python scripts/proof/fuzz_pickles.py --cases 100000 --seed 0 --json docs/results/fuzz_pickles.json

Cases: pickles of Python 2 and 3 with blows of all kinds, with strange opcodes among their own, rows of opcodes drawn at
random, and bombs as large as a batch. While one is read an audit hook listens: not one event may come, so that nothing is
imported, compiled, opened, started or called. A case fails on that, on an exception that is no refusal, on more than 2 seconds
or 1 GB, on a refusal of several lines, and where a pickle that is read means something else to Python's own unpickler, which is
then asked, with NumPy's few names allowed. A case is a function of (seed, number): `--first 1234 --cases 1` runs that one again.
"""

import argparse
import collections
import io
import json
import pickle
import random
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hostile_pickles import good_ones, make_case

from cifarnet.core.errors import printable
from cifarnet.data.sources.pickle_array import NAMES, Array, NotPlain
from cifarnet.data.sources.pickle_walk import read_pickle

LIMIT_SECONDS, LIMIT_BYTES = 2.0, 1 << 30
STEPS = 100_000  # of a comparison: tuples in tuples may take for ever

heard: list[str] = []
listening = False


def listen(event: str, _: Any) -> None:
    """The audit hook: every event while a pickle is read."""
    if listening:
        heard.append(event)


class Guarded(pickle.Unpickler):
    """Python's own, with the names that a batch has."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise AssertionError(f"{module}.{name} passed for plain")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def differs(found: Any, data: bytes) -> str:
    """How what was read differs from what Python's own unpickler reads; "" where it does not, or reads nothing."""
    try:
        known = Guarded(io.BytesIO(data), encoding="bytes").load()
    except AssertionError as error:
        return str(error)
    except Exception:  # a frame of another length, say: it is stricter there
        return ""
    todo = [(found, known)]
    for _ in range(STEPS):
        if not todo:
            return ""
        mine, its = todo.pop()
        if isinstance(mine, Array):
            mine = mine.values
            if mine is not None and not (
                isinstance(its, np.ndarray) and its.dtype == np.uint8 and np.array_equal(mine, its)
            ):
                return "another array"
        elif isinstance(mine, dict):
            if not isinstance(its, dict) or list(mine) != list(its):
                return "another dict"
            todo += zip(mine.values(), its.values(), strict=True)
        elif isinstance(mine, list | tuple):
            if type(mine) is not type(its) or len(mine) != len(its):
                return "another list"
            todo += zip(mine, its, strict=True)
        elif isinstance(mine, bytes | memoryview):
            if not isinstance(its, bytes | bytearray) or bytes(mine) != bytes(its):
                return f"{its!r:.50} was read as bytes"
        elif isinstance(mine, str | int | None) and (type(mine) is not type(its) or mine != its):
            return f"{its!r:.50} was read as {mine!r:.50}"
    return ""


def run_case(data: bytes) -> tuple[str, str, float]:
    """("read" | "refused", what is wrong with that or "", seconds)."""
    global listening
    heard.clear()
    value, outcome, wrong = None, "read", ""
    started = time.process_time()
    listening = True
    try:
        value = read_pickle(data)
    except NotPlain as error:
        outcome, text = "refused", str(error)
        if not text.isprintable() or len(text) > 200:
            wrong = f"the message is {text!r:.300}"
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error!s:.200}"
    finally:
        listening = False
    seconds = time.process_time() - started
    if heard:
        wrong = f"audit events: {sorted(set(heard))}"
    if seconds > LIMIT_SECONDS:
        wrong = f"took {seconds:.1f} s"
    if outcome == "read" and not wrong and len(data) < 100_000:
        wrong = differs(value, data)
    return outcome, wrong, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    good = good_ones()
    for data in good:
        assert run_case(data)[:2] == ("read", ""), data
    printable("\0")  # it loads a codec of Python's the first time
    sys.addaudithook(listen)
    outcomes: collections.Counter[str] = collections.Counter()
    findings, slowest = [], 0.0
    started = time.monotonic()
    for number in range(options.first, options.first + options.cases):
        outcome, wrong, seconds = run_case(make_case(random.Random(f"{options.seed} {number}"), number, good))
        outcomes[outcome] += 1
        slowest = max(slowest, seconds)
        if wrong:
            findings.append(f"{number}: {wrong}")
            print(findings[-1], flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if memory > LIMIT_BYTES:
        findings.append(f"took {memory >> 20} MB")
    facts = {"seed": options.seed, "cases": options.cases, **outcomes, "findings": findings}
    facts |= {"slowest_s": round(slowest, 2), "peak_mb": memory >> 20, "wall_s": round(time.monotonic() - started)}
    print(json.dumps(facts, indent=2))
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
