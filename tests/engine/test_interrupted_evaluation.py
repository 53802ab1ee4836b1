"""A signal during an evaluation is heeded within a batch; the state was saved before; a resume ends bit for bit as if nothing had been."""

import dataclasses
import json
import signal

import pytest
from safetensors.torch import load_file, save
from test_loop import BASE, DIGITS, FEWER, same_files, start, timeless

from cifarnet.core.errors import Failed, Interrupted, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.dataset import Dataset, make_dataset
from cifarnet.engine import validate
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.setup import build_run
from cifarnet.models.checkpoint import FORMAT, metadata_for, read_info
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.safetensors_header import read_metadata


@pytest.mark.parametrize("options", [{}, {"val_fraction": 0.2, "ema": 0.9}, {"swa": 0.5}], ids=["plain", "ema", "swa"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_signal_in_the_evaluation_and_a_resume(tmp_path, monkeypatch, options, epoch):
    config = dataclasses.replace(BASE if "val_fraction" in options else FEWER, **options)  # two batches to measure
    start(tmp_path / "whole", config)
    seen, measure = [], validate.collect_logits

    def signalled(model, batches, *rest):
        def counted():
            for batch in batches:
                seen.append(batch)
                yield batch
                if len(seen) == 1 and run_epochs[0] == epoch - 1:
                    signal.raise_signal(signal.SIGTERM)

        seen.clear()
        return measure(model, counted(), *rest)

    run_epochs = [0]

    class Counting(Watcher):
        def epoch(self, run, record):
            run_epochs[0] = record["epoch"]

    monkeypatch.setattr(validate, "collect_logits", signalled)
    with pytest.raises(Interrupted) as raised:
        start(tmp_path / "run", config, Counting())
    assert raised.value.exit_code == 143 and len(seen) == 1  # of two batches
    monkeypatch.undo()
    assert len(timeless(tmp_path / "run")) == epoch - 1 if (tmp_path / "run" / "metrics.jsonl").exists() else epoch == 1
    start(tmp_path / "run", config, resume=True)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    for name in ("last.safetensors", "state.safetensors"):
        assert same_files(tmp_path / "run" / name, tmp_path / "whole" / name)


def test_a_folder_that_was_renamed_away_is_seen_before_the_next_write(tmp_path):
    """And another run that has taken its place keeps all that is its own."""
    place, moved = tmp_path / "run", tmp_path / "moved"

    class Rename(Watcher):
        def epoch(self, run, record):
            if record["epoch"] == 1:
                place.rename(moved)
                place.mkdir()
                (place / ".lock").touch()
                (place / "state.safetensors").write_bytes(b"theirs")

    session = build_run(dataclasses.replace(BASE, epochs=3), DIGITS)
    with (
        pytest.raises(Failed, match="moved, removed or replaced"),
        open_run(place, resume=False, overwrite=False) as run,
    ):
        run.remember_place()
        with StopRequest() as stop:
            train(session, run, Rename(), stop)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {".lock": b"", "state.safetensors": b"theirs"}
    assert (moved / "state.safetensors").stat().st_size > 1000
    assert [record["epoch"] for record in read_metrics(moved / "metrics.jsonl")[0]] == [1]


def others(change, measured=False):
    """The digits with something changed: (classes, train images, train labels); `measured`: with the mean of their own pixels."""
    images, labels = DIGITS.train.images.clone(), DIGITS.train.labels.clone()
    classes = list(DIGITS.classes)
    change(classes, images, labels)
    split = type(DIGITS.train)(images, labels)
    if measured:
        return make_dataset("digits", tuple(classes), split, DIGITS.test)
    return Dataset("digits", tuple(classes), split, DIGITS.test, DIGITS.mean, DIGITS.std)


def renamed(classes, images, labels):
    classes[3] = "drei"


def repainted(classes, images, labels):
    images[0, 0, 0, 0] ^= 1


def relabelled(classes, images, labels):
    labels[0] = (labels[0] + 1) % 10


@pytest.mark.parametrize(
    "change, said",
    [
        (renamed, "class 3 was three and is drei"),
        (repainted, "training images are others"),
        (relabelled, "other labels"),
    ],
)
def test_a_resume_on_other_data_names_the_difference(tmp_path, change, said):
    start(tmp_path / "run", dataclasses.replace(BASE, epochs=1))
    session = build_run(dataclasses.replace(BASE, epochs=2), others(change))
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    with pytest.raises(Refused, match=said) as raised:
        session.load(tmp_path / "run" / "state.safetensors")
    assert raised.value.exit_code == 2 and (tmp_path / "run" / "state.safetensors").read_bytes() == before
    same = build_run(dataclasses.replace(BASE, epochs=2), load("digits"))
    same.load(tmp_path / "run" / "state.safetensors")


def darkened(classes, images, labels):
    images //= 2


def forget_data(folder):
    """The run's files as version 0.1 wrote them, which kept no identity of the data."""
    state, info = folder / "state.safetensors", read_info(folder / "last.safetensors")
    metadata = read_metadata(state, FORMAT, "state")
    state.write_bytes(save(load_file(state), {key: value for key, value in metadata.items() if key != "data"}))
    last = folder / "last.safetensors"
    last.write_bytes(save(load_file(last), metadata_for(dataclasses.replace(info, data=""))))


@pytest.mark.parametrize("beside", ["last", "best", "no model"])
def test_a_resume_of_a_run_that_kept_no_identity_of_its_data(tmp_path, beside):
    """Its model has the names of the classes and the means of the pixels; where there is none either, a warning is all there can be."""
    folder, state = tmp_path / "run", tmp_path / "run" / "state.safetensors"
    start(folder, dataclasses.replace(BASE, epochs=1))
    forget_data(folder)
    last = folder / "last.safetensors"
    if beside == "best":
        last.rename(folder / "best.safetensors")
    elif beside == "no model":
        last.unlink()
    longer, warning = dataclasses.replace(BASE, epochs=2), "does not say what data it began with"
    for change, said in (
        (renamed, "class 3 is drei here and three in the model"),
        (darkened, r"the mean of its pixels was 0\.\d{3}, .* and is 0\.\d{3}, "),
    ):
        session = build_run(longer, others(change, measured=True))
        if beside == "no model":
            assert any(warning in one for one in session.load(state))
        else:
            with pytest.raises(Refused, match=f"begun with other data: {said}.*start a new run"):
                session.load(state)
    assert any(warning in one for one in build_run(longer, load("digits")).load(state))


@pytest.mark.parametrize("at", ["calibrate_best", "evaluate_on"])
def test_a_signal_in_the_last_evaluation_of_the_best_model(tmp_path, monkeypatch, at):
    """After the last epoch, when the best weights are calibrated and measured; the summary is written by the resume."""
    config = dataclasses.replace(BASE, val_fraction=0.2)
    start(tmp_path / "whole", config)
    measure, summing = getattr(validate, at), []

    def signalled(*arguments):
        if summing:
            signal.raise_signal(signal.SIGTERM)
        return measure(*arguments)

    class AtTheEnd(Watcher):
        def epoch(self, run, record):
            summing.extend([True] * (record["epoch"] == config.epochs))

    monkeypatch.setattr(validate, at, signalled)
    with pytest.raises(Interrupted, match=f"in epoch {config.epochs}, ") as raised:
        start(tmp_path / "run", config, AtTheEnd())
    assert raised.value.exit_code == 143 and not (tmp_path / "run" / "summary.json").exists()
    monkeypatch.undo()
    start(tmp_path / "run", config, resume=True)
    ended, whole = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "whole"))
    for name in ("test", "calibration", "epochs"):
        assert ended[name] == whole[name]
