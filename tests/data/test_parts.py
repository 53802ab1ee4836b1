"""Which images are in no part, and which are for testing where nothing says so."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifarnet.data import load
from cifarnet.data.sources.splits import stratified


def test_which_images_are_for_testing_follows_from_their_names_alone():
    """The tenth of a class whose names have the least BLAKE2b hashes, in any order and with any others besides."""
    labels = np.repeat([0, 1], [30, 20])
    called = [f"{label}/{number}.png".encode() for number, label in enumerate(labels)]

    def tested(places):
        with pytest.warns(UserWarning, match="no test set"):
            train, test = stratified("set", ("a", "b"), labels[places], [called[n] for n in places])
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(places)))
        return {called[places[n]] for n in test.tolist()}

    least = {
        name
        for label, count in ((0, 3), (1, 2))
        for name in sorted(
            (name for name, own in zip(called, labels, strict=True) if own == label),
            key=lambda name: int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little"),
        )[:count]
    }
    assert tested(np.arange(50)) == tested(np.random.default_rng(0).permutation(50)) == least
    gone = next(n for n in range(50) if called[n] not in least)
    assert tested(np.delete(np.arange(50), gone)) == least


def test_rows_of_a_parquet_file_that_is_left_out_are_in_no_part(tmp_path, monkeypatch):
    """Beside a file called train one that says nothing is not used; its rows come first and have the first numbers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, first in (("extra", 0), ("train-0", 100)):
        rows = []
        for grey in range(first, first + 40):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (grey,) * 3).save(buffer, "png")
            rows.append({"image": {"bytes": buffer.getvalue(), "path": f"{grey}.png"}, "label": grey % 2})
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / f"{name}.parquet")
    with pytest.warns(UserWarning, match=r"left out: extra\.parquet"):
        data = load("parquet", tmp_path / "set", image_size=8)
    seen = [data.train.images[:, 0, 0, 0].tolist(), data.test.images[:, 0, 0, 0].tolist()]
    assert sorted(seen[0] + seen[1]) == list(range(100, 140)) and len(seen[1]) == 4
    assert data.train.labels.tolist() == [grey % 2 for grey in seen[0]]
