"""The run folder: its files, its name and its lock."""

import contextlib
import errno
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.core.later_version import refuse_later_options
from cifarnet.core.plain_file import check_within, read_text
from cifarnet.storage.atomic import OURS, append, cannot_write, sweep_temporaries, write_file
from cifarnet.storage.event_file import event_files
from cifarnet.storage.lock import NO_LOCKS, file_lock
from cifarnet.storage.run_files import ABOUT, read_json, split_config
from cifarnet.storage.safetensors_header import CHECKPOINT
from cifarnet.storage.sharded_file import existing, files_of, metadata_of

LOCK = ".lock"
DOTS = (LOCK, ".job")  # of a folder that is held; no run yet


class RunFolder:
    """One run's folder, held by this process alone between `with RunFolder(path):` and its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.json", path / "metrics.jsonl"
        self.last, self.best = path / "last.safetensors", path / "best.safetensors"
        self.state, self.summary = path / "state.safetensors", path / "summary.json"
        self.predictions, self.diverged = path / "predictions.csv", path / "diverged.json"
        self.events = path / "tensorboard"
        self._job = path / ".job"
        self._lock: FileLock | None = None
        self._place: tuple[int, int] | None = None
        self._log_is_behind = False

    def own_files(self) -> list[Path]:
        """The files that a run writes and that are there."""
        mine = [self.config, self.metrics, self.last, self.best, self.state, self.summary, self.predictions]
        mine.append(self.diverged)
        sets = [file for path in (self.last, self.best, self.state) for file in files_of(path)]
        return [path for path in mine if path.exists()] + sets + event_files(self.events)

    @property
    def checkpoint(self) -> Path | None:
        """The model of this run: the best, else the last.

        Raises:
            Refused: it is a link that leads out of the folder.
        """
        found = existing(self.best) or existing(self.last)
        return self.checked(found) if found else None

    @property
    def has_checkpoint(self) -> bool:
        """Is there a model, wherever its file leads?"""
        return bool(existing(self.best) or existing(self.last))

    @property
    def written_state(self) -> float:
        """When the training state was written, in seconds since 1970; 0 where there is none."""
        found = existing(self.state)
        return found.stat().st_mtime if found else 0.0

    def checked(self, path: Path) -> Path:
        """`path`, a file of this run. Raises Refused where it is a link that leads out of the folder."""
        try:
            check_within(path, self.path)
        except OSError as error:
            raise Refused(str(path), f"cannot be used ({error.strerror})", "name the file itself") from error
        return path

    def is_run(self) -> bool:
        """True where a run of ours is here: its configuration, or a file of weights, is what cifarnet writes."""
        with contextlib.suppress(Refused):
            return bool(self.read_config())
        for path, kind in ((self.state, "state"), (self.last, "model"), (self.best, "model")):
            with contextlib.suppress(Refused):
                if found := existing(path):
                    return bool(metadata_of(found, CHECKPOINT, kind))
        return False

    def holds_others(self) -> bool:
        """True where files lie here that are neither a run nor what an unfinished start leaves."""
        if not self.path.is_dir() or self.is_run():
            return False
        return any(entry.name not in DOTS and not OURS.fullmatch(entry.name) for entry in self.path.iterdir())

    def __enter__(self) -> "RunFolder":
        """Makes the folder, checks that it can be written, and takes its lock.

        Raises:
            Refused: a file is in the way, the folder cannot be written, another process trains there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = file_lock(self.path / LOCK)
            self._lock.acquire(timeout=1)  # another may be looking whether it is held, for a moment
            sweep_temporaries(self.path)
            tempfile.TemporaryFile(dir=self.path).close()  # an old lock may be writable in a folder that is not
        except Timeout as error:
            raise Refused(
                str(self.path), "another process is training there", "wait for it, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno in NO_LOCKS:
                why, fix = "its file system has no locks", "choose another `out`, on a disk of this machine"
            else:
                what = "its .lock cannot be used" if error.errno == errno.EINVAL else "cannot be written"
                why, fix = f"{what} ({error.strerror})", "choose another `out`"
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
                    (self.path / LOCK).unlink()
                    self.path.rmdir()
        finally:
            self._lock.release()

    def remember_place(self) -> None:
        """Notes which folder it is that stands at this path, whose lock this process holds, for `check_held`."""
        self._place = self._lock_inode()

    def check_held(self) -> None:
        """Called before each write: the folder at this path is still the one whose place was noted.

        Raises:
            Failed: it was moved or removed, and perhaps another run has taken its place.
        """
        if self._place is not None and self._lock_inode() != self._place:
            fix = "nothing more is written there; go on with the moved folder by `resume`"
            raise Failed(str(self.path), "was moved, removed or replaced while this run trained in it", fix)

    def _lock_inode(self) -> tuple[int, int] | None:
        try:
            status = (self.path / LOCK).stat(follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def claim(self, job: str) -> None:
        """Notes beside the lock, which this process holds, who trains here (see `launcher.job`).

        Raises:
            Failed: the note cannot be written.
        """
        if job:
            write_file(self._job, job.encode())
            return
        try:
            self._job.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self._job, error) from error

    def is_of(self, job: str) -> bool:
        """True where the last run in this folder was begun by `job`."""
        try:
            return bool(job) and read_text(self._job, within=self.path) == job
        except OSError:
            return False

    def clear(self) -> None:
        """Removes what an earlier run left (and nothing else), for `overwrite`. Raises Failed where that cannot be."""
        for path in self.own_files():
            try:
                path.unlink()
            except OSError as error:
                why = f"cannot be removed ({error.strerror})"
                raise Failed(str(path), why, "remove it, or choose another `out`") from error
        with contextlib.suppress(OSError):  # a user's files in it stay, and so does it
            self.events.rmdir()

    def write_config(self, config: TrainConfig, about: Mapping[str, str]) -> None:
        """Writes config.json: the options, and beside them `about` (see `read_about`)."""
        self._write_json(self.config, config.to_dict() | {ABOUT: dict(about)})

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json."""
        self._write_json(self.summary, summary)

    def write_diverged(self, why: str, epoch: int) -> None:
        """Notes that training diverged, for the list of runs; a resume takes the note away."""
        self._write_json(self.diverged, {"why": why, "epoch": epoch})

    def _write_json(self, path: Path, document: Any) -> None:
        self.check_held()
        write_file(path, (json.dumps(document, indent=2) + "\n").encode())

    def read_config(self) -> TrainConfig:
        """The configuration of the run that is in this folder.

        Raises:
            Refused: none is there, it is broken, or of a later cifarnet.
        """
        values = self._read_config()[0]
        refuse_later_options(values, str(self.config))
        return TrainConfig.from_dict(values, str(self.config))

    def read_about(self) -> dict[str, str]:
        """How the run was begun: recipe, command, started (UTC, ISO 8601), data_digest; {} for a run of version 0.1."""
        return self._read_config()[1]

    def _read_config(self) -> tuple[Any, dict[str, str]]:
        return split_config(read_json(self.config, "name a run folder of cifarnet train", within=self.path))

    def log(self, history: list[dict[str, Any]]) -> str | None:
        """Adds the last record to metrics.jsonl, or writes all of them again where an earlier one did not get there.

        Where the disk does not take it, training goes on; the first time, a warning is returned.
        """
        try:
            if self._log_is_behind:
                self.rewrite_metrics(history)
            else:
                append(self.metrics, (json.dumps(history[-1]) + "\n").encode())
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
        self.check_held()
        write_file(self.metrics, "".join(json.dumps(record) + "\n" for record in history).encode())
