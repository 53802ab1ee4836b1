"""What was there before is there afterwards: links, devices, other people's files, and files of a run that came from a stranger."""

import json
import os
import shutil
import stat

import pytest
from PIL import Image
from test_faults import QUICK, contents, execute, one_line, trained  # noqa: F401 (a fixture)
from test_faults import command as program

ONE = [*QUICK.split(), "--epochs", "1", "--out", "run"]


@pytest.fixture
def notes(tmp_path):
    """A file of the user's, to which nothing may happen."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine" and not path.is_symlink()


@pytest.fixture
def run_folder(trained, tmp_path):  # noqa: F811
    """A copy of a run, as it may come from a stranger."""
    return shutil.copytree(trained / "one", tmp_path / "run")


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling"])
def test_a_lock_that_is_another_file_empties_nothing(cli, run_folder, notes, kind):
    (run_folder / ".lock").unlink(missing_ok=True)
    if kind == "hard link":
        (run_folder / ".lock").hardlink_to(notes)
    else:
        (run_folder / ".lock").symlink_to(notes if kind == "link" else "nowhere")
    one_line(cli("train", "--resume", "--epochs", 2, "--out", "run"), 2, "its .lock cannot be used")
    assert not (run_folder / "nowhere").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "summary.json", "last.safetensors", "state.safetensors"]
)
@pytest.mark.parametrize("kind", ["link out", "endless", "pipe", "dangling", "circle", "folder"])
def test_no_file_of_a_run_is_read_from_elsewhere_or_for_ever(cli, run_folder, notes, name, kind):
    path = run_folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link out": notes, "endless": "/dev/zero", "dangling": "nowhere", "circle": name}[kind])
    for line in (
        ("eval", "run"),
        ("predict", "--checkpoint", "run", "a.png"),
        ("visualize", "curves", "run"),
        ("report", "run", "--no-test"),
        ("runs", ".", "--json"),
        ("train", "--resume", "--epochs", 2, "-q", "--out", "run"),
        ("train", "--config", path, "--epochs", 1, "-q", "--out", "other"),
    ):
        code, _, err = cli(*line)
        assert code in (0, 1, 2) and "internal" not in err and "Traceback" not in err, (line, err)
    assert not (run_folder / "nowhere").exists()


def test_a_checkpoint_that_is_a_link_out_of_its_run_is_refused(cli, run_folder, trained):  # noqa: F811
    for name in ("last.safetensors", "state.safetensors"):
        (run_folder / name).unlink()
        (run_folder / name).symlink_to(trained / "one" / name)
    one_line(cli("eval", "run"), 2, "leads out of")
    one_line(cli("train", "--resume", "--epochs", 2, "--out", "run"), 2, "leads out of")
    code, _, _ = cli("eval", "run/last.safetensors")  # named by the user himself
    assert code == 0


@pytest.mark.parametrize("extra", [(), ("--overwrite",)])
def test_a_folder_that_holds_someones_files_is_no_run(cli, tmp_path, extra):
    home = tmp_path / "run"
    home.mkdir()
    names = ("confusion.png", "curves.png", ".a.tmp", ".last.safetensors.12.tmp", "report.md", "sphere.gif")
    for name in names:
        (home / name).write_text("mine")
    (home / "frames").mkdir()
    (home / "frames" / "00001.png").write_text("mine")
    (home / "config.json").write_text('{"someone": "else"}')
    before = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    one_line(cli(*ONE, *extra), 2, "holds files that are no run of cifarnet")
    assert {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_an_empty_out_is_refused(cli, tmp_path, notes):
    one_line(cli(*QUICK.split(), "--epochs", 1, "--out", "", "--overwrite"), 2, "--out")
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_runs_latest_is_the_newest_run_that_can_be_used(cli, tmp_path):
    assert cli(*QUICK.split(), "--epochs", 1)[0] == 0
    good = os.readlink("runs/latest")
    assert cli(*QUICK.split(), "--epochs", 3, "--optimizer", "sgd", "--lr", 1e6)[0] == 1
    assert os.readlink("runs/latest") == good
    code, out, err = cli("runs", "--json")
    states = [row["state"] for row in json.loads(out)]
    assert code == 0 and states == ["finished", "diverged"]
    code, _, err = cli("eval")
    assert code == 0 and "has no checkpoint (diverged)" in err


def test_a_hostile_run_beside_it_is_in_nobodys_way(cli, tmp_path, run_folder, notes):
    """A neighbour whose checkpoint is a link out of its folder: the newest run is used all the same."""
    (tmp_path / "runs").mkdir()
    run_folder.rename(tmp_path / "runs" / "mine")
    shutil.copytree(tmp_path / "runs" / "mine", tmp_path / "runs" / "theirs")
    (tmp_path / "runs" / "theirs" / "last.safetensors").unlink()
    (tmp_path / "runs" / "theirs" / "last.safetensors").symlink_to(notes)
    (tmp_path / "runs" / "latest").symlink_to("mine")
    code, _, err = cli("eval")
    assert code == 0 and err.startswith("runs/mine: "), err


def test_a_link_in_the_place_of_runs_latest(cli, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").symlink_to("latest")
    one_line(cli("eval"), 2, "leads to latest", "symbolic links")
    (tmp_path / "runs" / "latest").unlink()
    (tmp_path / "runs" / "latest").symlink_to("gone")
    one_line(cli("eval"), 2, "leads to gone")


def test_runs_that_is_a_file_or_a_dangling_link_ends_at_once(cli, tmp_path):
    (tmp_path / "runs").write_text("mine")
    one_line(cli(*QUICK.split(), "--epochs", 1), 2, "runs")
    assert cli(*ONE)[0] == 0 and (tmp_path / "runs").read_text() == "mine"
    (tmp_path / "runs").unlink()
    (tmp_path / "runs").symlink_to("nowhere")
    one_line(cli(*QUICK.split(), "--epochs", 1), 2, "runs")


def test_a_byte_order_mark_is_no_part_of_a_config(cli, run_folder, tmp_path):
    text = (run_folder / "config.json").read_text()
    (tmp_path / "mine.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert cli("train", "--config", "mine.json", "-q", "--epochs", 1, "--out", "other")[0] == 0


def test_options_that_the_data_set_has_no_use_for_are_refused(cli, run_folder):
    for line in (
        ("eval", "run", "--data-dir", "."),
        ("visualize", "grid", "run", "--data-dir", "."),
        (*ONE, "--data-dir", "."),
    ):
        one_line(cli(*line), 2, "--data-dir", "digits is read from no files")


def test_each_command_begins_with_what_it_measures(cli, run_folder, trained):  # noqa: F811
    expected = "run: baseline, ce, digits test, 355 images, epoch 1, seed 17"
    for line in (("eval", "run"), ("visualize", "confusion", "run")):
        code, _, err = cli(*line)
        assert code == 0 and err.splitlines()[0] == expected, err
    code, _, err = cli("predict", "--checkpoint", "run", trained / "a.png")
    assert code == 0 and err.splitlines()[0] == "run: baseline, ce, digits, epoch 1, seed 17"


def test_a_folder_that_only_a_checkpoint_names_is_not_read(cli, tmp_path, monkeypatch):
    for number in range(16):
        folder = tmp_path / "data" / ("test" if number < 4 else "train") / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (16 * number, 0, 0)).save(folder / f"{number}.png")
    line = "train --arch baseline --dataset folder --data-dir data --epochs 1 --batch-size 8 --device cpu -q --out run"
    assert cli(*line.split())[0] == 0
    assert cli("eval", "run")[0] == 0  # a command here has named it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user's"))
    named = ("the checkpoint names", f"--data-dir {tmp_path / 'data'}")
    one_line(cli("eval", "run"), 2, *named)
    one_line(cli("train", "--resume", "--epochs", 2, "--out", "run"), 2, *named)
    code, _, err = cli("eval", "run", "--data-dir", "data")
    assert code == 0, err
    assert cli("eval", "run")[0] == 0
    assert cli("train", "--resume", "--epochs", 2, "-q", "--out", "run")[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data_dir"] == str(tmp_path / "data")


def test_a_device_stays_a_device(tmp_path, trained):  # noqa: F811
    """--csv onto a device node: as root a rename would replace it."""
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the right to make a device")
    done = execute(program("predict", trained / "a.png", "--checkpoint", trained / "one", "--csv", node), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert stat.S_ISCHR(node.stat().st_mode)
