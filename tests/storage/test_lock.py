"""The lock on a run folder: one process at a time, freed by any death, never a file of somebody else's."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from filelock import Timeout

from cifarnet.core.errors import Refused
from cifarnet.storage.lock import file_lock
from cifarnet.storage.run_folder import RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from cifarnet.storage.lock import file_lock
lock = file_lock(Path(sys.argv[1]))
lock.acquire(timeout=0)
print("held", flush=True)
time.sleep(60)
"""


def test_another_process_holds_it_until_it_is_killed(tmp_path):
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Timeout):
        file_lock(path).acquire(timeout=0)
    with pytest.raises(Refused, match="another process is training there"), RunFolder(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with file_lock(path).acquire(timeout=0):
        pass


def test_a_forked_process_does_not_give_it_back(tmp_path):
    """As the workers of a loader are, which end while training goes on."""
    lock = file_lock(tmp_path / ".lock")
    with lock.acquire(timeout=0):
        worker = multiprocessing.get_context("fork").Process(target=lambda: None)
        worker.start()
        worker.join()
        with pytest.raises(Timeout):
            file_lock(tmp_path / ".lock").acquire(timeout=0)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "folder"])
def test_what_is_not_a_lock_is_left_alone(tmp_path, kind):
    """FAULTS: a `.lock` that was a link had emptied the file that it pointed to."""
    notes, path = tmp_path / "notes.txt", tmp_path / "run" / ".lock"
    notes.write_text("mine")
    path.parent.mkdir()
    make = {"symlink": lambda: path.symlink_to(notes), "hard link": lambda: path.hardlink_to(notes)}
    make |= {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir}
    make[kind]()
    with pytest.raises(Refused, match="is not a plain file of its own"), RunFolder(path.parent):
        pass
    assert notes.read_text() == "mine" and os.path.lexists(path)


def test_the_job_is_remembered_beside_the_lock(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.claim("job 7")
        assert folder.is_of("job 7") and not folder.is_of("job 8") and not folder.is_of("")
    with RunFolder(tmp_path) as folder:
        assert RunFolder(tmp_path).is_of("job 7")
        folder.claim("")
    assert not RunFolder(tmp_path).is_of("job 7")
