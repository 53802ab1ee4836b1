"""A run folder belongs to one process, as long as that process lives and no longer."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from filelock import Timeout

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.storage.find_checkpoint import find_checkpoint
from cifarnet.storage.lock import file_lock, is_held
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import list_runs, newest_state

HOLD = """
import sys, time
from pathlib import Path
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.open_run import open_run
with RunFolder(Path(sys.argv[1])) as folder:
    folder.claim("theirs")
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def refused(path) -> str:
    with pytest.raises(Refused) as raised, RunFolder(path):
        pass
    return str(raised.value)


def free(path) -> bool:
    """Tried from a process of its own: within one the lock could be counted instead of taken."""
    code = "import sys; from cifarnet.storage.lock import file_lock; file_lock(__import__('pathlib').Path(sys.argv[1])).acquire(timeout=0)"
    return subprocess.run([sys.executable, "-c", code, path / ".lock"], stderr=subprocess.DEVNULL).returncode == 0


def test_a_second_process_is_refused_and_changes_nothing(holder, tmp_path):
    assert "another process is training there" in refused(tmp_path / "run")
    with pytest.raises(Refused, match="another process is training there"):  # not "there is no run to resume"
        open_run(tmp_path / "run", resume=True, overwrite=False)
    assert RunFolder(tmp_path / "run").is_of("theirs")


def test_a_killed_holder_leaves_the_folder_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path / "run") as folder:
        assert folder.is_of("theirs") and not folder.is_of("mine")


def test_the_job_is_that_of_the_last_claim(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.claim("a longer name")
        folder.claim("mine")
        assert folder.is_of("mine") and not folder.is_of("")
    with RunFolder(tmp_path / "run") as folder:
        assert folder.is_of("mine")
        folder.claim("")
        assert not folder.is_of("mine") and not folder.is_of("")


def test_a_worker_process_that_ends_does_not_free_it(tmp_path):
    """Workers of a DataLoader are forked while the run is held."""
    with RunFolder(tmp_path / "run"):
        worker = multiprocessing.get_context("fork").Process(target=sys.exit)
        worker.start()
        worker.join()
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert not free(tmp_path / "run")
    assert free(tmp_path / "run")


def test_a_refusal_inside_leaves_no_empty_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "run") as folder:
        folder.claim("mine")
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_in_one_line(tmp_path, monkeypatch, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = refused(tmp_path / "run")
    assert "its file system has no locks" in message and "`out`" in message and "\n" not in message


def test_the_lock_is_a_plain_file_and_no_link_is_followed(tmp_path):
    (tmp_path / "other").write_text("keep")
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink(tmp_path / "other", path)):
        place = tmp_path / make.__name__.strip("<>")
        place.mkdir()
        make(place / ".lock")
        said = refused(place)
        assert "its .lock cannot be used (it is a" in said and "not a plain file" in said
    assert (tmp_path / "other").read_text() == "keep"


def test_the_job_is_not_written_through_a_link(tmp_path):
    (tmp_path / "other").write_text("keep")
    with RunFolder(tmp_path / "run") as folder:
        (tmp_path / "run" / ".job").symlink_to(tmp_path / "other")
        with pytest.raises(Failed, match="a link, not a plain file"):
            folder.claim("mine")
        assert not folder.is_of("mine") and not folder.is_of("keep")
    assert (tmp_path / "other").read_text() == "keep"


