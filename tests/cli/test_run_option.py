"""A run by its name in every command, where runs are kept, and how a stopped one goes on."""

import json
import os
import shlex
import signal
import time
from pathlib import Path

import forked
import pytest

from cifarnet.storage.runs import own_name

TRAIN = ["train", "--dataset", "digits", "--arch", "baseline", "--epochs", "1", "-q"]


def refusal(cli, *arguments):
    """The one line of a request that is refused."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: "), err
    return err.strip().removeprefix("error: ")


def test_a_file_named_runs_is_in_the_way_of_no_run_elsewhere(cli, tmp_path):
    (tmp_path / "runs").write_text("mine")
    assert cli(*TRAIN, "--out", "here")[0] == 0
    assert (tmp_path / "runs").read_text() == "mine" and (tmp_path / "here" / "summary.json").exists()
    assert "runs" in refusal(cli, *TRAIN)


def test_a_run_has_one_name_in_every_command(cli, tmp_path):
    assert cli(*TRAIN, "--out", "mine")[0] == 0
    (tmp_path / "runs" / "latest").unlink()
    (tmp_path / "x.png").write_bytes((Path(__file__).parents[2] / "docs" / "gallery" / "grid.png").read_bytes())
    for line in (
        "eval",
        "predict x.png",
        "featuremaps x.png --layer conv1 --channels 4 --overwrite",
        "complexity",
        "visualize confusion",
        "visualize curves",
    ):
        scores = [cli(*line.split(), spelling, "mine") for spelling in ("--run", "--checkpoint")]
        assert [code for code, _, _ in scores] == [0, 0] and scores[0][1] == scores[1][1], line
        said = refusal(cli, *line.split(), "--run", "mine", "--checkpoint", "mine")
        assert said.endswith("name a run twice; name it once")
    for line in ("eval", "visualize grid"):
        assert cli(*line.split(), "mine")[0] == 0
        assert "twice" in refusal(cli, *line.split(), "mine", "--run", "mine")
        assert "names 2 runs" in refusal(cli, *line.split(), "--run", "mine", "--run", "mine")
    assert cli("report", "--run", "mine", "--out", "a.md", "--no-test")[0] == 0
    for figure in ("curves", "confusion"):
        assert cli("visualize", figure, "--run", "mine", "--run", "mine", "--out", f"{figure}.svg")[0] == 0


def test_a_run_that_latest_leads_to_has_its_own_name(cli, tmp_path):
    """On the screen and in its summary: runs/latest leads elsewhere later. The link names it from its own folder."""
    assert cli(*TRAIN, "--out", "odd")[0] == 0
    assert os.readlink("runs/latest") == "../odd"
    (tmp_path / "x.png").write_bytes((Path(__file__).parents[2] / "docs" / "gallery" / "grid.png").read_bytes())
    assert cli("predict", "x.png")[2].startswith("odd: baseline, ce, digits,")
    for command in (("predict", "x.png"), ("eval",), ("eval", "runs/latest")):
        assert json.loads(cli(*command, "--json")[1])["checkpoint"] == "odd/last.safetensors"
    for epochs, named in ((2, ()), (3, ("--out", "runs/latest"))):
        code, out, err = cli("train", "--resume", "--epochs", epochs, *named)
        assert code == 0 and "run      odd\n" in err and "latest" not in out + err
        summary = json.loads((tmp_path / "odd" / "summary.json").read_text())
        assert (summary["run"], summary["checkpoint"]) == ("odd", "odd/last.safetensors")
    assert os.readlink("runs/latest") == "../odd"


def test_the_own_name_of_a_folder(tmp_path, monkeypatch):
    """In the same folder, beside it, elsewhere; what is no link, or leads nowhere, keeps its name."""
    (tmp_path / "work" / "runs" / "one").mkdir(parents=True)
    (tmp_path / "work" / "two").mkdir()
    (tmp_path / "three").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    link = Path("runs", "latest")
    for leads, name in (
        ("one", "runs/one"),
        ("../two", "two"),
        (tmp_path / "work" / "two", "two"),
        ("../../three", tmp_path / "three"),
        ("gone", "runs/latest"),
    ):
        link.symlink_to(leads)
        assert own_name(link) == Path(name)
        link.unlink()
    assert own_name(Path("runs", "one")) == Path("runs", "one")


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_stopped_training_says_what_goes_on(cli, tmp_path, number, said):
    """The command is run as it is printed, by a shell: the folder has a space in its name."""
    process = forked.start(*TRAIN, "--epochs", "500", "--out", "my run", errors=tmp_path / "stopped")
    deadline = time.monotonic() + 90
    while not (tmp_path / "my run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    first = (tmp_path / "stopped").read_text().strip()
    assert "\n" not in first and "error" not in first and first.startswith(f"stopped by {said} in epoch ")
    shown = first.partition("go on with: ")[2]
    assert shown == "cifarnet train --resume --out 'my run'"
    done = len((tmp_path / "my run" / "metrics.jsonl").read_text().splitlines())
    config = tmp_path / "my run" / "config.json"
    assert json.loads(config.read_text())["epochs"] == 500
    again = forked.start(*shlex.split(shown)[1:], errors=tmp_path / "said")
    while len((tmp_path / "my run" / "metrics.jsonl").read_text().splitlines()) <= done and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(again.pid, number)
    again.join(60)
    assert "stopped by" in (tmp_path / "said").read_text() and again.exitcode == 128 + number
