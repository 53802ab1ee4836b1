"""CIFAR in every layout that people have: the same images and labels, found where other tools leave them, and how far it is known."""

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import torchvision
from pickled import python2, python3
from PIL import Image

from cifarnet.core.errors import Refused
from cifarnet.data import load, pixels_of
from cifarnet.data.sources.cifar_sets import SETS, PublishedBatch

COUNT = 4  # images in a file


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home and a current folder without anything in them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for name in ("KERAS_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


class Small:
    """One of the sets with four images a file, as if it had been published so, and its writers.

    `files`: of each Python batch its labels [4, label bytes] and its pixels [4, 3072].
    """

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.patch = name, monkeypatch
        rng, cifar = np.random.default_rng(0), SETS[name]
        sizes = [len(classes) for classes in cifar.label_classes]
        self.files = {
            batch: (rng.integers(0, sizes, (COUNT, len(sizes))), rng.integers(0, 256, (COUNT, 3072)).astype(np.uint8))
            for batch in cifar.batches
        }
        self.publish(
            archive=dataclasses.replace(cifar.archive, files=dict.fromkeys(cifar.archive.files, COUNT * cifar.record))
        )

    def publish(self, **changes) -> None:
        self.patch.setitem(SETS, self.name, dataclasses.replace(SETS[self.name], **changes))

    def binary(self) -> dict[str, bytes]:
        rows = {name: np.hstack([labels, pixels]) for name, (labels, pixels) in self.files.items()}
        return {f"{name}.bin": row.astype(np.uint8).tobytes() for name, row in rows.items()}

    def content(self, name: str) -> dict:
        labels, pixels = self.files[name]
        keys = dict(zip(SETS[self.name].label_keys, labels.T.tolist(), strict=True))
        return {"batch_label": name, **keys, "data": pixels, "filenames": [f"{i}.png" for i in range(COUNT)]}

    def batches(self) -> dict[str, bytes]:
        """As Python 2 wrote them; published with their checksums."""
        made = {name: python2(self.content(name)) for name in self.files}
        self.publish(
            batches={name: PublishedBatch(hashlib.md5(data).hexdigest(), len(data)) for name, data in made.items()}
        )
        return made

    def archive(self, kind: str, files: dict[str, bytes]) -> bytes:
        """The .tar.gz of these files, published."""
        known, buffer = getattr(SETS[self.name], kind), io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(f"{known.folder}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        data = buffer.getvalue()
        md5, sha256 = (hashlib.new(name, data).hexdigest() for name in ("md5", "sha256"))
        self.publish(**{kind: dataclasses.replace(known, size=len(data), md5=md5, sha256=sha256)})
        return data

    def rows(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and pixels of "train" or "test", in the official order."""
        names = [name.removesuffix(".bin") for name in getattr(SETS[self.name], split)]
        labels, pixels = zip(*(self.files[name] for name in names), strict=True)
        return np.concatenate(labels), np.concatenate(pixels)

    def parquet(self, folder: Path) -> Path:
        """As the Hugging Face hub has it."""
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            labels, pixels = self.rows(split)
            rows = [{"bytes": png(image), "path": None} for image in pixels]
            columns = {
                "img": pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
            }
            columns |= dict(zip(SETS[self.name].label_columns, labels.T.tolist(), strict=True))
            pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{split}-00000-of-00001.parquet")
        return folder

    def check(self, place: Path | None, layout: str, status: str, at: Path, **options) -> None:
        """Loads it and compares it with what was written."""
        data = load(self.name, place, download=False, **options)
        for split in ("train", "test"):
            labels, pixels = self.rows(split)
            found = getattr(data, split)
            assert found.labels.tolist() == labels[:, 0 if options.get("coarse") else -1].tolist()
            assert np.array_equal(found.images.numpy().reshape(-1, 3072), pixels)
        assert (data.found.layout, data.found.status, data.found.path) == (layout, status, at)


def png(pixels: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0))).save(file, form)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def refusal(name: str, place: Path | None) -> str:
    with pytest.raises(Refused) as caught:
        load(name, place, download=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:.*Python layout")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_each_layout_is_the_same_set(tmp_path, monkeypatch, name):
    small, cifar = Small(name, monkeypatch), SETS[name]
    binary, python = "official binary", "Python batches"
    loose = write(tmp_path / "a" / cifar.archive.folder, small.binary())
    for place in (loose, loose.parent, loose / next(iter(small.binary())), Path("../a")):
        small.check(place, binary, "unverified", loose)
    others = {batch: python3(small.content(batch), 4, 2) for batch in small.files}
    loose = write(tmp_path / "b" / "unpacked" / cifar.python.folder, others)
    for place in (loose, loose.parent, loose.parent.parent, Path("../b")):
        small.check(place, python, "unverified", loose)
    loose = small.parquet(tmp_path / "c" / cifar.parquet[1])
    for place in (loose, loose.parent, loose / "test-00000-of-00001.parquet"):
        small.check(place, "parquet", "unverified", loose)
    assert not (tmp_path / "xdg" / "cifarnet" / "exact").exists()
    loose = write(tmp_path / "d" / cifar.python.folder, small.batches())
    small.check(tmp_path / "d", python, "exact", loose)
    for kind, files, layout in (("archive", small.binary(), binary), ("python", small.batches(), python)):
        packed = write(tmp_path / kind, {"renamed.tgz": small.archive(kind, files)}) / "renamed.tgz"
        small.check(packed, layout, "exact", packed)
        proper = packed.rename(packed.with_name(getattr(SETS[name], kind).name))
        small.check(proper.parent, layout, "exact", proper)
    # the content is known now, by the batches whose checksum was seen: every layout of it is exact
    for place, layout in (("a", binary), ("b", python), ("c", "parquet")):
        assert load(name, tmp_path / place).found.status == "exact", layout
    if name == "cifar100":
        small.check(
            tmp_path / "b", python, "unverified", tmp_path / "b" / "unpacked" / cifar.python.folder, coarse=True
        )


def test_as_torchvision_reads_the_same_batches(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    write(tmp_path / "data" / "cifar-10-batches-py", small.batches())
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
    mine = load("cifar10", tmp_path / "data")
    for split, train in ((mine.train, True), (mine.test, False)):
        theirs = torchvision.datasets.CIFAR10(tmp_path / "data", train=train)
        assert torch.equal(split.images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
        assert split.labels.tolist() == theirs.targets


def test_resized_images_keep_their_hashes(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    write(tmp_path / "data", small.binary())
    data = load("cifar10", tmp_path / "data", image_size=48)
    assert data.test.images.shape == (COUNT, 3, 48, 48)
    head = np.array([32, 32], "<u4").tobytes()
    known = [hashlib.sha256(head + row.tobytes()).digest() for row in small.rows("test")[1]]
    assert [bytes(row.tolist()) for row in data.test.hashes] == known


# how far it is the published set


def test_a_batch_with_another_checksum_is_used_and_said(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    files = small.batches()
    folder = write(tmp_path / "cifar-10-batches-py", files)
    small.files["test_batch"][1][0, 0] ^= 1
    (folder / "test_batch").write_bytes(python2(small.content("test_batch")))
    with pytest.warns(
        UserWarning, match="has the name and size of what was published as CIFAR-10, but not its checksum"
    ):
        small.check(tmp_path, "Python batches", "differs", folder)
    (folder / "test_batch").write_bytes(python3(small.content("test_batch"), 2, 1))
    with pytest.warns(UserWarning, match="Python layout, not the published files of CIFAR-10"):
        small.check(tmp_path, "Python batches", "unverified", folder)
    (folder / "substituted.tsv").write_text("file\trecord\ntest_batch.bin\t0\ndata_batch_2\t3\n")
    small.check(tmp_path, "Python batches", "patched: 2 images", folder)
    assert load("cifar10", tmp_path).substituted == (1, 1)


def test_the_words_for_pixels_follow_the_status(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    write(tmp_path / "cifar-10-batches-py", small.batches())
    assert pixels_of(load("cifar10", tmp_path)) == "exact"
    assert (tmp_path / "xdg" / "cifarnet" / "exact").stat().st_mode & 0o077 == 0


# damaged, or something else


def test_broken_batches_are_refused_by_file_and_reason(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    folder = write(tmp_path / "cifar-10-batches-py", small.batches())
    good = small.content("data_batch_3")
    for content, words in (
        ([good], "it holds no dict"),
        ({**good, "data": good["data"][:3]}, 'its "data" are not 4 rows of 3,072 pixels'),
        ({**good, "data": good["data"].astype(np.float32)}, "it would make something that is no array of uint8"),
        ({**good, "labels": good["labels"][:3]}, 'its "labels" are not 4 whole numbers'),
        ({**good, "labels": [True] * 4}, 'its "labels" are not 4 whole numbers'),
        ({**good, "labels": [0, 0, 0, -1]}, "not all in the range of a byte"),
        ({**good, "labels": [0, 10, 0, 0]}, "record 1 has the label 10, above 9"),
        ({"data": good["data"]}, 'its "labels" are not'),
    ):
        (folder / "data_batch_3").write_bytes(python3(content, 4, 2))
        text = refusal("cifar10", tmp_path)
        assert text.startswith(str(folder / "data_batch_3")) and words in text
    (folder / "data_batch_3").unlink()
    assert "data_batch_3 missing" in refusal("cifar10", folder)


def test_broken_parquet_is_refused(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    folder = small.parquet(tmp_path / "data")
    path, good = folder / "test-00000-of-00001.parquet", small.rows("test")
    pictures = [png(row) for row in good[1]]
    large = io.BytesIO()
    Image.new("RGB", (33, 32)).save(large, "PNG")
    for columns, words in (
        ({"img": pictures}, "it has no column label, as CIFAR-10 has"),
        ({"img": pictures[:3], "label": [0] * 3}, "there are 3 images, not the 4 of CIFAR-10"),
        ({"img": pictures * 2, "label": [0] * 8}, "there are more than the 4 images of CIFAR-10"),
        ({"img": ["a"] * 4, "label": [0] * 4}, "its columns are not images and labels"),
        ({"img": [None, *pictures[1:]], "label": [0] * 4}, "it has rows without an image or a label"),
        ({"img": pictures, "label": [0, 0, 0, 300]}, "it has a label that is none"),
        ({"img": pictures, "label": [0, 0, 11, 0]}, "record 2 has the label 11, above 9"),
        ({"img": [*pictures[:3], pictures[3][:60]], "label": [0] * 4}, "row 3 of"),
        ({"img": [*pictures[:3], b""], "label": [0] * 4}, "row 3 of"),
        ({"img": [large.getvalue(), *pictures[1:]], "label": [0] * 4}, "is no PNG of 32x32 pixels"),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        assert words in refusal("cifar10", tmp_path / "data"), words
    path.write_bytes(b"PAR1 and no more")
    assert "cannot be read as parquet" in refusal("cifar10", tmp_path / "data")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    assert 'pip install "cifarnet[parquet]"' in refusal("cifar10", tmp_path / "data")


def test_places_that_hold_something_else(tmp_path, monkeypatch):
    small = Small("cifar10", monkeypatch)
    write(tmp_path / "xdg" / "cifarnet" / "cifar-10-batches-bin", small.binary())  # nothing falls back on it
    kaggle = write(tmp_path / "kaggle" / "test", {"1.png": b""}).parent
    (kaggle / "trainLabels.csv").write_text("id,label\n")
    assert "Kaggle's CIFAR-10" in refusal("cifar10", kaggle) and "never taken as a test set" in refusal(
        "cifar10", kaggle
    )
    for folder in ("pictures", "pictures2/train"):
        for name in SETS["cifar10"].label_classes[0]:
            (tmp_path / folder / name).mkdir(parents=True)
        assert "`dataset=folder` reads it" in refusal("cifar10", tmp_path / folder.split("/")[0])
    other = write(tmp_path / "other", {"cifar-100-binary.tar.gz": b"x", "readme.txt": b"x"})
    assert "this is CIFAR-100, not CIFAR-10" in refusal("cifar10", other / "cifar-100-binary.tar.gz")
    assert "is no archive of CIFAR-10; `data_dir` takes cifar-10-binary.tar.gz, cifar-10-python" in refusal(
        "cifar10", other / "readme.txt"
    )
    assert "it has 1 byte, not 170,498,071" in refusal(
        "cifar10", write(tmp_path / "cut", {"cifar-10-python.tar.gz": b"x"})
    )


# caches of other tools


def test_caches_of_other_tools_are_used_and_named(tmp_path, monkeypatch, home):
    small = Small("cifar10", monkeypatch)
    files, known = small.batches(), "cifar-10-batches-py"
    packed = small.archive("python", files)
    keras, hub = home / ".keras" / "datasets", tmp_path / "xdg" / "huggingface" / "hub"
    # The later one is preferred.
    for place, contents, owner in (
        (hub / "datasets--uoft-cs--cifar10" / "snapshots" / "0a1b" / "plain_text", None, "the Hugging Face hub"),
        (home / "data" / known, files, "torchvision"),
        (tmp_path / "here" / "data" / known, files, "torchvision"),
        (keras, {f"{known}-target_archive": packed}, "Keras"),
        (keras / known, files, "Keras"),
        (keras / f"{known}-target" / known, files, "Keras"),
    ):
        at = small.parquet(place) if contents is None else write(place, contents)
        before = sorted((path, path.stat().st_mtime_ns) for path in home.rglob("*"))
        at = next(iter(at.glob("*_archive")), at)
        layout, status = ("parquet", "unverified") if contents is None else ("Python batches", "exact")
        with pytest.warns(UserWarning, match=f"CIFAR-10 is read from {at}, in the cache of {owner}"):
            small.check(None, layout, status, at)
        assert before == sorted((path, path.stat().st_mtime_ns) for path in home.rglob("*"))
    (keras / f"{known}-target" / known / "data_batch_1").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="no batch of CIFAR-10.*; left alone, as it is Keras's"):
        small.check(None, "Python batches", "exact", keras / known)
    (tmp_path / "empty").mkdir()
    with pytest.warns(
        UserWarning, match=f"CIFAR-10 is not in {tmp_path}/empty: it is read from .*, in the cache of Keras"
    ):
        small.check(tmp_path / "empty", "Python batches", "exact", keras / known)
