"""Feeds damaged files to everything that reads one: 100,000 cases, each of which succeeds or is refused in one line.

    python scripts/proof/fuzz.py --cases 100000 --seed 0 --seconds 280 --json docs/results/fuzz.json

A case fails on any other exception, on more than 2 seconds of work, on more than 1 GB of memory, and on the death of the process.
A case is a function of (seed, target, number): `--only image --first 1234 --cases 1 --debug` runs that one again, with
its traceback. With --json the figures of this seed are added to those of the other seeds in the file.
"""

import argparse
import contextlib
import faulthandler
import json
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from fuzz_targets import Case, targets

from cifarnet.core.errors import CifarnetError

LIMIT_SECONDS, LIMIT_BYTES = 2.0, 1 << 30
DEAD_AFTER = 20  # seconds after which a case that does not come back is killed


def run_case(case: Case, rng: random.Random, debug: bool) -> tuple[str, str | None]:
    """("read" | "refused", what is wrong with that, or None)."""
    before, started, outcome = memory(), time.process_time(), "read"
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        try:
            case(rng, Path(place))
        except CifarnetError as error:
            outcome = "refused"
            if "\n" in str(error):
                return outcome, f"the message has several lines: {str(error)[:200]!r}"
        except BaseException as error:
            if debug:
                traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            return (
                outcome,
                f"{type(error).__name__}: {str(error)[:200]!r} at {Path(where.filename).name}:{where.lineno}",
            )
    if (seconds := time.process_time() - started) > LIMIT_SECONDS:
        return outcome, f"took {seconds:.1f} s"
    if memory() - before > LIMIT_BYTES:
        return outcome, f"took {(memory() - before) >> 20} MB"
    return outcome, None


def memory() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_slice(
    cases: dict[str, Case], numbers: range, seed: int, deadline: float, shared: mmap.mmap, debug: bool
) -> None:
    """In a child process: one case after another, its number noted in `shared` before, its result on a line after."""
    warnings.simplefilter("ignore")
    names = list(cases)
    for number in numbers:
        if time.monotonic() > deadline:
            break
        name = names[number % len(names)]
        shared[:8] = number.to_bytes(8, "little")
        faulthandler.dump_traceback_later(DEAD_AFTER, exit=True)
        outcome, problem = run_case(cases[name], random.Random(f"{seed}/{name}/{number}"), debug)
        faulthandler.cancel_dump_traceback_later()
        os.write(RESULTS[1], (json.dumps([number, name, outcome, problem]) + "\n").encode())


RESULTS = os.pipe()


def in_children(cases: dict[str, Case], numbers: range, seed: int, seconds: float, debug: bool) -> list[list[Any]]:
    """Results of the cases; a case that kills its process is one, and the rest goes on in a new process."""
    deadline, results = time.monotonic() + seconds, []
    shared = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), RESULTS[1])
        while numbers and time.monotonic() < deadline:
            child = os.fork()
            if child == 0:
                run_slice(cases, numbers, seed, deadline, shared, debug)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == 0:
                break
            dead = int.from_bytes(shared[:8], "little")
            results.append([dead, list(cases)[dead % len(cases)], "died", f"the process ended with {status}"])
            numbers = range(dead + numbers.step, numbers.stop, numbers.step)
        log.seek(0)
        return results + [json.loads(line) for line in log]


def summary(results: list[list[Any]], seed: int, seconds: float) -> dict[str, Any]:
    """Counts by target, and the findings, the first case of each kind."""
    found: dict[str, dict[str, Any]] = {}
    for number, name, _, problem in results:
        if problem:
            row = found.setdefault(
                f"{name}: {problem.split(' at ')[-1]}", {"target": name, "case": number, "problem": problem, "cases": 0}
            )
            row["cases"] += 1
    by = {name: sum(1 for row in results if row[1] == name) for name in sorted({row[1] for row in results})}
    refused = sum(1 for row in results if row[2] == "refused")
    return {
        "seed": seed, "cases": len(results), "refused": refused, "targets": by, "findings": list(found.values()),
        "seconds": round(seconds, 1), "memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
    }  # fmt: skip


def main() -> int:
    """Runs the cases, prints the summary, and returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=280, help="stop after so long, done or not")
    parser.add_argument("--only", help="one target")
    parser.add_argument("--json", type=lambda name: Path(name).absolute(), help="add the summary to this file")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        cases = targets(Path(folder))
        numbers = range(options.first, options.first + options.cases)
        if options.only:  # a case's number decides its target: so many of these, from the first one on
            first = next(
                number
                for number in range(options.first, options.first + len(cases))
                if list(cases)[number % len(cases)] == options.only
            )
            numbers = range(first, first + len(cases) * options.cases, len(cases))
        results = in_children(cases, numbers, options.seed, options.seconds, options.debug)
    result = summary(results, options.seed, time.monotonic() - started)
    print(json.dumps(result, indent=2))
    if options.json:
        known = json.loads(options.json.read_text()) if options.json.exists() else []
        options.json.write_text(
            json.dumps([row for row in known if row["seed"] != options.seed] + [result], indent=2) + "\n"
        )
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main())
