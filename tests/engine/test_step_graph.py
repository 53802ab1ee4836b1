"""--cuda-graph, as far as that is known without a GPU: a step that is recorded and replayed is the step that the loop takes.

The recording is a tape of torch's operators (tests/recorded.py).
"""

import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.engine import setup, step, step_graph
from cifarnet.engine.loop import Watcher, run_epoch, train
from cifarnet.engine.rehearsal import timed_step
from cifarnet.engine.setup import build_run, use_graph
from cifarnet.engine.train_state import TrainState
from cifarnet.losses import LOSSES, compiled, heads, linear
from cifarnet.models import speednet
from cifarnet.storage.run_folder import RunFolder
from tests.recorded import record

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import time_to_accuracy

EPOCHS = 3
SMALL = {"dataset": "digits", "arch": "baseline", "subset": 300, "batch_size": 64, "epochs": EPOCHS, "backend": "torch"}
SMALL |= {"device": "cpu", "precision": "fp32", "augment": "basic", "eval_every": EPOCHS}
SPEED = {"arch": "speednet", "subset": 90, "batch_size": 16}
DIGITS = load("digits")


@pytest.fixture
def on_tape(monkeypatch):
    """Recordings are tapes, and the host looks at numbers as seldom as with a GPU."""
    monkeypatch.setattr(step_graph, "record", record)
    monkeypatch.setattr(step_graph, "run_aside", lambda work, stream: work())
    monkeypatch.setattr(step_graph, "new_stream", lambda device: None)
    monkeypatch.setattr(step, "looks_later", lambda run: True)
    for module in (heads, linear, compiled):
        monkeypatch.setattr(module, "check_range", lambda labels, num_classes: None)


@pytest.fixture
def narrow(monkeypatch):
    """SpeedNet with an eighth of its channels: the same steps in little time."""
    monkeypatch.setattr(speednet, "WIDTHS", (8, 32, 32))
    monkeypatch.setattr(speednet.SpeedNet, "num_features", 32)


def trained(tmp_path, *, graph: bool, **options) -> TrainState:
    run = build_run(TrainConfig.from_dict(SMALL | options), DIGITS)
    if graph:
        use_graph(run)
    else:
        setup.keep_rate_on_device(run.optimizer, run.device)  # the same arithmetic
    with RunFolder(tmp_path) as folder:
        train(run, folder, Watcher(), StopRequest())
    return run


def weights(run: TrainState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for model in run.models.values() for name, value in model.state_dict().items()}


def same(one: TrainState, other: TrainState) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
    records = [
        [{key: row[key] for key in ("lr", "train_loss", "train_accuracy")} for row in run.progress.history]
        for run in (one, other)
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "lr": 1e-3},
        {"optimizer": "sgd", "lr": 0.05, "schedule": "onecycle", "weight_decay": 5e-4},
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.0, "log_grad": True},
        {"optimizer": "muon", "lr": 0.1, "rest_lr": 4.0, "ema": 0.9, "progressive": 16} | SPEED,
        {"optimizer": "muon", "lr": 0.1, "swa": 0.5} | SPEED,
        {"optimizer": "sgd", "lr": 0.05, "arch": "resnet18", "stem": "imagenet", "subset": 45, "batch_size": 8},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_replayed_step_is_the_step(tmp_path, on_tape, narrow, options):
    """To the bit, with a rate that moves, batches that are not whole, growing images, averages."""
    one = trained(tmp_path / "graph", graph=True, **options)
    assert one.graph.replay is not None
    same(one, trained(tmp_path / "plain", graph=False, **options))


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "ce"])
def test_every_loss_is_recorded(tmp_path, on_tape, loss):
    """What a loss remembers moves in place: states, tables, draws, what follows the epoch."""
    options = {"loss": loss, "optimizer": "sgd", "lr": 0.02, "imbalance": 5.0}
    options |= {"loss_options": {"drw": True}} if loss == "ldam" else {}
    one = trained(tmp_path / "graph", graph=True, **options)
    assert one.graph.replay is not None
    same(one, trained(tmp_path / "plain", graph=False, **options))


def test_a_number_of_the_hosts_would_be_found(tmp_path, on_tape, monkeypatch):
    """The same with a rate that the host holds: the replay keeps that of the recording."""
    options = {"optimizer": "sgd", "lr": 0.05}
    monkeypatch.setattr(setup, "keep_rate_on_device", lambda optimizer, device: None)
    one, other = (trained(tmp_path / str(graph), graph=graph, **options) for graph in (True, False))
    assert not torch.equal(weights(one)["head.weight"], weights(other)["head.weight"])


