"""Runs of earlier versions go on, and are measured, as they were: on their own data, in their own order."""

import dataclasses
import json
import unicodedata
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from test_loop import BASE, same_files

import cifarnet
from cifarnet.data import load
from cifarnet.data.dataset import Split, make_dataset
from cifarnet.data.given import checked_dataset
from cifarnet.data.identity import identity_of, parse_identity
from cifarnet.data.shaping import in_class_order
from cifarnet.engine import same_data
from cifarnet.engine.fit import fit
from cifarnet.models.checkpoint import read_info

# Sorted as macOS writes them, e and an accent, éléphant stands before zebre; composed it stands behind.
OLD, NEW = ("chat", "éléphant", "zebre"), ("chat", "zebre", "éléphant")


def change_metadata(path, change):
    """Rewrites the metadata of a file by `change(values)`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    change(metadata)
    path.write_bytes(save(load_file(path), metadata))


def animals(classes, by_class=True):
    """Digits under the names of three animals, as a folder of them is read: class by class in the order of `classes`."""
    digits, shown = load("digits"), {"chat": 0, "éléphant": 1, "zebre": 2}

    def part(split):
        places = [(split.labels == shown[name]).nonzero().flatten() for name in classes]
        index = torch.cat(places)
        if not by_class:
            index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
        place = torch.tensor([classes.index(name) for name in shown])
        return Split(split.images[index], place[split.labels[index]])

    return make_dataset("animals", classes, part(digits.train), part(digits.test))


def test_classes_are_put_into_another_order_with_their_images():
    """Of images that lie class by class; others stay where they are."""
    moved, expected = in_class_order(animals(NEW), OLD), animals(OLD)
    assert identity_of(OLD, moved.train, moved.test) == identity_of(OLD, expected.train, expected.test)
    mixed = animals(NEW, by_class=False)
    again = in_class_order(mixed, OLD)
    assert torch.equal(again.train.images, mixed.train.images) and again.classes == OLD
    assert [OLD[n] for n in again.train.labels.tolist()] == [NEW[n] for n in mixed.train.labels.tolist()]
    apart = tuple(unicodedata.normalize("NFD", name) for name in NEW)
    given = dataclasses.replace(mixed, classes=apart)  # as a caller in Python may have them
    assert checked_dataset(given, BASE).classes == NEW
    for others in (NEW, NEW[:2], ("chat", "zebre", "souris"), (*NEW, "souris"), ()):
        assert in_class_order(mixed, others) is mixed


def test_names_of_a_digest_are_read_with_their_joiners(monkeypatch):
    """An identity holds them escaped; data in another order is compared by the names that it has."""
    names = ("chat", "z👩\u200d👧")
    was = identity_of(names, load("digits").train, load("digits").test)
    assert was.classes[1] == r"z👩\u200d👧"
    monkeypatch.setattr(same_data, "known_data", lambda state: (was, None))
    assert same_data.known_classes(Path("state")) == names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"mean": (0.5, 0.4, 0.3005)}, []),  # half of LEVEL: another decoder of JPEG
        ({"mean": (0.5, 0.4, 0.302)}, ["the mean of its pixels was 0.500, 0.400, 0.300 and is 0.500, 0.400, 0.302"]),
        ({"std": (0.1, 0.2, 0.1)}, ["the deviation of its pixels was 0.200, 0.200, 0.100 and is 0.100, 0.200, 0.100"]),
        ({"classes": ("a", "c")}, ["class 1 is c here and b in the model"]),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_what_a_model_tells_of_its_data(change, said, normalize):
    """Without --normalize it tells no means: what it holds are 0 and 1."""
    data: dict = {"classes": ("a", "b"), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    info = SimpleNamespace(**data, config=SimpleNamespace(normalize=normalize))
    now = data | change
    expected = said if normalize or "classes" in change else []
    assert same_data.unlike_info(info, now["classes"], now["mean"], now["std"]) == expected


@pytest.mark.parametrize("identity", [True, False], ids=["its data is known", "it is not"])
def test_class_names_that_were_sorted_in_their_other_form(tmp_path, identity):
    """The run goes on bit for bit, and is measured, on the folder that is sorted otherwise today."""
    config = dataclasses.replace(BASE, dataset="animals", epochs=2, schedule="constant", val_fraction=0.2)
    fit(config, tmp_path / "whole", dataset=animals(OLD))
    fit(dataclasses.replace(config, epochs=1), tmp_path / "run", dataset=animals(OLD))
    apart = [unicodedata.normalize("NFD", name) for name in OLD]
    assert apart != list(OLD) and apart == sorted(apart)

    def written_apart(text):  # the source's digest was one over these names
        return json.dumps(json.loads(text) | {"classes": apart, "source": "0" * 16}) if identity else ""

    for name in ("last", "best", "state"):

        def as_then(values, name=name):
            if name == "state":
                values["data"] = written_apart(values["data"])
            else:
                info = json.loads(values["info"])
                values["info"] = json.dumps(info | {"classes": apart, "data": written_apart(info["data"])})

        change_metadata(tmp_path / "run" / f"{name}.safetensors", as_then)
    found = cifarnet.evaluate(tmp_path / "run", dataset=animals(NEW), split="val")
    best = read_info(tmp_path / "run" / "best.safetensors")
    assert best.classes == OLD and found["accuracy"] == best.metrics["val_accuracy"]
    with nullcontext() if identity else pytest.warns(UserWarning, match="what data it began with"):
        fit(config, tmp_path / "run", resume=True, dataset=animals(NEW))
    for name in ("last", "best", "state"):
        assert same_files(*(tmp_path / folder / f"{name}.safetensors" for folder in ("run", "whole")))
    assert parse_identity(read_info(tmp_path / "run" / "last.safetensors").data).classes == OLD


def test_epochs_that_were_measured_on_another_number_of_views(tmp_path, recwarn):
    """With tta a record says of how many; those of before it was six do not."""
    config, folder = dataclasses.replace(BASE, tta=True), tmp_path / "run"
    fit(config, folder, dataset=animals(NEW))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["views"] for record in records] == [6, 6]
    assert json.loads((folder / "summary.json").read_text())["views"] == 6
    fit(dataclasses.replace(config, epochs=3), folder, resume=True, dataset=animals(NEW))
    assert not recwarn.list

    def forget(values):
        progress = json.loads(values["progress"])
        del progress["history"][0]["views"]
        values["progress"] = json.dumps(progress)

    change_metadata(folder / "state.safetensors", forget)
    with pytest.warns(UserWarning, match="`tta` may have been two views .* is six .* before and after do not compare"):
        fit(dataclasses.replace(config, epochs=4), folder, resume=True, dataset=animals(NEW))
