"""Training with a head spread over ranks: the losses of one process, exact resumes, checkpoints for any number of ranks."""

import dataclasses
import json
import shutil

import pytest
import torch
from gloo_ranks import launch

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import ALONE
from cifarnet.core.errors import Failed
from cifarnet.core.signals import StopRequest
from cifarnet.data import Loader, load
from cifarnet.data.dataset import make_dataset
from cifarnet.engine.launch import prepare
from cifarnet.engine.loop import Watcher, train
from cifarnet.models.checkpoint import load_model
from cifarnet.storage import sharded_file as tensor_set
from cifarnet.storage.find_checkpoint import find_checkpoint
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.sharded_file import TensorSet, existing, files_of, write_set

DENSE = TrainConfig(
    arch="baseline", dataset="digits", epochs=2, batch_size=100, augment="basic", lr=3e-3, schedule="constant",
    loss="adaface", loss_options={"scale": 12.0}, precision="fp32", device="cpu", backend="torch", ema=0.9,
)  # fmt: skip
SPREAD = dataclasses.replace(DENSE, head_parallel=True)


def few_digits():
    """330 images to train on (batches of 100, 100, 100 and 30) and 101 to test with."""
    digits = load("digits")
    parts = digits.train.subset(torch.arange(330)), digits.test.subset(torch.arange(101))
    return make_dataset("digits", digits.classes, *parts)


def run(config, path, ranks, *, resume=False):
    """Trains in the folder `path`; returns the warnings of a resume."""
    folder = RunFolder(path)
    if ranks.first:
        path.mkdir(exist_ok=True)
    session, warnings = prepare(config, ranks, few_digits, state=folder.state if resume else None)
    with StopRequest() as stop:
        train(session, folder, Watcher(), stop)
    return warnings


def records(path):
    """What the training state says of each epoch, without the clock."""
    opened = TensorSet(existing(RunFolder(path).state), "cifarnet-1", "state")
    history = json.loads(opened.metadata["progress"])["history"]
    return [{k: v for k, v in record.items() if "second" not in k} for record in history]


def tensors(path, kind):
    """All tensors of the last model or training state in a folder."""
    opened = TensorSet(existing(getattr(RunFolder(path), kind)), "cifarnet-1", {"last": "model"}.get(kind, kind))
    return {name: opened.read(name) for name in opened.tensors}


def on_two_ranks(ranks, folder):
    """A whole run, the same in two parts, and a disk that is full on one rank."""
    run(SPREAD, folder / "whole", ranks)
    run(dataclasses.replace(SPREAD, epochs=1), folder / "parts", ranks)
    if ranks.first:
        shutil.copytree(folder / "parts", folder / "one-epoch")
    ranks.wait()
    assert run(SPREAD, folder / "parts", ranks, resume=True) == []

    real = tensor_set.write_file

    def full_on_the_second(path, data):
        if not ranks.first:
            raise Failed(str(path), "cannot be written (No space left on device)")
        real(path, data)

    tensor_set.write_file = full_on_the_second
    with pytest.raises(Failed, match="No space left"):
        write_set(
            folder / "whole/last.safetensors",
            {"a": torch.ones(2)} | {"b": tensor_set.Rows(torch.ones(2), 0)},
            {},
            ranks,
        )
    tensor_set.write_file = real


def on_three_ranks(ranks, folder):
    """What two ranks saved goes on with three."""
    warnings = run(SPREAD, folder / "three", ranks, resume=True)
    assert any("saved with 2 ranks and goes on with 3" in warning for warning in warnings)


def test_drawn_classes_are_those_of_the_step_after_a_resume(tmp_path):
    sampled = dataclasses.replace(SPREAD, head_sample=0.5, batch_size=8)  # 9 of 10 classes
    run(sampled, tmp_path / "whole", ALONE)
    run(dataclasses.replace(sampled, epochs=1), tmp_path / "parts", ALONE)
    run(sampled, tmp_path / "parts", ALONE, resume=True)
    whole, parts = (tensors(tmp_path / name, "last") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_with_a_spread_head(tmp_path):
    launch(on_two_ranks, 2, tmp_path)
    for name in ("three", "alone"):
        shutil.copytree(tmp_path / "one-epoch", tmp_path / name)
    launch(on_three_ranks, 3, tmp_path)
    assert any("goes on with 1" in warning for warning in run(SPREAD, tmp_path / "alone", ALONE, resume=True))

    # Bit for bit on the same number of ranks, weights, average, optimizer and all.
    assert records(tmp_path / "whole") == records(tmp_path / "parts")
    for kind in ("last", "state"):
        whole, parts = tensors(tmp_path / "whole", kind), tensors(tmp_path / "parts", kind)
        assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert {"model.head.weight", "average.head.weight"} <= tensors(tmp_path / "whole", "state").keys()

    # The losses of one process that holds the whole head, for any number of ranks.
    run(DENSE, tmp_path / "dense", ALONE)
    with open(tmp_path / "dense/metrics.jsonl") as lines:
        expected = [json.loads(line) for line in lines]
    for name in ("whole", "three", "alone"):
        for found, wanted in zip(records(tmp_path / name), expected, strict=True):
            for key in ("train_loss", "test_loss"):
                assert found[key] == pytest.approx(wanted[key], rel=1e-4), (name, key)

    # A single process loads the set and measures the loss that the ranks had measured.
    model, info = load_model(find_checkpoint(tmp_path / "whole"))
    assert info.config.head_parallel and not model.training
    test = Loader(few_digits().test, 101, "cpu", mean=info.mean, std=info.std, shuffle=False)
    ((images, labels),) = test.epoch(0)
    loss = torch.nn.functional.cross_entropy(model(images), labels).item()
    assert loss == pytest.approx(records(tmp_path / "whole")[-1]["test_loss"], rel=1e-5)

    # Nothing but the last set of each kind is left, and the full disk has cost nothing.
    assert (
        len(files_of(tmp_path / "whole/last.safetensors")) == 3 == len(files_of(tmp_path / "whole/state.safetensors"))
    )