def test_a_rate_on_the_device_is_that_of_the_host_but_for_rounding(tmp_path):
    """By how far weights move: rounding, which Muon makes 10^4 times as large, is 0.2% of it; a rate that is 1% off moves some by 3%."""
    for optimizer, rate in (("adamw", 1e-3), ("sgd", 0.05), ("muon", 0.1)):
        options = SMALL | {"optimizer": optimizer, "lr": rate, "epochs": 1} | (SPEED if optimizer == "muon" else {})
        runs = [build_run(TrainConfig.from_dict(options), DIGITS) for _ in range(2)]
        before = weights(runs[0])
        setup.keep_rate_on_device(runs[0].optimizer, runs[0].device)
        for number, run in enumerate(runs):
            run_epoch(run, RunFolder(tmp_path / f"{optimizer}{number}"), Watcher(), StopRequest())
        device, host = map(weights, runs)
        for name, value in before.items():
            moved = (host[name] - value).double().norm()
            assert (device[name] - host[name]).double().norm() <= 0.01 * moved, (optimizer, name)


def test_a_resumed_run_records_anew(tmp_path, on_tape):
    """A loaded optimizer's state lies elsewhere: a graph that went on would move the old one."""
    whole = trained(tmp_path / "whole", graph=True, optimizer="adamw", lr=1e-3)
    run = build_run(whole.config, DIGITS)
    use_graph(run)
    with RunFolder(tmp_path / "resumed") as folder:
        run.save(folder.state)
        run_epoch(run, folder, Watcher(), StopRequest())  # a first try, with a graph of its own
        run.optimizer.state.clear()
        run.load(folder.state)
        assert run.graph.replay is None
        train(run, folder, Watcher(), StopRequest())
    same(whole, run)


def test_a_step_that_waits_for_the_device_is_no_step_for_a_graph(tmp_path, on_tape, monkeypatch):
    monkeypatch.setattr(step, "count", lambda run, loss, correct, images: loss.item())
    with pytest.raises(
        Failed, match=r"cuda_graph: the step cannot be recorded \(operation not permitted.*; resume without it"
    ):
        trained(tmp_path, graph=True)


def test_a_loss_that_is_not_finite_is_seen_after_the_replay(tmp_path, on_tape, monkeypatch):
    """The images of the fourth step, which is the first that is recorded, hold a NaN."""
    run = build_run(TrainConfig.from_dict(SMALL), DIGITS)
    use_graph(run)
    plain = step.update

    def poisoned(run, images, labels, mixture=None):
        plain(run, images if run.graph.warming else images * torch.nan, labels, mixture)

    monkeypatch.setattr(step, "update", poisoned)
    with pytest.raises(Failed, match="diverged"), RunFolder(tmp_path) as folder:
        train(run, folder, Watcher(), StopRequest())


def test_a_rehearsal_records_too(on_tape):
    """Each of its steps is the first, in which the loop looks whether the head learns."""
    run = build_run(TrainConfig.from_dict(SMALL | {"batch_size": 30}), DIGITS)
    use_graph(run)
    assert timed_step(run, 0) > 0 and run.graph.replay is not None


def test_a_run_is_given_back_when_it_is_done(on_tape):
    run = build_run(TrainConfig.from_dict(SMALL), DIGITS)
    use_graph(run)
    run_epoch(run, RunFolder(Path("never")), Watcher(), StopRequest())
    left = weakref.ref(run)
    gc.disable()
    try:
        del run
        assert left() is None  # without a collection: a GPU's memory cannot wait for one
    finally:
        gc.enable()


def test_a_warmed_up_run_keeps_its_recording(tmp_path, on_tape):
    """As time_to_accuracy.py goes back to the start."""
    whole = trained(tmp_path / "whole", graph=True, optimizer="adamw", lr=1e-3)
    run = build_run(whole.config, DIGITS)
    use_graph(run)
    start = [(tensor, tensor.clone()) for model in run.models.values() for tensor in model.state_dict().values()]
    run_epoch(run, RunFolder(tmp_path), Watcher(), StopRequest())
    time_to_accuracy.rewind(run, start)
    assert run.graph.replay is not None
    with RunFolder(tmp_path / "run") as folder:
        train(run, folder, Watcher(), StopRequest())
    same(whole, run)


def test_it_is_for_one_gpu():
    with pytest.raises(Refused, match="cuda_graph: is for a CUDA GPU, and this is cpu; leave it out"):
        build_run(TrainConfig.from_dict(SMALL | {"cuda_graph": True}), DIGITS)
    with pytest.raises(Refused, match="cuda_graph: cannot be with `mixup`"):
        build_run(TrainConfig.from_dict(SMALL | {"cuda_graph": True, "mixup": 0.2}), DIGITS)
