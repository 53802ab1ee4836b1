"""Whose pixels a figure is measured on: never "exact" where they are not, on made-up sets."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import Split, load, pixels_of
from cifarnet.data.found import DIFFERS, EXACT
from cifarnet.data.sources.cifar import SETS
from cifarnet.data.sources.origin import EXACT_STD

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "study"))
import reproduce
import reproduce_cells

FILES = tuple(SETS["cifar10"].archive.files)
HEAD = "file\trecord\tjpeg_copy_image\n"
LIST = HEAD + "data_batch_1.bin\t0\ttrain/ship/0032.jpg\ndata_batch_5.bin\t3\ta.jpg\ntest_batch.bin\t2\tb.jpg\n"
JPEG = "JPEG copy (not pixel-exact)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A set of four records a file, of random pixels, in the official layout."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    small = dataclasses.replace(SETS["cifar10"].archive, files=dict.fromkeys(FILES, 4 * 3073))
    monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(SETS["cifar10"], archive=small))
    rng = np.random.default_rng(0)
    for name in FILES:
        records = rng.integers(0, 256, (4, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (tmp_path / name).write_bytes(records.tobytes())
    return tmp_path


def with_std(folder, std=EXACT_STD, status=None):
    """The set of `folder` as if its training images had this contrast and its files this status."""
    data = load("cifar10", folder, download=False)
    found = dataclasses.replace(data.found, status=status or data.found.status)
    return dataclasses.replace(data, std=std, found=found)


def test_only_what_was_seen_to_be_published_is_exact(folder):
    assert pixels_of(with_std(folder)) == "CIFAR-10 (files not verified)"
    assert pixels_of(with_std(folder, status=EXACT)) == "exact"
    assert pixels_of(with_std(folder, status=DIFFERS)) == "CIFAR-10 (not the published files)"
    without_its_list = (0.24702914, 0.24348440, 0.26158707)  # 82 of 50,000 from a JPEG copy
    assert pixels_of(with_std(folder, without_its_list)) == "CIFAR-10 (files not verified)"
    assert pixels_of(with_std(folder, (0.24523, 0.24278, 0.26063))) == JPEG  # all of it was compressed


def test_substituted_images_are_counted_and_named(folder):
    (folder / "substituted.tsv").write_text(LIST)
    data = with_std(folder)
    assert data.substituted == (2, 1)
    assert pixels_of(data) == "CIFAR-10 (1 of 4 test and 2 training images from a JPEG copy)"
    assert pixels_of(dataclasses.replace(data, std=(0.24523, 0.24278, 0.26063))) == JPEG  # all of it is a copy
    many = Split(data.test.images[:1].expand(10_000, -1, -1, -1), torch.zeros(10_000, dtype=torch.int64))
    data = dataclasses.replace(data, test=many, substituted=(82, 21))
    assert pixels_of(data) == "CIFAR-10 (21 of 10,000 test and 82 training images from a JPEG copy)"


@pytest.mark.parametrize("text", [HEAD, HEAD.rstrip(), ""])
def test_a_list_that_names_nothing_changes_nothing(folder, text):
    (folder / "substituted.tsv").write_text(text)
    assert pixels_of(with_std(folder)) == "CIFAR-10 (files not verified)"


@pytest.mark.parametrize(
    "line", ["other.bin\t0\tx", "test_batch.bin\t4\tx", "test_batch.bin\t-1\tx", "test_batch.bin", " "]
)
def test_a_list_that_is_none_is_refused(folder, line):
    (folder / "substituted.tsv").write_text(LIST + line + "\n")
    with pytest.raises(Refused, match=r"substituted\.tsv: line 5 names no record of these files; unpack"):
        with_std(folder)
    (folder / "substituted.tsv").unlink()
    (folder / "substituted.tsv").mkdir()
    with pytest.raises(Refused, match=r"substituted\.tsv: cannot be read \(it is a folder"):
        with_std(folder)


def test_a_record_named_twice_counts_once(folder):
    (folder / "substituted.tsv").write_text(LIST + "test_batch.bin\t2\tb.jpg\n")
    assert with_std(folder).substituted == (2, 1)


def test_another_set_has_its_name():
    assert pixels_of(load("digits")) == "digits"


def test_the_result_of_a_cell_says_it(folder, tmp_path):
    (folder / "substituted.tsv").write_text(LIST)
    config = TrainConfig(arch="baseline", dataset="cifar10", epochs=1, batch_size=8, augment="none", precision="fp32")
    cell, out = reproduce_cells.Cell("baseline", "3.2", config), tmp_path / "out"
    (out / "results").mkdir(parents=True)
    reproduce.fill(cell, 0, with_std(folder), out, StopRequest())
    result = json.loads((out / "results" / "baseline-0.json").read_text())
    assert result["data"] == "CIFAR-10 (1 of 4 test and 2 training images from a JPEG copy)"
    assert f"Data: {result['data']}." in reproduce.write_table(out).read_text()
