"""The run folder: its files, its name and its lock."""

import contextlib
import itertools
import json
import os
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.storage.atomic import sweep_temporaries, write_file
from cifarnet.storage.lock import NO_LOCKS, file_lock
from cifarnet.storage.sharded_file import existing, files_of

RUNS = Path("runs")
LATEST = RUNS / "latest"


def next_folder(config: TrainConfig) -> Path:
    """Makes the next free runs/<arch>-<loss>-<dataset>-<n>; of two runs started at the same moment each gets its own.

    Raises:
        Refused: runs/ cannot be written.
    """
    stem = f"{config.arch}-{config.loss}-{config.dataset}-"
    taken = [int(found[1]) for path in RUNS.glob(f"{stem}*") if (found := re.fullmatch(r".*-(\d+)", path.name))]
    for number in itertools.count(max(taken, default=0) + 1):
        path = RUNS / f"{stem}{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise Refused(
                str(RUNS), f"cannot be written ({error.strerror})", "choose another folder with `out`"
            ) from error
    raise AssertionError  # count() has no end


class RunFolder:
    """One run's folder, held by this process alone between `with RunFolder(path):` and its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.json", path / "metrics.jsonl"
        self.last, self.best = path / "last.safetensors", path / "best.safetensors"
        self.state, self.summary = path / "state.safetensors", path / "summary.json"
        self.predictions = path / "predictions.csv"
        self._job = path / ".job"
        self._lock: FileLock | None = None
        self._log_is_behind = False

    def own_files(self) -> list[Path]:
        """The files that a run writes and that are there."""
        mine = [self.config, self.metrics, self.last, self.best, self.state, self.summary, self.predictions]
        sets = [file for path in (self.last, self.best, self.state) for file in files_of(path)]
        return [path for path in mine if path.exists()] + sets

    def __enter__(self) -> "RunFolder":
        """Makes the folder, checks that it can be written, and takes its lock.

        Raises:
            Refused: a file is in the way, the folder cannot be written, another process trains there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = file_lock(self.path / ".lock")
            self._lock.acquire(timeout=0)
            sweep_temporaries(self.path)
            tempfile.TemporaryFile(dir=self.path).close()  # an old lock may be writable in a folder that is not
        except Timeout as error:
            raise Refused(
                str(self.path), "another process is training there", "wait for it, or choose another `out`"
            ) from error
        except OSError as error:
            if error.errno in NO_LOCKS:
                why, fix = "its file system has no locks", "choose another `out`, on a disk of this machine"
            else:
                why, fix = f"cannot be written ({error.strerror})", "choose another `out`"
            raise Refused(str(self.path), why, fix) from error
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is None:
            return
        try:
            # Tidying up must not hide what went wrong: without memory the folder cannot even be listed.
            with contextlib.suppress(OSError, MemoryError):
                if error is not None and not self.own_files():  # refused before any work: leave no empty folder behind
                    self._job.unlink(missing_ok=True)
                    (self.path / ".lock").unlink()
                    self.path.rmdir()
        finally:
            self._lock.release()

    def claim(self, job: str) -> None:
        """Notes beside the lock, which this process holds, who trains here (see `distributed.job`).

        Raises:
            Failed: the note cannot be written.
        """
        if job:
            write_file(self._job, job.encode())
        else:
            self._job.unlink(missing_ok=True)

    def is_of(self, job: str) -> bool:
        """True where the last run in this folder was begun by `job`."""
        try:
            return bool(job) and self._job.read_text() == job
        except OSError:
            return False

    def clear(self) -> None:
        """Removes what an earlier run left (and nothing else), for `overwrite`."""
        for path in self.own_files():
            path.unlink()

    def write_config(self, config: TrainConfig) -> None:
        """Writes config.json."""
        write_file(self.config, (json.dumps(config.to_dict(), indent=2) + "\n").encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json."""
        write_file(self.summary, (json.dumps(summary, indent=2) + "\n").encode())

    def read_config(self) -> TrainConfig:
        """The configuration of the run that is in this folder.

        Raises:
            Refused: none is there, or it is broken.
        """
        return TrainConfig.from_dict(read_json(self.config, "name a run folder of cifarnet train"), str(self.config))

    def log(self, history: list[dict[str, Any]]) -> str | None:
        """Adds the last record to metrics.jsonl, or writes all of them again where an earlier one did not get there.

        Where the disk does not take it, training goes on; the first time, a warning is returned.
        """
        try:
            if self._log_is_behind:
                self.rewrite_metrics(history)
            else:
                with open(self.metrics, "a", encoding="utf-8") as file:
                    file.write(json.dumps(history[-1]) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            self._log_is_behind = False
        except (OSError, Failed) as error:
            known, self._log_is_behind = self._log_is_behind, True
            why = getattr(error, "strerror", error)
            return (
                None
                if known
                else f"{self.metrics}: cannot be written ({why}); training goes on, the training state keeps the line"
            )
        return None

    def rewrite_metrics(self, history: list[dict[str, Any]]) -> None:
        """Makes metrics.jsonl hold exactly these records: lines written after the checkpoint that is resumed are dropped."""
        write_file(self.metrics, "".join(json.dumps(record) + "\n" for record in history).encode())

    def mark_latest(self) -> None:
        """Points runs/latest at this run (nothing happens where links cannot be made)."""
        link = LATEST.with_name(".latest.tmp")
        try:
            RUNS.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(self.path.resolve(), RUNS.resolve()))
            os.replace(link, LATEST)
        except OSError:
            with contextlib.suppress(OSError):  # runs may be a file
                link.unlink()


def open_run(out: Path, *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder of a run that is about to train; enter it to hold it.

    Raises:
        Refused: it holds a run and neither resume nor overwrite is asked for, or there is nothing to resume.
    """
    folder = RunFolder(out)
    if out.is_file():
        fix = f"to start from its weights use `init_from={out}`" if resume else "choose another `out`"
        raise Refused(str(out), "is a file, not a run folder", fix)
    if resume and not existing(folder.state):
        if existing(folder.last):
            fix = f"to start from its weights use `init_from={existing(folder.last)}`"
            raise Refused(str(out), "has weights but no training state to resume", fix)
        if folder.own_files():  # killed before its first checkpoint
            raise Refused(str(out), "has no training state to resume yet", "use `overwrite` to start again")
        raise Refused(str(out), "there is no run to resume", "leave `resume` out to start one")
    if folder.own_files() and not (resume or overwrite):
        ways = "`resume` to continue it, or `overwrite` to start again" if existing(folder.state) else "`overwrite`"
        raise Refused(str(out), "already holds a run", f"add {ways}")
    return folder


def read_json(path: Path, fix: str) -> Any:
    """The JSON document in `path`.

    Raises:
        Refused: it cannot be read or is not JSON; `fix` says what to do.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Refused(str(path), "there is no such file", fix) from error
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(str(path), f"cannot be read ({error})", fix) from error


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a metrics.jsonl, and a warning for each line that is not one (a crash can cut the last short).

    Raises:
        Failed: the file cannot be read.
    """
    records, warnings = [], []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise Failed(str(path), f"cannot be read ({error.strerror})", "name a run folder") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
            records.append(record)
        except (ValueError, RecursionError):
            warnings.append(f"{path}: line {number} is not a record and is skipped")
    return records, warnings