def test_a_folder_in_the_place_of_the_job(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        (tmp_path / "run" / ".job").mkdir()
        for job in ("", "mine"):
            with pytest.raises(Failed, match="cannot be written"):
                folder.claim(job)


def test_a_held_lock_is_refused_at_once(holder, tmp_path):
    with pytest.raises(Timeout):
        file_lock(tmp_path / "run" / ".lock").acquire(timeout=0)


@pytest.fixture
def looked_at(tmp_path, monkeypatch):
    """tmp_path/run as another process looks whether it is held, and is done at the next moment."""
    (tmp_path / "run").mkdir()
    look = file_lock(tmp_path / "run" / ".lock").acquire(timeout=0).lock
    monkeypatch.setattr("time.sleep", lambda _: look.release())
    yield tmp_path / "run"
    assert not look.is_locked


def test_a_run_begins_while_another_process_lists_it(looked_at):
    with RunFolder(looked_at) as folder:
        folder.claim("ours")


def test_two_lists_at_once_do_not_take_each_other_for_a_training(looked_at):
    assert not is_held(looked_at / ".lock")


def test_refusals_name_the_arguments(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(Refused, match="leave `resume` out"):
        open_run(run, resume=True, overwrite=False)
    (run / "config.json").write_text(json.dumps(TrainConfig().to_dict()))
    with pytest.raises(Refused, match="add `overwrite`"):
        open_run(run, resume=False, overwrite=False)
    (run / "last.safetensors").touch()
    with pytest.raises(Refused, match=f"use `init_from={run / 'last.safetensors'}`"):
        open_run(run, resume=True, overwrite=False)


def begun(path, *records, epochs=3, about=None):
    """A folder as a run leaves it that wrote these records and no checkpoint."""
    path.mkdir(parents=True)
    more = {"run": about} if about else {}
    (path / "config.json").write_text(json.dumps(TrainConfig(epochs=epochs).to_dict() | more))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def without_checkpoint(path) -> str:
    with pytest.raises(Refused) as raised:
        find_checkpoint(path)
    return str(raised.value).removeprefix(f"{path}: ")


def test_why_a_folder_has_no_checkpoint(tmp_path):
    """No run, one in its first epoch, one that ended there, and one whose checkpoints were deleted."""
    (tmp_path / "photos").mkdir()
    assert without_checkpoint(tmp_path / "photos").startswith("is no run folder: it has neither a checkpoint nor")
    run = begun(tmp_path / "run")
    with RunFolder(run):
        assert without_checkpoint(run).startswith("holds no checkpoint yet; wait for the end of the first epoch")
    assert without_checkpoint(run).startswith("it stopped in its first epoch, before a checkpoint; train it again")
    RunFolder(run).state.write_bytes(b"")
    assert without_checkpoint(run).startswith("it stopped in its first epoch, before a checkpoint; resume it, or name")
    RunFolder(run).write_diverged("loss is nan", 1)
    assert without_checkpoint(run).startswith("it diverged in its first epoch, before a checkpoint; train it again")
    done = begun(tmp_path / "done", *({"epoch": epoch} for epoch in (1, 2, 3)))
    RunFolder(done).write_summary({"run": str(done)})
    assert without_checkpoint(done).startswith("its checkpoints are gone, after 3 of 3 epochs; train it again")
    RunFolder(done).state.write_bytes(b"")
    assert without_checkpoint(done).startswith("its checkpoints are gone, after 3 of 3 epochs; resume it, or name")


def test_the_best_model_of_a_run_is_taken_before_the_last(tmp_path):
    run = begun(tmp_path / "run")
    (run / "last.safetensors").touch()
    assert find_checkpoint(run) == run / "last.safetensors"
    (run / "best.safetensors").touch()
    assert find_checkpoint(run) == run / "best.safetensors"


def test_what_is_replaced_leaves_no_note_that_it_diverged(tmp_path):
    run = RunFolder(begun(tmp_path / "run"))
    run.write_diverged("loss is nan", 1)
    run.clear()
    assert not run.diverged.exists() and list(run.path.iterdir()) == []


def test_a_run_goes_on_where_the_training_state_is_the_youngest(tmp_path):
    for name, when in (("a", 1000), ("b", 3000), ("c", 2000)):
        state = RunFolder(begun(tmp_path / "runs" / name)).state
        state.touch()
        os.utime(state, (when, when))
    begun(tmp_path / "runs" / "d")
    assert newest_state().name == "b"


def test_runs_are_listed_from_the_oldest_to_the_newest(tmp_path):
    for name, day in (("a", 3), ("b", 1), ("c", 2)):
        begun(tmp_path / name, about={"started": f"2026-01-0{day}T00:00:00+00:00"})
    assert [facts.name for facts in list_runs(tmp_path)[0]] == ["b", "c", "a"]


def test_the_listed_accuracy_is_that_of_the_last_epoch(tmp_path):
    begun(tmp_path / "run", *({"epoch": n, "test_accuracy": a} for n, a in ((1, 0.5), (2, 0.7), (3, 0.6))))
    (listed,), _ = list_runs(tmp_path)
    assert listed.accuracy == 0.6 and listed.epochs_done == 3


def test_a_run_that_goes_on_past_its_summary_is_not_finished(tmp_path):
    """Three epochs were done and summed up; now five are asked for, and it was stopped in the fifth."""
    run = begun(tmp_path / "run", *({"epoch": epoch} for epoch in (1, 2, 3, 4)), epochs=5)
    RunFolder(run).write_summary({"epochs": 3})
    assert [facts.state for facts in list_runs(tmp_path)[0]] == ["stopped"]


def test_a_run_named_for_a_folder_of_runs_is_listed_itself(tmp_path):
    begun(tmp_path / "one", {"epoch": 1})
    (listed,), warnings = list_runs(tmp_path / "one")
    assert (listed.name, listed.path, listed.epochs_done, warnings) == ("one", str(tmp_path / "one"), 1, [])
    assert list_runs(tmp_path)[0] == [listed]
    (tmp_path / "empty").mkdir()
    assert list_runs(tmp_path / "empty") == ([], [])


def test_a_listed_accuracy_of_six_views_says_so(tmp_path):
    """A finished run's summary knows; one that was stopped is measured as its options ask, on so many views as its last line says."""
    done = {"tta": True, "views": 6, "test": {"accuracy": 0.5}}
    kinds = [("old", True, {}, {}), ("many-classes", True, {"tta": False}, {}), ("plain", False, {}, {})]
    kinds += [("stopped", True, {}, {"views": 6}), ("without-effect", True, {}, {"views": 1}), ("done", True, done, {})]
    for name, asked, summary, views in kinds:
        begun(tmp_path / name, {"epoch": 1, "test_accuracy": 0.5} | views)
        (tmp_path / name / "config.json").write_text(json.dumps(TrainConfig(tta=asked).to_dict()))
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    assert {facts.name: (facts.tta, facts.views) for facts in list_runs(tmp_path)[0]} == {
        "old": (True, None),
        "many-classes": (False, None),
        "plain": (False, None),
        "stopped": (True, 6),
        "without-effect": (False, 1),
        "done": (True, 6),
    }


@pytest.mark.parametrize("trouble", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError()])
def test_tidying_up_hides_no_error(tmp_path, monkeypatch, trouble):
    """Out of memory, the folder cannot be listed either; the lock is given back all the same."""

    def fail(self):
        raise trouble

    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError, match="not enough memory"), folder:
        monkeypatch.setattr(RunFolder, "own_files", fail)
        raise RuntimeError("not enough memory")
    with RunFolder(tmp_path / "run"):
        pass
