"""Training: it learns, it stops in good order, it resumes bit for bit."""

import contextlib
import dataclasses
import functools
import inspect
import json
import math
import os
import re
import shutil
import signal
import time
from typing import ClassVar

import forked
import pytest
import torch
import torchvision.transforms.functional as tvf
from safetensors.torch import load_file, save_file

import cifarnet.engine.step
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Interrupted, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.augment.batch import generator_for
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.optim import swa_start
from cifarnet.engine.same_run import check_same_run
from cifarnet.engine.setup import build_run
from cifarnet.engine.validate import note_best
from cifarnet.models import checkpoint
from cifarnet.models.checkpoint import FORMAT, read_info
from cifarnet.models.classifier import Classifier
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.safetensors_header import read_header, read_metadata

DIGITS = load("digits")
FEW = dataclasses.replace(DIGITS, train=DIGITS.train.subset(torch.arange(384)))  # with FEWER: 12 steps an epoch too
BASE = TrainConfig(
    arch="baseline",
    dataset="digits",
    epochs=2,
    batch_size=128,
    augment="basic",
    lr=3e-3,
    schedule="onecycle",
    precision="fp32",
)
FEWER = dataclasses.replace(BASE, batch_size=32)


def start(folder, config, watcher=None, resume=False):
    """Trains `config` in `folder`, with FEWER's batches on few images; returns the summary."""
    session = build_run(config, FEW if config.batch_size == FEWER.batch_size else DIGITS)
    with open_run(folder, resume=resume, overwrite=False) as run, StopRequest() as stop:
        if resume:
            session.load(run.state)
            run.rewrite_metrics(session.progress.history)
        return train(session, run, watcher or Watcher(), stop)


class StopAt(Watcher):
    """Raises a real signal at the given step, counted over the whole run."""

    def __init__(self, step, number=signal.SIGTERM):
        self.left, self.number = step, number

    def step(self, run):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def timeless(folder):
    records, _ = read_metrics(RunFolder(folder).metrics)
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in records]


def same_files(a, b):
    one, two = load_file(a), load_file(b)
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_and_writes_its_folder(tmp_path):
    config = dataclasses.replace(BASE, epochs=6, augment="none", log_grad=True, val_fraction=0.1)
    summary = start(tmp_path / "run", config)
    assert summary["test"]["accuracy"] > 0.9
    records = timeless(tmp_path / "run")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert {"val_accuracy", "test_loss", "grad_norm_first", "grad_norm_last"} <= records[0].keys()
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == json.loads(json.dumps(summary))
    best = max(records, key=lambda record: record["val_accuracy"])
    assert summary["checkpoint"].endswith("best.safetensors")
    assert summary["test"]["accuracy"] == pytest.approx(best["test_accuracy"])


def test_metrics_of_the_last_line_are_those_of_an_independent_pass(tmp_path):
    """Loss and accuracy logged for the test split, recomputed by hand from the checkpoint's weights."""
    start(tmp_path / "run", BASE)
    from cifarnet.models.checkpoint import load_model

    model, info = load_model(tmp_path / "run" / "last.safetensors")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (info.mean, info.std))
    logits = model((DIGITS.test.images.float() / 255 - mean) / std)
    last = timeless(tmp_path / "run")[-1]
    assert last["test_accuracy"] == pytest.approx((logits.argmax(1) == DIGITS.test.labels).float().mean().item())
    assert last["test_loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, DIGITS.test.labels).item(), rel=1e-4
    )


def test_a_watcher_is_told_of_an_epoch_once_its_model_is_saved(tmp_path):
    told = []

    class Reads(Watcher):
        def epoch(self, run, record):
            told.append((record["epoch"], read_info(tmp_path / "run" / "last.safetensors").epoch))

    start(tmp_path / "run", FEWER, Reads())
    assert told == [(1, 1), (2, 2)]


def test_each_run_of_a_process_is_compiled_however_many_there_are(monkeypatch):
    """With constants of its own each; torch would leave those beyond its limit as they are, in a process in all."""
    graphs, compile_ = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    if "isolate_recompiles" not in inspect.signature(compile_).parameters:
        pytest.skip("this torch counts all runs together")
    monkeypatch.setattr(torch, "compile", functools.partial(compile_, backend=backend))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    with torch._dynamo.config.patch(recompile_limit=2):
        for number in range(4):
            options = {"margin": 0.1 + 0.05 * number}
            config = dataclasses.replace(BASE, loss="arcface", loss_options=options, backend="torch", compile=True)
            build_run(config, DIGITS).forward(images, labels, None)
            assert len(graphs) == number + 1


