"""CIFAR from its binary files and archives: what is read, and everything that is refused."""

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarnet.core.errors import Failed, Refused
from cifarnet.data import cache_folder, load
from cifarnet.data.sources import cifar
from cifarnet.data.sources.archive import Archive
from cifarnet.data.sources.cifar import SETS
from cifarnet.data.sources.fetch_archive import Missing

FOLDER = "cifar-10-batches-bin"
Refusal = (Refused, Failed)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache and home of its own; no proxy between here and the local server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "xdg" / "cifarnet"


def records(count: int, seed: int, label_bytes: int = 1) -> bytes:
    """Valid records with random pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, (count, label_bytes))
    return np.hstack([labels, rng.integers(0, 256, (count, 3072))]).astype(np.uint8).tobytes()


FILES = {name: records(4, i) for i, name in enumerate(SETS["cifar10"].archive.files)}


def pack(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda member: None) -> bytes:
    """A .tar.gz in the layout of the official one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name if "/" in name else f"{FOLDER}/{name}")
            member.size = len(data)
            change(member)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def small(monkeypatch) -> Callable[..., bytes]:
    """Publish a small set in place of the official one: `small(archive bytes, url)`."""

    def publish(data: bytes | None = None, url: str = SETS["cifar10"].archive.url) -> bytes:
        data = pack(FILES) if data is None else data
        archive = Archive(
            url=url,
            size=len(data),
            md5=hashlib.md5(data).hexdigest(),
            sha256=hashlib.sha256(data).hexdigest(),
            folder=FOLDER,
            files={name: len(content) for name, content in FILES.items()},
        )
        monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(SETS["cifar10"], archive=archive))
        return data

    return publish


def write_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def check_content(data) -> None:
    """Against the records as they were written."""
    for split, names in ((data.train, SETS["cifar10"].train), (data.test, SETS["cifar10"].test)):
        raw = np.frombuffer(b"".join(FILES[name] for name in names), np.uint8).reshape(-1, 3073)
        assert split.labels.tolist() == raw[:, 0].tolist()
        assert np.array_equal(split.images, raw[:, 1:].reshape(-1, 3, 32, 32))


def refused(*arguments, error: type = Refused, **options) -> str:
    with pytest.raises(Refusal) as caught:
        load(*arguments, **options)
    assert type(caught.value) is error and "\n" not in str(caught.value)
    return str(caught.value)


# found and read


def test_the_folder_itself_its_subfolder_and_the_cache(tmp_path, small, cache):
    small()
    write_files(tmp_path / "data" / FOLDER)
    check_content(load("cifar10", tmp_path / "data", download=False))
    check_content(load("cifar10", str(tmp_path / "data" / FOLDER), download=False))
    write_files(cache / FOLDER)
    check_content(load("cifar10", download=False))
    (tmp_path / "other").mkdir()
    check_content(load("cifar10", tmp_path / "other", download=False))


def test_an_archive_is_read_in_place(tmp_path, small):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(small())
    check_content(load("cifar10", tmp_path / "data", download=False))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cifar-10-binary.tar.gz"]  # nothing was unpacked


def sparse(folder: Path, name: str) -> Path:
    """The official files at their official sizes, all zeros: black images of class 0, that take no disk."""
    place = folder / SETS[name].archive.folder
    place.mkdir(parents=True)
    for file, size in SETS[name].archive.files.items():
        with (place / file).open("wb") as handle:
            handle.truncate(size)
    return place


def test_official_sizes_of_cifar100_and_its_two_labels(tmp_path):
    place = sparse(tmp_path, "cifar100")
    with (place / "test.bin").open("r+b") as file:
        file.seek(3074 * 7)
        file.write(bytes([19, 99]))
    fine, coarse = load("cifar100", tmp_path), load("cifar100", tmp_path, coarse=True)
    assert len(fine.train) == 50_000 and len(fine.test) == 10_000
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)
    assert fine.classes[int(fine.test.labels[7])] == "worm"
    assert coarse.classes[int(coarse.test.labels[7])] == "vehicles_2"
    assert int(fine.test.labels.sum()) == 99 and int(coarse.test.labels.sum()) == 19


def test_the_real_images(cifar_data):
    data = load("cifar10", cifar_data)
    for split, count in ((data.train, 5000), (data.test, 1000)):
        assert torch.bincount(split.labels).tolist() == [count] * 10
    # the figures that everyone normalises CIFAR-10 with
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=3e-3)
    raw = (Path(cifar_data) / FOLDER / "data_batch_2.bin").read_bytes()[3073 * 5 :][:3073]
    assert bytes(data.train.images[10_005].flatten().tolist()) == raw[1:] and data.train.labels[10_005] == raw[0]


# refused


