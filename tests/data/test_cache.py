"""What is kept between two starts goes when nobody has read it for long, and nothing else goes."""

import os
import time

import numpy as np
import pytest
import torch

from cifarnet.data.images.cache import UNUSED, arrays_path, read_arrays, write_arrays

ARRAYS, SHAPES = {"a": np.arange(3)}, {"a": (torch.int64, 1)}


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three entries that nobody has read for long, one with a copy of images and a lock; and a file of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = [arrays_path(name) for name in ("one", "two", "three")]
    for place in places:
        write_arrays(place, "test", ARRAYS)
    for name in (places[0].with_suffix(".images"), places[0].with_suffix(".lock"), places[0].with_name("notes.txt")):
        name.write_bytes(b"x")
    for file in places[0].parent.iterdir():
        os.utime(file, (time.time() - UNUSED - 1,) * 2)
    return places


def test_what_nobody_reads_is_removed_with_all_that_belongs_to_it(three):
    read, written = three[1], arrays_path("four")
    assert read_arrays(read, "test", SHAPES) is not None
    write_arrays(written, "test", ARRAYS)
    assert {path.name for path in written.parent.iterdir()} == {read.name, written.name, "notes.txt"}


def test_an_entry_is_as_young_as_its_youngest_file(three):
    lock = three[0].with_suffix(".lock")
    os.utime(lock)  # somebody is about to write here
    write_arrays(arrays_path("four"), "test", ARRAYS)
    assert three[0].exists() and three[0].with_suffix(".images").exists() and lock.exists() and not three[1].exists()
