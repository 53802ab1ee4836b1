"""A run of a study: trained to its end from where it stands, under a budget of time, and the facts that its JSON states."""

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import torch

from cifarnet.cli.common import messages
from cifarnet.cli.watcher import TerminalWatcher
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name
from cifarnet.core.errors import Refused, plural
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset, pixels_of
from cifarnet.engine.fit import fit
from cifarnet.engine.same_run import load_config
from cifarnet.engine.train_state import TrainState
from cifarnet.storage.atomic import write_file
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.head_timing import processor

OUT_OF_TIME = int(signal.SIGTERM)  # what a spent budget counts as
# What runs of one cell may differ in: the seed's, the machine's.
FREE = ("seed", "data_dir", "precision", "device", "workers")


class Budget(StopRequest):
    """`with Budget(minutes) as stop:`; `stop.number` is set by a signal, and once the minutes are spent (None: no limit)."""

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__()
        self.minutes, self.spent, self.began = minutes, False, time.monotonic()
        self.timer = threading.Timer(60 * (minutes or 0), self._out_of_time)
        self.timer.daemon = True

    def __enter__(self) -> "Budget":
        super().__enter__()
        if self.minutes is not None:
            self.timer.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.timer.cancel()
        super().__exit__(kind, error, trace)

    def _out_of_time(self) -> None:
        self.spent = self.number is None
        self.number = self.number or OUT_OF_TIME

    @property
    def left(self) -> float:
        """Minutes that are left."""
        return float("inf") if self.minutes is None else self.minutes - (time.monotonic() - self.began) / 60

    @property
    def words(self) -> str:
        """Why the work was stopped, "by SIGINT"; "" where it was not."""
        if self.number is None:
            return ""
        return "the time is up" if self.spent else f"by {signal.Signals(self.number).name}"

    @property
    def exit_code(self) -> int:
        """0 at the end of the work or of the time, 128 + the signal's number after one."""
        return 0 if self.number is None or self.spent else 128 + self.number


class RunWatcher(TerminalWatcher):
    """The table of a run's training, under one line; it draws no figures."""

    def __init__(self, title: str) -> None:
        super().__init__(messages())
        self.title = title

    def announce(self, run: TrainState, folder: RunFolder) -> None:
        self.run = run
        self.console.say(f"{self.title}, {plural(run.config.epochs, 'epoch')} on {device_name(run.device)}")

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        self.summary = summary


def train_run(
    config: TrainConfig,
    path: Path,
    data: Dataset,
    title: str,
    stop: StopRequest,
    free: Sequence[str] = FREE,
) -> tuple[TrainState, dict[str, Any]]:
    """Trains in the run folder `path` to the end, from where it stands; returns the run and its summary.

    Args:
        free: what a run that is there may have otherwise than `config`.

    Raises:
        Refused: the run there has other values. Interrupted: the time is spent, or a signal came; the state is saved.
    """
    state = RunFolder(path).state
    if state.exists():
        saved = load_config(state)
        check_values(config, saved, state, free)
        config = saved
    watcher = RunWatcher(title)
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(path.parents[1]):  # whose runs/latest it becomes
        fit(config, path.resolve(), resume=state.exists(), overwrite=True, dataset=data, watcher=watcher, stop=stop)
    return watcher.run, watcher.summary


def check_values(mine: TrainConfig, made: TrainConfig, path: Path, free: Sequence[str] = FREE) -> None:
    """Refuses a result, or a run that is to go on, at `path` that was made with other values than the plan has now."""
    now, was = mine.to_dict(), made.to_dict()
    differ = [name for name in now if now[name] != was[name] and name not in free]
    if other := ", ".join(f"{name} {was[name]} (now {now[name]})" for name in differ):
        raise Refused(str(path), f"was made with {other}", "choose another folder, or remove it")


def check_pixels(found: dict[str, Any], data: Dataset, path: Path) -> None:
    """Refuses a result at `path` that was measured on other images: the JPEG copy's and the exact ones have no mean."""
    if found["data"] != pixels_of(data):
        raise Refused(str(path), f"was measured on {found['data']} (now {pixels_of(data)})", "choose another folder")


def facts_of(run: TrainState, summary: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Plain JSON values: how long a run took and on what, whose pixels and which data, and its configuration.

    seconds: of training alone.
    """
    return {
        "epochs": summary["epochs"],
        "seconds": summary["seconds"],
        **machine_facts(run.device, data),
        "precision": run.precision,
        "backend": run.backend,
        "data_digest": run.data.digest,
        "source_digest": run.data.source,
        "config": run.config.to_dict() | {"data_dir": None},
    }


def machine_facts(device: torch.device, data: Dataset) -> dict[str, Any]:
    """Plain JSON values. cores: threads of a CPU; processor: the CPU's or the GPU's name; data: whose pixels."""
    on_cpu, name = device.type == "cpu", device_name(device)
    return {
        "cores": torch.get_num_threads() if on_cpu else 0,
        "processor": processor() if on_cpu else name,
        "device": name,
        "data": pixels_of(data),
    }


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document as a whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(document, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON document of the study's own. Raises Refused where it is none."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise Refused(str(path), f"is no JSON ({error})", "remove it, and run again") from error


def core_minutes(result: dict[str, Any]) -> float:
    """Minutes of a core that a result's training took; of an old result that does not state its cores, of one."""
    return float(result["seconds"] * (result.get("cores") or 1) / 60)