def test_what_is_measured_is_not_augmented():
    run = build_run(dataclasses.replace(BASE, augment="report", cutout=8, val_fraction=0.1), DIGITS)
    for loader in (run.test, run.validation):
        images = torch.cat([images for images, _ in loader.epoch(0)])
        expected = tvf.normalize(loader.split.images / 255, run.mean, run.std)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_logged_gradient_norms_are_those_of_the_first_and_the_last_layer(tmp_path):
    """Against autograd, over steps that hardly move the weights."""
    config = dataclasses.replace(FEWER, epochs=1, lr=1e-12, augment="none", log_grad=True)
    session = build_run(config, FEW)
    layers, norms = (session.model.backbone.conv1.weight, session.model.head.weight), []
    for images, labels in session.train.epoch(0):
        loss = torch.nn.functional.cross_entropy(session.model(images), labels)
        norms.append([gradient.norm().item() for gradient in torch.autograd.grad(loss, layers)])
    start(tmp_path / "run", config)
    record = timeless(tmp_path / "run")[0]
    found = [record["grad_norm_first"], record["grad_norm_last"]]
    assert found == pytest.approx(torch.tensor(norms).mean(dim=0).tolist(), rel=1e-4)


def test_every_second_epoch_and_the_last_one_are_measured(tmp_path):
    start(tmp_path / "run", dataclasses.replace(FEWER, epochs=5, eval_every=2))
    records = timeless(tmp_path / "run")
    assert len(records) == 5 and [record["epoch"] for record in records if "test_loss" in record] == [2, 4, 5]


