"""`train --live` and `--tensorboard`: a run that is stopped and goes on is shown whole, and none of it costs training anything."""

import io
import json
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from cifarnet import TrainConfig
from cifarnet.cli.beside import with_others
from cifarnet.cli.common import messages
from cifarnet.cli.live import LiveWatcher
from cifarnet.cli.watcher import TerminalWatcher
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.engine.fit import fit
from cifarnet.storage.event_file import EventFile
from cifarnet.storage.run_folder import RunFolder

CONFIG = TrainConfig(
    dataset="digits", arch="baseline", epochs=3, device="cpu", precision="fp32", loss="arcface", embed_dim=3,
    batch_size=64, subset=100, val_fraction=0.1, log_grad=True, loss_options={"scale": 16.0, "margin": 0.2},
)  # fmt: skip
TRAIN = [
    "train",
    "--dataset",
    "digits",
    "--arch",
    "baseline",
    "--epochs",
    "1",
    "--subset",
    "100",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "-q",
]


def shown(page):
    """What a page holds."""
    return json.loads(re.search(r'id="numbers">(.*?)</script>', page.read_text())[1])


class Quiet(TerminalWatcher):
    """Says nothing but warnings, and draws nothing at the end."""

    def __init__(self):
        super().__init__(messages(quiet=True))

    def finish(self, run, folder, summary):
        pass


class Stopping(Quiet):
    """Keeps the training state as it is before epoch 2 is noted, and stops in epoch 3."""

    def __init__(self, stop, kept):
        super().__init__()
        self.stop, self.kept = stop, kept

    def epoch(self, run, record):
        super().epoch(run, record)
        if record["epoch"] == 2:
            shutil.copy("run/state.safetensors", self.kept)

    def step(self, run):
        if run.progress.epoch == 2:
            self.stop.number = signal.SIGINT


def test_stopped_and_resumed_every_epoch_is_there_once_and_nothing_else_is_computed(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def events(folder):
        return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()

    monkeypatch.chdir(tmp_path)
    page, folder = Path("page.html"), Path("run/tensorboard")
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit(CONFIG, "run", watcher=with_others(Stopping(stop, "kept"), page, True), stop=stop)
    before = shown(page)
    assert before["state"] == "interrupted" and "train --resume --out run" in before["why"]
    # Killed: the state is that from before epoch 2 was noted, and the last event is cut short.
    shutil.copy("kept", "run/state.safetensors")
    whole = sorted(folder.iterdir())[-1].read_bytes()
    assert [event.step for event in events(folder).Scalars("loss/test")] == [1, 2]
    sorted(folder.iterdir())[-1].write_bytes(whole[:-7])
    assert [event.step for event in events(folder).Scalars("loss/test")] == [1]
    fit(CONFIG, "run", resume=True, watcher=with_others(Quiet(), page, True))

    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    found = events(folder)
    names = {"loss/train": "train_loss", "accuracy/val": "val_accuracy", "grad_norm/last": "grad_norm_last", "lr": "lr"}
    assert len(found.Tags()["scalars"]) == len(records[0]) - 1  # all but the epoch
    for tag, name in names.items():
        assert [event.step for event in found.Scalars(tag)] == [1, 2, 3]
        values = [event.value for event in found.Scalars(tag)]
        np.testing.assert_array_equal(values, np.array([record[name] for record in records], dtype=np.float32))
    assert [event.step for event in found.Images("sphere")] == [1, 2, 3]
    assert found.Images("sphere")[0].encoded_image_string.startswith(b"\x89PNG")
    after = shown(page)
    assert after["state"] == "finished" and after["records"] == records and after["left"] == 0
    assert after["loss"] == "arcface" and after["name"] == "run" and ["--epochs", "3"] in after["options"]

    fit(CONFIG, "plain")
    ours, plain = load_file("run/last.safetensors"), load_file("plain/last.safetensors")
    assert ours.keys() == plain.keys() and all(bool((ours[name] == plain[name]).all()) for name in plain)


class InTheWay(TerminalWatcher):
    """Puts a link in the place of the event files, and a file in that of the page's folder, before training begins."""

    def load(self, config):
        Path("elsewhere").mkdir()
        Path("run/tensorboard").symlink_to(Path("elsewhere").resolve())
        Path("file").touch()
        return super().load(config)

    def finish(self, run, folder, summary):
        pass


def test_what_cannot_be_written_is_warned_of_once(tmp_path, monkeypatch, capfd):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    fit(replace(CONFIG, epochs=2), "run", watcher=with_others(InTheWay(messages()), Path("file/page.html"), True))
    _, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("warning")]
    assert len(lines) == 2 and all(line.endswith("; training goes on") for line in lines), err
    assert "the live page is not written (file/page.html: cannot be written (" in lines[0]
    assert "the event file is not written (run/tensorboard: it is a link, not a folder)" in lines[1]
    assert not list(Path("elsewhere").iterdir()) and json.loads(Path("run/summary.json").read_text())["epochs"] == 2


