"""Run folders and outputs as a stranger or an accident may leave them: links, pipes, devices and damage in the place of files."""

import contextlib
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from mutate import damage

from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.core.plain_file import open_plain, read_bytes, read_text
from cifarnet.storage.find_checkpoint import find_checkpoint
from cifarnet.storage.open_run import open_run
from cifarnet.storage.output import check_output, free_name, write_output
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import list_runs

NOTES = b"a file of the user's"
NAMES = (
    "config.json", "metrics.jsonl", "summary.json", "state.safetensors", "last.safetensors", "best.safetensors",
    "last.safetensors.index.json", ".lock", ".job", "diverged.json", "confusion.png", "notes.txt", "frames",
)  # fmt: skip


def upset(path: Path, rng: random.Random, elsewhere: Path, files: list[bytes]) -> None:
    """Puts something else in the place of `path`: what a link may lead to lies in `elsewhere`."""
    with contextlib.suppress(OSError):
        path.unlink() if not path.is_dir() or path.is_symlink() else shutil.rmtree(path)
    targets = [
        elsewhere / "notes",
        elsewhere,
        elsewhere / "gone",
        Path("/dev/zero"),
        Path("/dev/null"),
        path,
        Path(".."),
    ]
    kind = rng.choice(
        ("link", "link", "hard link", "pipe", "socket", "folder", "empty", "damage", "damage", "sparse", "gone")
    )
    if kind == "link":
        path.symlink_to(rng.choice(targets))
    elif kind == "hard link":
        path.hardlink_to(elsewhere / "notes")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(rng.choice((1 << 20, 1 << 40)))
    elif kind == "damage":
        path.write_bytes(damage(rng.choice(files), rng, files))
    elif kind == "empty":
        path.touch()


def guarded(place: Path, may_add: bool = False) -> Callable[[], None]:
    """Makes a folder of the user's beside the case's; what is returned checks that nothing in it has changed.

    Args:
        may_add: a new file is allowed: the user named a path that leads there.
    """
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes").write_bytes(NOTES)

    def check() -> None:
        names = ["notes"] if may_add else os.listdir(elsewhere)
        found = {name: (elsewhere / name).read_bytes() for name in names}
        if found != {"notes": NOTES}:
            raise AssertionError(f"a file of the user's was changed: {found}")

    return check


def folder_cases(whole: Path, files: list[bytes]) -> list[Callable[[random.Random, Path], None]]:
    """The cases `run_folder`, `reader` and `writer`, on copies of the run in `whole`."""

    def run_folder(rng: random.Random, place: Path) -> None:
        check, folder = guarded(place), place / "run"
        folder.mkdir()
        for name in NAMES:
            if (whole / name).is_file() and rng.random() < 0.8:
                shutil.copy(whole / name, folder / name)
        for name in rng.sample(NAMES, rng.randint(1, 4)):
            upset(folder / name, rng, place / "elsewhere", files)
        refused = None
        for work in (use, read, train_in):
            try:
                work(folder, rng)
            except CifarnetError as error:
                refused = error
            check()
        if refused:
            raise refused

    def reader(rng: random.Random, place: Path) -> None:
        check = guarded(place)
        upset(place / "file", rng, place / "elsewhere", files)
        try:
            with open_plain(place / "file", rng.choice((None, place, place / "elsewhere"))) as file:
                file.read(100)
            read_bytes(place / "file", 1 << 20), read_text(place / "file", 1 << 20, place)
        except OSError as error:
            raise Refused("file", str(error.strerror)) from error
        finally:
            check()

    def writer(rng: random.Random, place: Path) -> None:
        check, path = (
            guarded(place, may_add=True),
            place / rng.choice(("file", "x" * 300, "new/file", "file/under", "elsewhere/notes")),
        )
        if rng.random() < 0.8:
            upset(place / "file", rng, place / "elsewhere", files)
        before = path.lstat() if os.path.lexists(path) else None
        try:
            target = check_output(path, overwrite=False)
            if not target.exists() or not (target.is_fifo() or target.is_char_device()):  # a pipe waits for its reader
                write_output(target, NOTES)
                if target.read_bytes() != NOTES or (before and not path.is_symlink()):
                    raise AssertionError("what was written is not there, or something was replaced")
            (place / "elsewhere" / "gone").unlink(missing_ok=True)  # a link that led nowhere
        finally:
            check()
        if os.path.lexists(free_name(path)):
            raise AssertionError("the free name is taken")

    return [run_folder, reader, writer]


def use(folder: Path, rng: random.Random) -> None:
    """What eval and predict look for first."""
    find_checkpoint(folder)


def read(folder: Path, rng: random.Random) -> None:
    """What runs and report read."""
    list_runs(folder.parent)
    run = RunFolder(folder)
    run.read_config(), run.read_about(), run.own_files(), run.is_run(), run.holds_others()
    if run.metrics.exists():
        read_metrics(run.metrics)


def train_in(folder: Path, rng: random.Random) -> None:
    """What train does with a folder before its first step, and with its small files after it."""
    with open_run(folder, resume=rng.random() < 0.5, overwrite=rng.random() < 0.7) as run:
        run.remember_place()
        run.claim(rng.choice(("", "job")))
        config = run.read_config() if rng.random() < 0.5 else None
        if rng.random() < 0.5:
            run.clear()
        if config is not None:
            run.write_config(config, {"recipe": "report"})
        run.write_summary({"test": {}})
        run.log([{"epoch": 1}])
        run.rewrite_metrics([{"epoch": 1}])
        run.check_held()