RESUMED = {
    "ce": {},
    "adaface": {"optimizer": "sgd", "ema": 0.9},
    "curricularface": {"augment": "autoaugment", "cutout": 8},
    "sphereface": {"swa": 0.4, "neck": "bn", "embed_dim": 16},
}
RESUMED = {loss: dataclasses.replace(FEWER, loss=loss, log_grad=True, **more) for loss, more in RESUMED.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the run of RESUMED with a loss, never stopped; each is trained once."""

    @functools.cache
    def folder(loss):
        path = tmp_path_factory.mktemp(loss) / "whole"
        start(path, RESUMED[loss])
        return path

    return folder


@pytest.mark.parametrize("where", [1, 5, 12, 13, 20])
@pytest.mark.parametrize("loss", RESUMED)
def test_resume_is_bitwise(tmp_path, undisturbed, loss, where):
    """Stopped by a signal at a step (12 steps an epoch), resumed: the same weights, state and metrics, bit for bit."""
    whole, broken, config = undisturbed(loss), tmp_path / "broken", RESUMED[loss]
    with pytest.raises(Interrupted) as caught:
        start(broken, config, StopAt(where))
    assert caught.value.exit_code == 143
    start(broken, config, resume=True)
    assert same_files(whole / "last.safetensors", broken / "last.safetensors")
    assert same_files(whole / "state.safetensors", broken / "state.safetensors")
    assert timeless(whole) == timeless(broken)


def test_the_seconds_before_a_stop_count(tmp_path):
    with pytest.raises(Interrupted):
        start(tmp_path / "run", FEWER, StopAt(5))
    path = tmp_path / "run" / "state.safetensors"
    metadata = read_metadata(path, FORMAT, "state")
    progress = json.loads(metadata["progress"]) | {"seconds": 1000.0}
    save_file(load_file(path), path, metadata | {"progress": json.dumps(progress)})
    start(tmp_path / "run", FEWER, resume=True)
    first, second = read_metrics(RunFolder(tmp_path / "run").metrics)[0]
    assert first["seconds"] >= 1000 > second["seconds"]


TRAIN = "train --dataset digits --arch baseline --loss adaface --epochs 3 --batch-size 64 --augment basic --checkpoint-every 3 -q"


def begun(process, folder):
    """Waits until a training has measured its first epoch."""
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists():
        assert process.exitcode is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_9_loses_nothing(tmp_path):
    """Killed without warning at five moments, some within a write; resumed each time; equal to the run left alone."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    alone = forked.start(*TRAIN.split(), "--out", whole)
    alone.join(60)
    assert alone.exitcode == 0
    kills, mark = 0, broken / "state.safetensors"
    for attempt in range(12):
        before = mark.stat().st_mtime_ns if mark.exists() else 0
        line = ["train", "--resume", "-q"] if before else TRAIN.split()
        process = forked.start(*line, "--out", broken)
        deadline = time.monotonic() + 60
        while process.exitcode is None and attempt < 5 and time.monotonic() < deadline:
            if mark.exists() and mark.stat().st_mtime_ns != before:
                time.sleep(0.013 * attempt)
                process.kill()
                process.join(60)
                kills += process.exitcode == -signal.SIGKILL
                break
            time.sleep(0.002)
        process.join(60)
        if process.exitcode == 0:
            break
    assert kills >= 3 and process.exitcode == 0
    assert same_files(whole / "state.safetensors", broken / "state.safetensors")
    assert same_files(whole / "last.safetensors", broken / "last.safetensors")
    assert timeless(whole) == timeless(broken)
    assert not list(broken.glob(".*.tmp"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_end_the_program_in_good_order(tmp_path, number, code):
    process = forked.start(*TRAIN.split(), "--out", tmp_path / "run", "--epochs", 500, errors=tmp_path / "messages")
    begun(process, tmp_path / "run")
    os.kill(process.pid, number)
    process.join(60)
    messages = (tmp_path / "messages").read_text()
    assert process.exitcode == code
    assert messages.count("\n") == 1 and "cifarnet train --resume --out" in messages


def test_a_training_under_nohup_outlives_its_terminal(tmp_path):
    """`nohup` has the signal ignored before the program starts; so it stays."""
    process = forked.start(*TRAIN.split(), "--out", tmp_path / "run", "--epochs", 4, ignored=signal.SIGHUP)
    begun(process, tmp_path / "run")
    os.kill(process.pid, signal.SIGHUP)
    process.join(120)
    assert process.exitcode == 0


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    folder = tmp_path / "run"
    start(folder, BASE)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    session = build_run(dataclasses.replace(BASE, epochs=3), DIGITS)
    with open_run(folder, resume=True, overwrite=False) as run, StopRequest() as stop:
        session.load(run.state)
        with torch.no_grad():
            session.model.backbone.fc.weight[0, 0] = math.inf
        weights = session.model.head.weight.detach().clone()
        with pytest.raises(Failed, match="not finite in epoch 3"):
            train(session, run, Watcher(), stop)
    assert torch.equal(session.model.head.weight, weights)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert b"epoch 3" in after.pop("diverged.json")
    assert after == before


def test_a_finished_run_whose_checkpoints_are_gone(tmp_path):
    """The last one is in the state, and comes back; of the best one nothing is left, and the summary stays what it says."""
    folder, config = tmp_path / "run", dataclasses.replace(BASE, val_fraction=0.1)
    summary = start(folder, config)
    told = (folder / "summary.json").read_bytes()

    def last():
        file = folder / "last.safetensors"
        return load_file(file), read_header(file)

    weights, header = last()
    (folder / "last.safetensors").unlink()
    assert start(folder, config, resume=True) == summary
    assert last()[1] == header and all(torch.equal(last()[0][name], weights[name]) for name in weights)
    for name in ("best.safetensors", "last.safetensors"):
        (folder / name).unlink()
    with pytest.raises(Refused, match=r"best.safetensors: is gone, and the summary's scores are of it; take last"):
        start(folder, config, resume=True)
    assert last()[1] == header and all(torch.equal(last()[0][name], weights[name]) for name in weights)
    assert (folder / "summary.json").read_bytes() == told
    # A run that goes on has no best one then, until an epoch to come is one: the third, however good the first two were.
    later = start(folder, dataclasses.replace(config, epochs=3), resume=True)
    assert later["checkpoint"] == str(folder / "best.safetensors") and later["epochs"] == 3
    assert torch.equal(load_file(later["checkpoint"])["backbone.fc.weight"], last()[0]["backbone.fc.weight"])


def test_checkpoints_of_another_moment_than_the_state(tmp_path):
    """As in a folder that was copied while the run trained: they pass for gone ones, be the run at its end or not."""
    folder, config = tmp_path / "run", dataclasses.replace(BASE, val_fraction=0.1)
    last, best = folder / "last.safetensors", folder / "best.safetensors"

    class Keep(Watcher):
        def epoch(self, run, record):
            shutil.copytree(folder, tmp_path / str(record["epoch"]), dirs_exist_ok=True)

    summary = start(folder, config, Keep())
    accuracies = [record["val_accuracy"] for record in timeless(folder)]
    assert accuracies[0] < accuracies[1]  # so that each was the best in its time
    shutil.copy(tmp_path / "1" / last.name, last)
    assert start(folder, config, resume=True) == summary
    assert read_info(last).epoch == 2 and same_files(last, tmp_path / "2" / last.name)
    shutil.copy(tmp_path / "1" / best.name, best)
    said = r"best.safetensors: is of epoch 1, the best one is gone, and the summary's scores are of it; take last"
    with pytest.raises(Refused, match=said):
        start(folder, config, resume=True)
    # One that goes on takes an epoch to come for the best one, however good that was which is gone.
    session = build_run(dataclasses.replace(config, epochs=3), DIGITS)
    with open_run(folder, resume=True, overwrite=False) as run, StopRequest() as stop:
        session.load(run.state)
        session.progress.best = 1.0
        train(session, run, Watcher(), stop)
    assert read_info(best).epoch == 3


def test_a_metric_that_is_not_a_number_is_never_best():
    session = build_run(dataclasses.replace(BASE, val_fraction=0.1), DIGITS)
    assert not note_best(session, {"val_accuracy": math.nan, "val_loss": 1.0})
    assert not note_best(session, {"val_accuracy": 0.9, "val_loss": math.nan})
    assert note_best(session, {"val_accuracy": 0.5, "val_loss": 1.0})
    assert not note_best(session, {"val_accuracy": 0.5, "val_loss": 0.9})


def test_the_prototypes_learn_unless_frozen(tmp_path):
    """What the report's code got wrong."""
    for frozen in (False, True):
        config = dataclasses.replace(BASE, loss="arcface", frozen_head=frozen, epochs=1)
        before = build_run(config, DIGITS).model.head.weight.detach()
        start(tmp_path / str(frozen), config)
        after = load_file(tmp_path / str(frozen) / "last.safetensors")["head.weight"]
        assert torch.equal(before, after) == frozen


def test_a_head_cut_off_by_accident_stops_training(tmp_path):
    session = build_run(dataclasses.replace(BASE, loss="arcface"), DIGITS)
    session.model.head.requires_grad_(False)
    with (
        open_run(tmp_path / "run", resume=False, overwrite=False) as run,
        StopRequest() as stop,
        pytest.raises(Failed, match="head got no gradient"),
    ):
        train(session, run, Watcher(), stop)


def test_what_may_change_on_resume():
    longer = dataclasses.replace(BASE, epochs=9, device="cuda", data_dir="/elsewhere", workers=3)
    check_same_run(BASE, longer)
    with pytest.raises(Refused, match=r"`lr` 0.003 -> 0.1, `seed` 17 -> 3|`lr` .*`seed`") as caught:
        check_same_run(BASE, dataclasses.replace(BASE, lr=0.1, seed=3))
    assert caught.value.exit_code == 2
    with pytest.raises(Refused, match="1 is fewer"):
        check_same_run(BASE, dataclasses.replace(BASE, epochs=1))
    may = {"data_dir", "epochs", "device", "precision", "cuda_graph", "workers", "checkpoint_every"}  # docs/api.md
    assert {field.name for field in dataclasses.fields(TrainConfig) if field.metadata["resume"]} == may


def test_a_config_that_was_edited_is_said_before_it_is_written_back(tmp_path):
    fit(BASE, tmp_path / "run", dataset=DIGITS)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 60, "arch": "resnet18"}))

    class Warned(Watcher):
        words: ClassVar[list[str]] = []

        def warn(self, text):
            self.words.append(text)

    fit(BASE, tmp_path / "run", resume=True, dataset=DIGITS, watcher=Warned())
    assert len(Warned.words) == 1 and re.search(
        r"config.json says `arch` resnet18 \(the training state baseline\), `epochs` 60 \(the training state 2\)",
        Warned.words[0],
    )
    assert json.loads(path.read_text())["arch"] == "baseline"
    for _ in range(2):  # what a resume may change is the command's, each time
        fit(dataclasses.replace(BASE, workers=1), tmp_path / "run", resume=True, dataset=DIGITS, watcher=Warned())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 3}))  # as one that died after --epochs 3
    fit(dataclasses.replace(BASE, epochs=3), tmp_path / "run", resume=True, dataset=DIGITS, watcher=Warned())
    assert len(Warned.words) == 1
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_a_later_version": 1}))
    fit(dataclasses.replace(BASE, epochs=3), tmp_path / "run", resume=True, dataset=DIGITS, watcher=Warned())
    assert len(Warned.words) == 2 and "of_a_later_version" in Warned.words[1]


