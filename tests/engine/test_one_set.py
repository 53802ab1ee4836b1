"""The same images in six layouts: one digest, and with canonical order the same weights after an epoch, bit for bit."""

import dataclasses
import sys
import warnings
from pathlib import Path

import torch

from cifarnet.data.dataset import Split, make_dataset
from cifarnet.data.sources.cifar_names import CIFAR10
from cifarnet.data.sources.cifar_sets import SETS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "proof"))
import one_set


def test_six_layouts_are_one_set_and_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known = SETS["cifar10"]
    files = dict.fromkeys(known.archive.files, 20 * known.record)  # 20 images a file
    archive = dataclasses.replace(known.archive, files=files)
    monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(known, archive=archive))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (120, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randperm(120, generator=generator) % 10
    labels[100:] = torch.arange(20) % 10  # each class in either split
    data = make_dataset("cifar10", CIFAR10, Split(images[:100], labels[:100]), Split(images[100:], labels[100:]))
    config = dataclasses.replace(one_set.CONFIG, epochs=1, batch_size=25)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Python layout, not the published files")
        found = one_set.compare(one_set.write_layouts(data, tmp_path / "set"), tmp_path / "runs", config)
    assert len(found) == 6 and all(one["same_weights"] for one in found.values()), found
    assert len({one["digest"] for one in found.values()}) == 1
