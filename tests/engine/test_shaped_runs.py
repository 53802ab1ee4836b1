"""A run on a shaped training split: one seed is one run from every order of the images, resumed to the bit, and measured on that split."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_loop import StopAt

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Interrupted, Refused
from cifarnet.data import load
from cifarnet.data.dataset import Split, make_dataset
from cifarnet.data.shaping import shape
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.evaluate import evaluate, open_for_evaluation
from cifarnet.engine.fit import fit
from cifarnet.models.checkpoint import load_model

BASE = TrainConfig(arch="baseline", dataset="digits", epochs=1, batch_size=50, lr=3e-3, precision="fp32", device="cpu")
SHAPED = replace(
    BASE, epochs=2, hold_out_classes="Zero,NINE", subset=400, imbalance=5.0, label_noise=0.2, val_fraction=0.1,
    canonical_order=True,
)  # fmt: skip


def test_the_same_images_in_another_order_make_one_run(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (250, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (250,), generator=generator)

    def weights(name, order, **options):
        train, test = ([images[part].clone(), labels[part].clone()] for part in (order, torch.arange(200, 250)))
        data = make_dataset("digits", tuple("0123456789"), Split(*train), Split(*test))
        path = fit(replace(BASE, **options), tmp_path / name, dataset=data)
        return load_file(path / "last.safetensors"), json.loads((path / "summary.json").read_text())

    one, other = torch.arange(200), torch.randperm(200, generator=generator)
    (a, first), (b, second) = (
        weights(f"sorted-{n}", order, canonical_order=True) for n, order in enumerate((one, other))
    )
    assert all(torch.equal(a[name], b[name]) for name in a) and first["test"] == second["test"]
    (c, third), (d, fourth) = (weights(f"as-is-{n}", order) for n, order in enumerate((one, other)))
    assert any(not torch.equal(c[name], d[name]) for name in c)
    assert len({run["data_digest"] for run in (first, second, third, fourth)}) == 1


def test_a_shaped_run_is_resumed_to_the_bit_and_measured_on_its_split(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(SHAPED, whole)
    with pytest.raises(Interrupted):
        fit(SHAPED, broken, watcher=StopAt(3))
    with pytest.raises(Refused, match=r"`imbalance` 5.0 -> 2.0, `subset` 400 -> 300"):
        fit(replace(SHAPED, subset=300, imbalance=2.0), broken, resume=True)
    fit(SHAPED, broken, resume=True)
    for name in ("last.safetensors", "state.safetensors"):
        one, other = load_file(whole / name), load_file(broken / name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

    shaped = shape(load("digits"), SHAPED)
    _, info = load_model(whole / "last.safetensors")
    assert info.classes == ("one", "two", "three", "four", "five", "six", "seven", "eight")
    assert info.mean == shaped.dataset.mean
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["data_digest"] == shaped.identity().digest and summary["source_digest"] == shaped.identity().source
    assert summary["shaping"]["hold_out_classes"] == "Zero,NINE" and summary["test"]["images"] == len(
        shaped.dataset.test
    )
    for split, expected in (("train", shaped.train), ("val", shaped.validation), ("test", shaped.dataset.test)):
        opened = open_for_evaluation(whole, split=split, device="cpu")
        assert torch.equal(opened.loader.split.labels, expected.labels) and torch.equal(opened.images, expected.images)
        assert opened.as_in_training in (True, None)
        document = evaluate(whole, split=split, device="cpu")
        assert document["images"] == len(expected) and document["data_digest"] == summary["data_digest"]


@pytest.mark.parametrize(
    "change", [{"hold_out_classes": "2"}, {"subset": 9}, {"imbalance": 2.0}, {"canonical_order": True}]
)
def test_features_are_not_shaped(change):
    features = {"dataset": "synthetic-identities", "arch": "identity", "augment": "none"}
    with pytest.raises(Refused, match="synthetic-identities has no images"):
        check_options(TrainConfig(**features, **change))