def test_init_from_keeps_a_head_of_another_shape(tmp_path):
    start(tmp_path / "run", BASE)
    source = load_file(tmp_path / "run" / "last.safetensors")
    session = build_run(
        dataclasses.replace(BASE, embed_dim=0, loss="arcface"), DIGITS, tmp_path / "run" / "last.safetensors"
    )
    assert torch.equal(session.model.backbone.conv1.weight, source["backbone.conv1.weight"])
    with pytest.raises(Refused, match=r"^init_from: .*is a baseline whose backbone.* `arch` and `stem`"):
        build_run(dataclasses.replace(BASE, arch="resnet18"), DIGITS, tmp_path / "run" / "last.safetensors")
    simplex = dataclasses.replace(BASE, embed_dim=16, prototypes="simplex")
    words = (
        "has nothing between backbone and head, and this run a map to 16 dimensions and the map to the simplex of 10 cl"
    )
    with pytest.raises(Refused, match=words):
        build_run(simplex, DIGITS, tmp_path / "run" / "last.safetensors")


def test_init_from_takes_no_state_of_another_loss(tmp_path):
    """SphereFace's step count has the shape of CurricularFace's t: 20,000 in its place gives a loss of 490,752."""
    spheres = dataclasses.replace(BASE, loss="sphereface", loss_options={}, epochs=1)
    start(tmp_path / "run", spheres)
    path = tmp_path / "run" / "last.safetensors"
    assert load_file(path)["head.state"].item() > 1
    other = build_run(dataclasses.replace(spheres, loss="curricularface"), DIGITS, path).model.head
    assert other.state.item() == 0 and torch.equal(other.weight, load_file(path)["head.weight"])
    again = build_run(spheres, DIGITS, path).model.head
    assert torch.equal(again.state, load_file(path)["head.state"])