def test_wrong_sizes_and_missing_files(tmp_path):
    place = sparse(tmp_path, "cifar10")
    with (place / "data_batch_3.bin").open("r+b") as file:
        file.truncate(30_729_999)
    text = refused("cifar10", tmp_path)
    assert "data_batch_3.bin" in text and "30,729,999" in text and "30,730,000" in text
    (place / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin missing" in refused("cifar10", tmp_path)
    os.mkfifo(place / "data_batch_3.bin")
    assert "data_batch_3.bin: cannot be read (it is a pipe" in refused("cifar10", tmp_path)


@pytest.mark.parametrize(("name", "file", "offset", "value", "record"), [
    ("cifar10", "data_batch_4.bin", 3073 * 1234, 10, 1234),
    ("cifar10", "test_batch.bin", 3073 * 9999, 255, 9999),
    ("cifar100", "train.bin", 3074 * 49_999, 20, 49_999),  # coarse
    ("cifar100", "train.bin", 1, 100, 0),  # fine
])  # fmt: skip
def test_label_out_of_range_by_file_and_record(tmp_path, name, file, offset, value, record):
    place = sparse(tmp_path, name)
    with (place / file).open("r+b") as handle:
        handle.seek(offset)
        handle.write(bytes([value]))
    text = refused(name, tmp_path)
    assert str(place / file) in text and f"record {record} has the label {value}" in text


def test_missing_names_the_folders_and_the_command(tmp_path, cache):
    (tmp_path / "data").mkdir()
    text = refused("cifar10", tmp_path / "data", error=Missing, download=False)
    assert f"{tmp_path}/data or {cache}" in text and "curl -LO https://www.cs.toronto.edu/~kriz/" in text
    assert "`dataset=digits` needs no download" in text
    for place in ("home/.keras/datasets", "data", "home/data", "xdg/huggingface/hub"):
        assert f" or {tmp_path / place}" in text
    assert "there is no such folder" in refused("cifar10", tmp_path / "nowhere")


# archives


def archived(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(data)
    return tmp_path / "data"


def test_an_archive_that_is_not_the_published_one(tmp_path, small):
    data = small()
    folder = archived(tmp_path, data[:-1])
    assert f"{len(data) - 1:,} bytes, not {len(data):,}" in refused("cifar10", folder)
    archived(tmp_path, data[:-1] + b"x")  # in gzip's own count of bytes
    assert "cannot be read" in refused("cifar10", folder)
    archived(tmp_path, data[:4] + b"\0\0\0\0" + data[8:])  # the time of packing: the images are whole
    with pytest.warns(
        UserWarning, match=r"binary\.tar\.gz: has the name and size of what was published .* not its checksum"
    ):
        found = load("cifar10", folder)
    assert found.found.status == "differs"
    check_content(found)
    assert (folder / "cifar-10-binary.tar.gz").exists()  # a user's file is never removed


def linked(member: tarfile.TarInfo) -> None:
    if member.name.endswith("test_batch.bin"):
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


@pytest.mark.parametrize(("data", "text"), [
    (pack(FILES, linked), "test_batch.bin in it is not a plain file of"),
    (pack(FILES | {"test_batch.bin": FILES["test_batch.bin"] + b"x"}), "test_batch.bin in it is not a plain file of"),
    (pack({name: data for name, data in FILES.items() if name != "test_batch.bin"}), "test_batch.bin not in it"),
    (pack({f"/{FOLDER}/{name}": data for name, data in FILES.items()}), "not in it"),
    (pack({f"../{FOLDER}/{name}": data for name, data in FILES.items()}), "not in it"),
    (pack(FILES)[:-2000], "cannot be read"),
    (b"\x1f\x8b garbage", "cannot be read"),
])  # fmt: skip
def test_hostile_archives_even_with_the_right_checksum(tmp_path, small, data, text):
    folder = archived(tmp_path, small(data))
    assert text in refused("cifar10", folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "data"]


def test_members_beside_the_named_ones_are_neither_written_nor_read(tmp_path, small):
    extra = {
        "/abs/evil.bin": b"x",
        "../up.bin": b"x",
        f"{FOLDER}/readme.html": b"x",
        f"{FOLDER}/../test_batch.bin": b"x",
    }
    folder = archived(tmp_path, small(pack(extra | FILES)))
    check_content(load("cifar10", folder))
    shutil.rmtree(tmp_path / "xdg")  # the note on an exact set
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "data"]


def test_a_huge_member_ends_the_search(tmp_path, small):
    """50 MB of zeros in front, which compress to nothing."""
    folder = archived(tmp_path, small(pack({f"{FOLDER}/huge": bytes(50_000_000)} | FILES)))
    assert "not in it" in refused("cifar10", folder)


def test_an_archive_left_in_the_cache_is_used(small, cache):
    cache.mkdir(parents=True)
    (cache / "cifar-10-binary.tar.gz").write_bytes(small())
    check_content(load("cifar10", download=False))


def test_a_cache_that_cannot_be_written(tmp_path, small, monkeypatch):
    small()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in refused("cifar10")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(cache):
    cache.parent.mkdir(mode=0o500)
    assert "XDG_CACHE_HOME" in refused("cifar10")


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "xdg" / "cifarnet"
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/path"):  # the XDG specification has relative paths ignored
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "cifarnet"


def test_official_figures():
    """Sizes follow from the records; names are as many as the labels."""
    for name, per_file in (("cifar10", [10_000] * 6), ("cifar100", [50_000, 10_000])):
        assert [size / SETS[name].record for size in SETS[name].archive.files.values()] == per_file
    assert [len(classes) for classes in SETS["cifar100"].label_classes] == [20, 100]
    assert cifar.OFFICIAL.startswith("https://")
