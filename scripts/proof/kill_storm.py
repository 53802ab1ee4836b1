"""Kills training at random moments, resumes it, and compares the end with a run that was left alone, bit for bit.

    OMP_NUM_THREADS=1 python scripts/proof/kill_storm.py --kills 40 --json docs/results/kill_storm.json

For each loss (adaface and curricularface carry a state of their own) and each signal (kill -9 and SIGTERM), digits are
trained with AutoAugment, a running average, a validation split and a checkpoint every 3 steps. A third of the kills
wait until a checkpoint is being written, a third until the model is being measured. Killed are real processes: each is forked from this one, which has imported
everything, so that no time goes into starting Python. Takes about 4 minutes for 240 kills on one core.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import cifarnet.cli.watcher  # noqa: F401 (imported here once, not in each child)
from cifarnet.cli import run
from cifarnet.engine import validate

OPTIONS = (
    "--arch baseline --dataset digits --batch-size 64 --augment autoaugment --ema 0.95 --val-fraction 0.1 "
    "--checkpoint-every 3 --lr 3e-3 --precision fp32 --device cpu -q"
)
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
TIMES = ("seconds", "images_per_second")  # the only figures of a run that may differ
PAUSE = 0.03  # seconds that a batch of an evaluation takes more
PATIENCE = 120  # seconds for one process


def start(folder: Path, loss: str, epochs: int) -> int:
    """Forks a process that trains in `folder`, or resumes there; returns its id."""
    resume = (folder / "state.safetensors").exists()
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        again = (
            ["--resume", "-q"] if resume else [*OPTIONS.split(), "--epochs", str(epochs), "--loss", loss, "--overwrite"]
        )
        mark_evaluations(evaluating(folder))
        os._exit(run(["train", "--out", str(folder), *again]))
    return child


def evaluating(folder: Path) -> Path:
    """The mark that is there while the model of a run is measured."""
    return folder.with_name(f"{folder.name}.evaluating")


def mark_evaluations(mark: Path) -> None:
    """Makes each evaluation of this process leave a mark while it lasts, and take a while for each batch."""
    measure = validate.collect_logits

    def slowly(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            time.sleep(PAUSE)
            yield batch

    def marked(model: Any, batches: Iterable[Any], *options: Any) -> Any:
        mark.touch()
        try:
            return measure(model, slowly(batches), *options)
        finally:
            mark.unlink()

    validate.collect_logits = marked


def ended(child: int, wait: bool = False) -> int | None:
    """The exit code of a child (minus the signal that killed it), or None while it runs."""
    found, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def writing(folder: Path) -> bool:
    """Whether a file is being written in `folder`, or was when its writer was killed."""
    return any(name.endswith(".tmp") for name in (os.listdir(folder) if folder.exists() else []))


def strike(child: int, folder: Path, number: int, rng: random.Random) -> tuple[int, bool, bool]:
    """Sends the signal at a random moment, within a write, or within an evaluation.

    Returns:
        the exit code, whether a write was cut off, and whether an evaluation was.
    """
    moment = time.monotonic() + rng.uniform(0.0, 1.0)
    kind = rng.choice(("anywhere", "write", "evaluation"))
    in_write, mark = kind == "write", evaluating(folder)
    limit = time.monotonic() + PATIENCE
    while (code := ended(child)) is None:
        now = time.monotonic()
        if now > limit:
            raise TimeoutError(f"process {child} does not end")
        if now > moment and (kind == "anywhere" or (writing(folder) if in_write else mark.exists())):
            time.sleep(0 if kind == "anywhere" else rng.uniform(0, 0.002 if in_write else PAUSE))
            measured = mark.exists()
            os.kill(child, number)
            code = ended(child, wait=True) or 0
            mark.unlink(missing_ok=True)
            return code, writing(folder), measured
        time.sleep(0.0002 if in_write else 0.002)
    return code, False, False


def differences(whole: Path, broken: Path) -> list[str]:
    """What differs between two finished runs, times aside: tensors, progress, every line of metrics.jsonl, scores."""
    found = []
    for name in ("state.safetensors", "last.safetensors", "best.safetensors"):
        one, two = load_file(whole / name), load_file(broken / name)
        if one.keys() != two.keys() or not all(torch.equal(one[key], two[key]) for key in one):
            found.append(f"tensors of {name}")
        if details(whole / name) != details(broken / name):
            found.append(f"metadata of {name}")
    lines = [[timeless(json.loads(line)) for line in (folder / "metrics.jsonl").open()] for folder in (whole, broken)]
    if lines[0] != lines[1]:
        found.append("lines of metrics.jsonl")
    scores = [json.loads((folder / "summary.json").read_text())["test"] for folder in (whole, broken)]
    if scores[0] != scores[1]:
        found.append("scores in summary.json")
    if writing(broken):
        found.append("temporary files are left")
    return found


def details(path: Path) -> Any:
    """The metadata of a checkpoint without times."""
    with safe_open(path, framework="pt") as file:
        texts = file.metadata()
    return {key: timeless(json.loads(text)) if text.startswith("{") else text for key, text in texts.items()}


def timeless(value: Any) -> Any:
    """`value` without the entries that are times, at any depth."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def storm(folder: Path, loss: str, name: str, kills: int, epochs: int, rng: random.Random) -> dict[str, Any]:
    """Runs until `kills` signals have ended a process; every run that reaches its end is compared."""
    whole, broken = folder / "whole", folder / "broken"
    if ended(start(whole, loss, epochs), wait=True) != 0:
        raise RuntimeError(f"the run that is left alone failed ({loss})")
    result: dict[str, Any] = {
        "loss": loss,
        "signal": name,
        "kills": 0,
        "in_a_write": 0,
        "in_an_evaluation": 0,
        "runs": 0,
        "differences": [],
    }
    expected = -SIGNALS[name] if name == "SIGKILL" else 128 + SIGNALS[name]
    while result["kills"] < kills or broken.exists():
        child = start(broken, loss, epochs)
        if result["kills"] < kills:
            code, cut_off, measured = strike(child, broken, SIGNALS[name], rng)
        else:
            code, cut_off, measured = ended(child, wait=True) or 0, False, False
        if code == 0:
            result["runs"] += 1
            result["differences"] += differences(whole, broken)
            broken.rename(folder / f"broken-{result['runs']}")
        elif code == expected:
            result["kills"] += 1
            result["in_a_write"] += cut_off
            result["in_an_evaluation"] += measured
        else:
            result["differences"].append(f"exit code {code}")
            break
    return result


def main() -> int:
    """Runs the storms, prints and writes the figures, and returns 1 where anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="for each loss and signal")
    parser.add_argument("--epochs", type=int, default=4, help="of each run")
    parser.add_argument("--losses", nargs="+", default=["ce", "adaface", "curricularface"])
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=list(SIGNALS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=lambda name: Path(name).absolute())
    options = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    rows = []
    for loss in options.losses:
        for name in options.signals:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                started = time.monotonic()
                row = storm(
                    Path(folder),
                    loss,
                    name,
                    options.kills,
                    options.epochs,
                    random.Random(f"{options.seed}/{loss}/{name}"),
                )
                rows.append(row | {"seconds": round(time.monotonic() - started, 1)})
                os.chdir("/")
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 1 if any(row["differences"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