@pytest.mark.parametrize("loss", ["sphereface", "uniface", "sphereface2", "adacos", "ldam"])
def test_init_from_takes_no_state_of_other_classes(tmp_path, loss):
    """SphereFace's annealing would be over before it began, UniFace's bias and AdaCos's scale those of another C."""
    config = dataclasses.replace(BASE, loss=loss, loss_options={}, epochs=1)
    start(tmp_path / "run", config)
    few = dataclasses.replace(config, hold_out_classes="seven,eight,nine")
    head = build_run(few, DIGITS, tmp_path / "run" / "last.safetensors").model.head
    fresh = build_run(few, DIGITS).model.head
    for name, value in fresh.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name


def test_the_average_is_the_running_average(tmp_path):
    """The saved weights against the recursion in float64 over the weights of each step."""
    config = dataclasses.replace(BASE, epochs=1, ema=0.8)
    session = build_run(config, DIGITS)
    seen = [session.model.head.weight.detach().double()]

    class Snapshots(Watcher):
        def step(self, *_):
            seen.append(session.model.head.weight.detach().double())

    with open_run(tmp_path / "run", resume=False, overwrite=False) as run, StopRequest() as stop:
        train(session, run, Snapshots(), stop)
    expected = seen[0]
    for step, weight in enumerate(seen[1:]):
        keep = min(0.8, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * weight
    saved = load_file(tmp_path / "run" / "last.safetensors")["head.weight"]
    torch.testing.assert_close(saved.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(saved, session.model.head.weight.detach())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "adaface", "ema": 0.8},
        {"loss": "curricularface", "ema": 0.8, "compile": True},
        {"loss": "sphereface", "swa": 0.5, "neck": "bn", "embed_dim": 8},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_the_lists_of_the_average_are_made_once_and_stay_right(tmp_path, monkeypatch, changes):
    """Over a stop, a resume, and all that a step writes into: they are the tensors that the models hold."""
    # No code is made of it.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    config = dataclasses.replace(BASE, **changes)
    asked, saved = [], Classifier.state_dict
    monkeypatch.setattr(Classifier, "state_dict", lambda self, *a, **k: asked.append(self) or saved(self, *a, **k))

    class Counts(StopAt):
        def step(self, *given):
            counts.append(len(asked))
            super().step(*given)

    counts = []
    with pytest.raises(Interrupted):
        start(tmp_path / "run", config, Counts(9))
    assert len(set(counts[:8])) <= 2  # step by step none is asked for, but once for the lists
    session = build_run(config, DIGITS)
    before = [tensor.data_ptr() for pair in (session.averaging.numbers, session.averaging.counts) for tensor in pair[0]]
    with open_run(tmp_path / "run", resume=True, overwrite=False) as run, StopRequest() as stop:
        session.load(run.state)
        train(session, run, Watcher(), stop)
    for side, model in enumerate((session.average, session.model)):
        held = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()] if tensor.numel()}
        mine = {t.data_ptr() for pair in (session.averaging.numbers, session.averaging.counts) for t in pair[side]}
        assert mine - {0} == held
    after = [tensor.data_ptr() for pair in (session.averaging.numbers, session.averaging.counts) for tensor in pair[0]]
    assert before == after