def test_refused_before_any_work(cli, tmp_path, monkeypatch):
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "file").touch()
    assert cli(*TRAIN, "--out", "run", "--live", "page.html")[0] == 0
    assert shown(tmp_path / "page.html")["state"] == "finished"
    again = ["train", "--resume", "--out", "run", "-q", "--epochs", "2", "--live"]
    for line, message in (
        ([*TRAIN, "--live", "page.png"], "--live page.png: '.png' is no suffix of a page; end the name in .html"),
        ([*TRAIN, "--live", "page.html"], "page.html: is there already; add --overwrite to replace it"),
        ([*TRAIN, "--live", "file/page.html"], "file/page.html: cannot be written (Not a directory)"),
        ([*again, "there.html"], "there.html: is there already, and no page of --live; name another file"),
    ):
        code, out, err = cli(*line, *([] if "--resume" in line else ["--out", "new"]))
        assert code == 2 and out == "" and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "new").exists() and (tmp_path / "there.html").read_text() == "mine"
    assert cli(*again, "page.html")[0] == 0  # a page of ours is replaced by the run that goes on
    assert [record["epoch"] for record in shown(tmp_path / "page.html")["records"]] == [1, 2]
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    code, out, err = cli(*TRAIN, "--out", "new", "--tensorboard")
    line = 'error: --tensorboard: the tensorboard package is not installed; pip install "cifarnet[tensorboard]"\n'
    assert (code, out, err) == (2, "", line) and not (tmp_path / "new").exists()


def test_to_start_again_clears_our_event_files_alone(tmp_path):
    run, mine = RunFolder(tmp_path), tmp_path / "tensorboard/events.out.tfevents.1700000000.host.1.0"
    mine.parent.mkdir()
    ours = mine.with_name("events.out.tfevents.0000000001.cifarnet")
    mine.touch()
    ours.touch()
    assert run.own_files() == [ours]
    run.clear()
    assert list(mine.parent.iterdir()) == [mine]
    mine.unlink()
    run.clear()
    assert not mine.parent.exists()


def test_pictures_in_an_event_file_have_their_width_and_height(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    buffer = io.BytesIO()
    Image.new("RGB", (7, 3)).save(buffer, "png")
    EventFile(tmp_path / "events", 1).add(1, {}, {"wide": buffer.getvalue()})
    (image,) = accumulator.EventAccumulator(str(tmp_path / "events")).Reload().Images("wide")
    assert (image.width, image.height) == (7, 3)


def test_short_epochs_do_not_each_write_the_page(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(LiveWatcher, "write", lambda self, state, why="": written.append(state))
    watcher = LiveWatcher(tmp_path / "page.html", [])
    watcher.run, watcher.took = object(), 0.0
    watcher.written = time.monotonic()
    watcher.epoch(None, {})
    watcher.written -= 2
    watcher.epoch(None, {})
    watcher.took = 1.0  # a slow disk: twenty times as long until the next one
    watcher.epoch(None, {})
    watcher.__exit__(None, None, None)
    assert written == ["running", "finished"]
