"""`cifarnet data`: what it says is there, what it writes in other layouts, and what it refuses."""

import dataclasses
import io
import json
import os
import resource
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import status_of
from PIL import Image

from cifarnet.core.errors import Failed
from cifarnet.data import DATASETS, dataset, load
from cifarnet.data.convert import check_written, convert
from cifarnet.data.found import Found
from cifarnet.data.hashing import hash_images
from cifarnet.data.identity import identity_of
from cifarnet.data.sources import server
from cifarnet.data.sources.cifar import SETS
from cifarnet.data.sources.mirrors import MIRRORS

KEYS = ["name", "layout", "path", "train", "test", "classes", "digest", "status", "left_out"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Official binary files of both sets with three records each, by the name of the set; the network is not there."""
    monkeypatch.setattr(server, "PLAIN", ("127.0.0.1",))
    monkeypatch.setenv("no_proxy", "*")
    for official in list(MIRRORS):
        monkeypatch.delitem(MIRRORS, official)
    written = {}
    for name in ("cifar10", "cifar100"):
        cifar, rng = SETS[name], np.random.default_rng(7)
        files = dict.fromkeys(cifar.archive.files, 3 * cifar.record)
        archive = dataclasses.replace(cifar.archive, files=files, url="http://127.0.0.1:9/x.tar.gz")
        monkeypatch.setitem(SETS, name, dataclasses.replace(cifar, archive=archive))
        folder = tmp_path / "mine" / archive.folder
        folder.mkdir(parents=True)
        for file in files:
            labels = np.hstack([rng.integers(0, len(classes), (3, 1)) for classes in cifar.label_classes])
            records = np.hstack([labels, rng.integers(0, 256, (3, 3072))]).astype(np.uint8)
            (folder / file).write_bytes(records.tobytes())
        written[name] = folder
    return written


def rows_of(images, labels):
    """(label, pixels) of each image, in an order of their own."""
    return sorted((label, image.tobytes()) for image, label in zip(images, labels, strict=True))


def test_the_list_has_a_row_for_each_data_set(cli, small):
    code, out, err = cli("data", "--json", "--data-dir", "mine")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (code, err) == (0, "") and list(rows) == list(DATASETS)
    assert all(list(row)[: len(KEYS)] == KEYS for row in rows.values())
    digits = load("digits")
    expected = identity_of(digits.classes, digits.train, digits.test).digest
    assert rows["digits"] | {"train": 1442, "test": 355, "classes": 10, "digest": expected} == rows["digits"]
    assert rows["cifar10"] | {"train": 15, "test": 3, "classes": 10} == rows["cifar10"] and rows["cifar10"]["digest"]
    assert rows["folder"]["status"] == "missing" and "holds the files of CIFAR-10" in rows["folder"]["problem"]
    code, out, err = cli("data")
    assert (code, err) == (0, "") and "cifarnet data cifar10 --download fetches it" in out
    assert out.splitlines()[5].split()[:2] == ["folder", "–"]  # nothing says where it would lie


def test_one_data_set(cli, small):
    code, out, err = cli("data", "cifar10", "--data-dir", "mine")
    assert (code, err) == (0, "")
    said = dict(line.split("  ", 1) for line in out.splitlines())
    assert (
        said["training images"].strip() == "15"
        and said["classes"].strip() == "10"
        and len(said["digest"].strip()) == 16
    )


def test_missing_is_refused_with_what_to_do(cli, small, tmp_path):
    code, out, err = cli("data", "cifar10")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"not in {tmp_path / 'cache' / 'cifarnet'}" in err and "`cifarnet data cifar10 --download` fetches it" in err
    code, out, err = cli("data", "cifar10", "--download")
    assert (code, out) == (2, "") and "127.0.0.1: Connection refused" in err and "curl -LO" in err


def test_pictures_hold_the_pixels_and_are_where_their_class_is(cli, tmp_path):
    code, _, err = cli("data", "digits", "--convert", "folder", "--out", "made/png")
    assert code == 0 and "read back, the same classes, labels and pixels of 1,797 images as in digits" in err
    digits = load("digits")
    for name, split in (("train", digits.train), ("test", digits.test)):
        files = sorted((tmp_path / "made" / "png" / name).rglob("*.png"), key=lambda path: path.name)
        assert [int(path.stem) for path in files] == list(range(len(split)))
        assert [digits.classes.index(path.parent.name) for path in files] == split.labels.tolist()
        pixels = np.stack([np.asarray(Image.open(path)) for path in files])
        assert np.array_equal(pixels.transpose(0, 3, 1, 2), split.images.numpy())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["png"]  # nothing temporary is left
    broken = tmp_path / "made" / "png" / "test" / "nine"
    path = next(broken.iterdir())
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(Failed, match="its test images are not those that were written"):
        check_written(digits, "folder", tmp_path / "made" / "png")


def test_images_whose_hashes_are_known_are_not_hashed_again(tmp_path, monkeypatch):
    """Their classes are numbered anew in an image folder, which leaves the images as they are."""
    digits, hashed = load("digits"), []
    few = {name: getattr(digits, name).subset(torch.arange(40)) for name in ("train", "test")}
    for split in few.values():
        split.hash_now()
    monkeypatch.setattr(dataset, "hash_images", lambda images: hashed.append(images) or hash_images(images))
    convert(dataclasses.replace(digits, **few), "folder", tmp_path / "made")
    assert not [images for images in hashed if any(images is split.images for split in few.values())]


def test_parquet_as_the_hub_has_it(cli, tmp_path):
    (tmp_path / "made").mkdir()  # an empty folder will do
    code, out, err = cli("data", "digits", "--convert", "parquet", "--out", "made", "--json")
    assert code == 0 and json.loads(out)["train"] == 1442 and "the same classes" in err
    digits = load("digits")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "test-00000-of-00001.parquet", "train-00000-of-00001.parquet",
    ]  # fmt: skip
    for name, split in (("train", digits.train), ("test", digits.test)):
        table = pq.read_table(tmp_path / "made" / f"{name}-00000-of-00001.parquet")
        assert table.column_names == ["img", "label"] and table["label"].to_pylist() == split.labels.tolist()
        images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
        assert np.array_equal(np.stack(images).transpose(0, 3, 1, 2), split.images.numpy())
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert features["label"]["names"] == list(digits.classes) and features["img"] == {"_type": "Image"}


def test_binary_files_are_the_official_ones_byte_for_byte(cli, small, tmp_path):
    for name, source in small.items():
        code, _, err = cli("data", name, "--data-dir", "mine", "--convert", "binary", "--out", f"out-{name}")
        assert code == 0 and "the same classes" in err, err
        made = tmp_path / f"out-{name}" / source.name
        for file in SETS[name].archive.files:
            assert (made / file).read_bytes() == (source / file).read_bytes(), file
    source = small["cifar10"]
    (source / "substituted.tsv").write_text("file\trecord\ndata_batch_2.bin\t1\n")
    data = dataclasses.replace(load("cifar10", source), found=Found("official binary", source))
    written = convert(data, "binary", tmp_path / "patched")
    assert written.substituted == data.substituted == (1, 0)  # what is known of the pixels goes with them


REFUSED = [
    ("--download", "--download: no data set is named"),
    ("--convert folder --out new", "--convert: no data set is named"),
    ("digits --download", "--download: digits is not downloaded; cifar10 and cifar100 are"),
    ("digits --convert folder", "--out: --convert and --out go together"),
    ("digits --out new", "--convert: --convert and --out go together"),
    ("digits --convert binary --out new", "--convert binary: digits has no official binary layout"),
    ("digits --convert parqet --out new", "did you mean parquet?"),
    ("synthetic-identities --convert folder --out new", "is not converted: it has no images"),
    ("folder --data-dir . --convert folder --out new", "is not converted: its files are your own"),
    ("digits --convert folder --out full", "full: is not empty: mine.txt is in it"),
    ("digits --convert folder --out full/mine.txt", "mine.txt: is not a folder"),
    ("digits --convert folder --out full/mine.txt/x", "mine.txt/x: is not a folder"),
    ("digits --convert folder --out nothing", "nothing: is a link into nothing"),
    ("cifr10", "NAME: 'cifr10' is not known; did you mean cifar10?"),
    ("cifar10 --data-dir nowhere", "--data-dir nowhere: there is no such folder"),
]


def test_what_is_refused_leaves_everything_as_it_was(cli, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "nothing").symlink_to("nowhere")
    for line, text in REFUSED:
        code, out, err = cli("data", *line.split())
        assert (code, out, err.count("\n")) == (2, "", 1) and text in err, (line, err)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "nothing"], line
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_one_left_is_in_nobodys_way(cli, tmp_path, monkeypatch, there):
    """Killed when all is written and nothing moved; then the same line once more."""
    if there:
        (tmp_path / "out").mkdir()
    line = ("data", "digits", "--convert", "folder", "--out", "out")
    with monkeypatch.context() as patch:
        patch.setattr("cifarnet.data.convert.fill_folder", lambda *places: os.kill(os.getpid(), signal.SIGKILL))
        assert status_of(lambda: cli(*line)) == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.png"))) > 1000
    assert cli(*line)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test", "train"]


def test_a_disk_that_takes_no_more_leaves_nothing(cli, tmp_path):
    """No file may grow beyond 100 kB."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        code, _, err = cli("data", "digits", "--convert", "parquet", "--out", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 1 and "out: cannot be written (File too large); free some space" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_run_trains_on(cli):
    """The counts by the formula of the long tail; what is not named stays as the run has it."""
    line = "train --dataset digits --arch baseline --epochs 1 --batch-size 200 --augment none --device cpu -q --out run"
    assert cli(*line.split(), "--hold-out-classes", "eight,nine", "--imbalance", "10", "--label-noise", "0")[0] == 0
    found = json.loads(cli("data", "--run", "run", "--json")[1])
    labels = load("digits").train.labels
    most = max(int((labels == digit).sum()) for digit in range(8))
    assert found["images_per_class"] == [
        min(round(most * 10 ** (-digit / 7)), int((labels == digit).sum())) for digit in range(8)
    ]
    assert found["held_out_classes"] == ["eight", "nine"] and found["train_images"] == sum(found["images_per_class"])
    summary = json.loads(cli("runs", ".", "--json")[1])[0]
    assert found["data_digest"] == summary["data_digest"] != found["source_digest"]
    code, out, _ = cli("data", "--run", "run")
    assert code == 0 and f"{found['data_digest']} of {found['source_digest']}" in out and "long tail 10:1" in out
    code, _, err = cli("data", "digits", "--run", "run")
    assert code == 2 and err == "error: --run: names the data set itself; leave the other names and options out\n"