def test_swa_with_more_epochs_begins_anew_or_is_refused(tmp_path):
    """Two of four epochs are in the average. Of eight it begins after the fourth; of six it would begin among those two."""
    digits = dataclasses.replace(DIGITS, train=DIGITS.train.subset(torch.arange(400)))  # 2 batches
    config = dataclasses.replace(BASE, swa=0.5, epochs=4, batch_size=200, augment="none")
    seen = []

    class Snapshots(Watcher):
        def step(self, run):
            seen.append(run.model.head.weight.detach().double().clone())

    def trained(epochs, resume=True):
        session = build_run(dataclasses.replace(config, epochs=epochs), digits)
        if resume:
            session.load(tmp_path / "run" / "state.safetensors")
        with open_run(tmp_path / "run", resume=resume, overwrite=False) as run, StopRequest() as stop:
            train(session, run, Snapshots(), stop)
        return session.average.head.weight.detach().double()

    trained(4, resume=False)
    with pytest.raises(
        Refused, match="of 6 the average would begin after step 6, and the run is at step 8; ask for 8 or more"
    ):
        trained(6)
    average = trained(8)
    assert len(seen) == 16
    torch.testing.assert_close(average, torch.stack(seen[8:]).mean(0), rtol=1e-5, atol=1e-6)
    assert [swa_start(share, 10) for share in (0.9, 0.8, 0.5, 0.3)] == [1, 2, 5, 7]


