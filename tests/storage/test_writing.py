"""One writer: whole or not at all, random names that follow no link, and nothing replaced that is not a plain file."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from cifarnet.core.errors import Failed, Refused
from cifarnet.storage import atomic
from cifarnet.storage.atomic import (
    append,
    cannot_write,
    fill_folder,
    move_folder,
    point_link,
    replacing,
    resuming,
    sweep_temporaries,
    write_file,
    write_new,
)
from cifarnet.storage.new_folder import new_folder, sweep_folders
from cifarnet.storage.output import check_output, free_name, write_output


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    write_file(tmp_path / "a", b"one", memoryview(b"two"))
    write_file(tmp_path / "a", b"three")
    assert (tmp_path / "a").read_bytes() == b"three" and os.listdir(tmp_path) == ["a"]


def test_the_temporary_name_is_not_to_be_guessed_and_follows_no_link(tmp_path, monkeypatch):
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    names = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: next(names))
    (tmp_path / f".cifarnet-{'0' * 16}.tmp").symlink_to(victim)  # even where somebody had guessed it
    with pytest.raises(Failed, match="File exists"):
        write_file(tmp_path / "a", b"ours")
    assert victim.read_text() == "mine" and not (tmp_path / "a").exists()
    monkeypatch.undo()
    seen = set()
    for _ in range(3):
        with replacing(tmp_path / "b"):
            seen |= {name for name in os.listdir(tmp_path) if name.startswith(".cifarnet-")}
    assert len(seen) == 3


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "device", "folder"])
def test_what_is_no_plain_file_is_not_replaced(tmp_path, kind):
    path, notes = tmp_path / "a", tmp_path / "notes"
    notes.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("needs the right to make a device")
    else:
        path.symlink_to(notes if kind == "link" else tmp_path / "nowhere")
    before = path.lstat()
    with pytest.raises(Failed, match="not a plain file"):
        write_file(path, b"ours")
    with pytest.raises(OSError):
        append(path, b"ours")
    assert path.lstat().st_ino == before.st_ino and path.lstat().st_mode == before.st_mode
    assert notes.read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_a_second_name_of_the_users_file_does_not_grow(tmp_path):
    """Replaced as a whole the other name keeps what it had; added to, it would not."""
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "log").hardlink_to(tmp_path / "notes")
    with pytest.raises(OSError, match="second name"):
        append(tmp_path / "log", b"ours")
    write_file(tmp_path / "log", b"ours")
    append(tmp_path / "log", b" more")
    assert (tmp_path / "notes").read_text() == "mine" and (tmp_path / "log").read_bytes() == b"ours more"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_file(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The calls to the system, in their order: what a log, a download and a new folder of files say to the disk."""
    done = []
    for name in ("fsync", "replace", "rename", "sync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: (done.append(name), real(*given))[1])
    append(tmp_path / "log", b"a line")
    assert done == ["fsync"]
    done.clear()
    with resuming(tmp_path / "archive") as file:
        file.write(b"downloaded")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, its folder
    done.clear()
    (tmp_path / "made").mkdir()
    write_new(tmp_path / "made" / "a", b"one of many")
    fill_folder(tmp_path / "made", tmp_path / "place")
    assert done[0] == "sync" and (tmp_path / "place" / "a").read_bytes() == b"one of many"


def test_only_names_of_our_own_are_swept(tmp_path):
    theirs = [".report.123.tmp", "x.tmp", ".cifarnet-notes.tmp", ".cifarnet-0123456789ABCDEF.tmp"]
    for name in [*theirs, ".cifarnet-0123456789abcdef.tmp"]:
        (tmp_path / name).write_text("x")
    sweep_temporaries(tmp_path, older_than=60)
    assert len(os.listdir(tmp_path)) == 5
    sweep_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(theirs)


@pytest.mark.parametrize("write", [lambda at: write_file(at / "a", b"x"), lambda at: point_link(at / "a", "b")])
def test_every_writer_sweeps_what_has_lain_in_its_folder_for_a_day(tmp_path, write):
    old, young = (tmp_path / f".cifarnet-{number:016x}.tmp" for number in range(2))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [young.name, "a"]  # the young one may belong to a process at work


KILLED = """
import os, signal, sys
from pathlib import Path
from cifarnet.storage.atomic import write_file
from cifarnet.storage.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    write_file(folder / "a", b"half")
    if sys.argv[2] == "wait":
        print(folder.name, flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_of_a_killed_process_is_swept_and_one_at_work_is_not(tmp_path):
    (tmp_path / "photos.part").mkdir()  # a user's
    # Of one that was killed before its folder was made, or once it was moved.
    (tmp_path / f".cifarnet-{0:016x}.lock").touch()
    command = [sys.executable, "-c", KILLED, tmp_path]
    assert subprocess.run([*command, "at once"], check=False).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3  # a folder with its lock
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        name = other.stdout.readline().strip()
        with new_folder(tmp_path) as folder:
            assert sorted(path.name for path in tmp_path.glob("*.part")) == sorted([name, folder.name, "photos.part"])
            (folder / "b").write_bytes(b"whole")
            move_folder(folder, tmp_path / "made")
        assert (tmp_path / name / "a").exists()
        other.communicate()
    sweep_folders(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["made", "photos.part"]
    assert os.listdir(tmp_path / "made") == ["b"]


def test_the_error_names_what_helps(tmp_path):
    def said(number):
        return str(cannot_write(tmp_path / "a", OSError(number, os.strerror(number))))

    assert "free some space" in said(errno.ENOSPC) and "free some space" not in said(errno.EACCES)
    assert "its folder is gone" in said(errno.ENOENT)


def test_a_link_of_ours_is_moved_and_nothing_else(tmp_path):
    point_link(tmp_path / "latest", "one")
    point_link(tmp_path / "latest", "two")
    assert os.readlink(tmp_path / "latest") == "two"
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file"):
        point_link(tmp_path / name, "two")
        assert not (tmp_path / name).is_symlink()


def test_an_output_that_is_there_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(Refused, match="is there already; add `overwrite`"):
        check_output(path)
    write_output(check_output(path, overwrite=True), b"ours")
    assert path.read_bytes() == b"ours"


def test_an_output_through_a_link_goes_where_it_leads(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "real" / "out.csv")
    write_output(check_output(link), b"ours")
    assert link.is_symlink() and (tmp_path / "real" / "out.csv").read_bytes() == b"ours"
    with pytest.raises(Refused, match="is there already"):
        check_output(link)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(Refused, match="cannot be written"):
        check_output(tmp_path / "circle")


def test_an_output_into_a_device_and_a_pipe(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    write_output(check_output(tmp_path / "null"), b"ours")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_output(check_output(tmp_path / "pipe"), b"ours")
    reader.join(10)
    assert got == [b"ours"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_output_that_can_be_nowhere(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "file" / "a", "is not a folder|Not a directory")):
        with pytest.raises(Refused, match=why):
            check_output(path, overwrite=True)
    with pytest.raises(Refused, match="cannot be written"):
        check_output(tmp_path / ("x" * 300))
    write_output(check_output(tmp_path / "new" / "folder" / "a"), b"ours")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"ours"


def test_results_without_a_name_get_a_free_one(tmp_path):
    assert free_name(tmp_path / "a.png").name == "a.png"
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "a-2.png").write_text("x")
    assert free_name(tmp_path / "a.png").name == "a-3.png"