def test_swa_is_the_mean_of_the_last_weights_with_statistics_of_their_own(tmp_path):
    """Against the mean of the snapshots, and BatchNorm's against the plain statistics of all its inputs, in float64."""
    digits = dataclasses.replace(DIGITS, train=DIGITS.train.subset(torch.arange(1436)))  # 4 equal batches of 359
    config = dataclasses.replace(BASE, swa=0.4, neck="bn", embed_dim=8, augment="none", batch_size=359)
    session = build_run(config, digits)
    seen, rates, measured = [], [], []

    class Snapshots(Watcher):
        def step(self, *_):
            seen.append({name: p.detach().double() for name, p in session.model.named_parameters()})
            rates.append(session.optimizer.param_groups[0]["lr"])

        def epoch(self, run, record):
            measured.append(record["test_loss"])

    with open_run(tmp_path / "run", resume=False, overwrite=False) as run, StopRequest() as stop:
        train(session, run, Snapshots(), stop)
    saved = load_file(tmp_path / "run" / "last.safetensors")
    assert len(seen) == 8 and len(set(rates[4:])) == 1 and len(set(rates[:5])) == 5
    for name in seen[0]:
        mean = torch.stack([weights[name] for weights in seen[4:]]).mean(0)
        torch.testing.assert_close(saved[name].double(), mean, rtol=1e-5, atol=1e-6)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (DIGITS.mean, DIGITS.std))
    order = torch.randperm(1436, generator=generator_for("order", config.seed, config.epochs))
    images = ((digits.train.images / 255 - mean) / std)[order]
    with torch.no_grad():
        inputs = session.average.neck[0](session.average.backbone(images)).double().split(359)
    torch.testing.assert_close(saved["neck.1.running_mean"].double(), torch.cat(inputs).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        saved["neck.1.running_var"].double(), torch.stack([x.var(0) for x in inputs]).mean(0), rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():  # what was measured last is the average, earlier the weights themselves
        test = (DIGITS.test.images / 255 - mean) / std
        logits = session.average.eval()(test)
    assert measured[-1] == pytest.approx(torch.nn.functional.cross_entropy(logits, DIGITS.test.labels).item(), rel=1e-4)


def test_two_averages_are_refused():
    with pytest.raises(Refused, match="`ema` and `swa`"):
        check_options(dataclasses.replace(BASE, ema=0.9, swa=0.2))


def test_a_state_that_lacks_a_part_is_refused(tmp_path):
    """A training state without a moment of the optimizer must not start it again from zero."""
    start(tmp_path / "run", dataclasses.replace(BASE, epochs=1))
    path = tmp_path / "run" / "state.safetensors"
    metadata = read_metadata(path, FORMAT, "state")
    tensors = load_file(path)
    for name in ("optimizer.3.exp_avg", "optimizer.0.step", "totals", "model.head.bias"):
        save_file({key: value for key, value in tensors.items() if key != name}, path, metadata)
        with pytest.raises(Refused, match=f"lacks .*{name.split('.')[-1]}|lacks its running sums"):
            build_run(BASE, DIGITS).load(path)


def test_compiled_training_gives_the_same_losses(tmp_path):
    config = dataclasses.replace(BASE, epochs=1, loss="adaface")
    start(tmp_path / "eager", config)
    start(tmp_path / "compiled", dataclasses.replace(config, compile=True))
    eager, compiled = timeless(tmp_path / "eager")[0], timeless(tmp_path / "compiled")[0]
    assert compiled["train_loss"] == pytest.approx(eager["train_loss"], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "speednet", "loss_options": {"label_smoothing": 0.1}},
        {"arch": "resnet18", "loss": "adaface", "progressive": 16},
        {"arch": "baseline", "mixup": 1.0, "cutmix": 1.0},
        {"arch": "baseline", "loss": "curricularface"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_the_step_is_one_graph(changes):
    """Nothing in it returns to Python or reads the device: traced whole it gives the same loss and hits."""
    session = build_run(dataclasses.replace(BASE, batch_size=16, augment="none", **changes), DIGITS)
    images, labels = next(session.train.epoch(0))
    mixture = (labels.roll(1), torch.tensor(0.3)) if "mixup" in changes else None
    session.model.train()
    state = {name: value.clone() for name, value in session.model.state_dict().items()}
    loss, hits = session.forward(images, labels, mixture)
    session.model.load_state_dict(state)
    whole_loss, whole_hits = torch.compile(session.forward, backend="eager", fullgraph=True)(images, labels, mixture)
    torch.testing.assert_close(whole_loss, loss)
    assert torch.equal(whole_hits, hits)


def test_two_runs_are_equal_whatever_was_drawn_before(tmp_path):
    start(tmp_path / "a", BASE)
    torch.rand(1000)
    start(tmp_path / "b", BASE)
    assert same_files(tmp_path / "a" / "last.safetensors", tmp_path / "b" / "last.safetensors")


def test_the_best_weights_are_put_together_once(tmp_path, monkeypatch):
    """`last` and `best` of the same epoch are one file's bytes, until `best` gets its calibration, and nothing else, at the end."""
    made, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *given: made.append(1) or save(*given))
    start(tmp_path / "run", dataclasses.replace(BASE, epochs=1, val_fraction=0.1))
    last, best = (tmp_path / "run" / f"{name}.safetensors" for name in ("last", "best"))
    calibration = checkpoint.read_info(best).calibration
    assert len(made) == 2 and calibration is not None
    assert same_files(last, best)
    assert checkpoint.read_info(best) == dataclasses.replace(checkpoint.read_info(last), calibration=calibration)


@pytest.mark.parametrize("deterministic", [False, True])
def test_only_whole_batches_are_measured(tmp_path, monkeypatch, deterministic):
    """cuDNN may time its algorithms for shapes that come again; never where the same bits are asked for."""
    wanted = []

    @contextlib.contextmanager
    def note(device, wish):
        wanted.append(wish)
        yield

    monkeypatch.setattr(cifarnet.engine.step, "measured_convolutions", note)
    start(tmp_path / "run", dataclasses.replace(BASE, epochs=1, deterministic=deterministic))
    full, rest = divmod(len(DIGITS.train), BASE.batch_size)
    assert rest and wanted == [not deterministic] * full + [False]
