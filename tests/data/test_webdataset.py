"""WebDataset tar shards, written by the package or by hand, beside what the package reads from them."""

import io
import json
import os
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from conftest import at_once
from PIL import Image

from cifarnet.core.errors import Failed, Refused
from cifarnet.data import Loader, Split, StreamedSplit, load
from cifarnet.data.images import index
from cifarnet.data.sources import members
from cifarnet.data.sources import tar_index as tar
from cifarnet.data.sources import webdataset as shards

PATTERN = "{train-{000..002},test-000}.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cifarnet" / "index"


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (10 + number % 5, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(number: int, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "JPEG" if kind == "jpg" else kind)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training shards and a test shard of 8 images each, in three classes, as the package writes them."""
    for shard, name in enumerate(("train-000", "train-001", "train-002", "test-000")):
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar")) as sink:
            for number in range(8 * shard, 8 * shard + 8):
                kind = ("png", "jpg", "PNG")[number % 3]
                label = {"cls": number % 3} if number % 2 else {"json": {"label": number % 3, "caption": "x"}}
                sink.write({"__key__": f"some/{number:04}", kind: encoded(number, kind.lower()), **label})
    return tmp_path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w", **options) -> Path:
    with tarfile.open(path, mode, **options) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def everything(split) -> torch.Tensor:
    return next(iter(split.batches([torch.arange(len(split))])))


@pytest.fixture
def count(tmp_path_factory, monkeypatch) -> Callable[[], tuple[int, int]]:
    """How many shards were listed and how many images decoded since it was last asked, in whatever process."""
    log = tmp_path_factory.mktemp("log") / "log"

    def counted(letter, work):
        def call(*arguments, **options):
            with open(log, "a") as file:
                file.write(letter)
            return work(*arguments, **options)

        return call

    def ask() -> tuple[int, int]:
        text = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return text.count("s"), text.count("i")

    monkeypatch.setattr(tar, "list_samples", counted("s", tar.list_samples))
    monkeypatch.setattr(members, "read_square_bytes", counted("i", members.read_square_bytes))
    return ask


@pytest.mark.parametrize("ceiling", [index.MEMORY, 1000], ids=["memory", "streamed"])
def test_it_is_what_the_package_reads(root, monkeypatch, ceiling, count):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    data = load("webdataset", root / PATTERN)
    assert count() == (4, 32)
    again = load("webdataset", root)  # the folder is the same four shards, in another order: the test shard comes first
    assert count()[0] == 0
    kind = Split if ceiling > 1000 else StreamedSplit
    for found in (data, again):
        assert isinstance(found.train, kind) and found.classes == ("0", "1", "2")
        for pattern, split in (("train-{000..002}.tar", found.train), ("test-000.tar", found.test)):
            theirs = list(webdataset.WebDataset(str(root / pattern), shardshuffle=False).decode("pil"))
            labels = [sample["cls"] if "cls" in sample else sample["json"]["label"] for sample in theirs]
            images = [sample["png"] if "png" in sample else sample["jpg"] for sample in theirs]
            squeezed = [np.array(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for image in images]
            assert split.labels.tolist() == labels and len(labels) in (8, 24)
            assert torch.equal(everything(split), torch.from_numpy(np.stack(squeezed)).permute(0, 3, 1, 2))
    pixels = everything(data.train).double().numpy() / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)
    count()
    load("webdataset", root / PATTERN)
    assert count() == (0, 0)


def test_order_and_resuming_within_an_epoch(root, monkeypatch):
    """Streamed shards give the batches of the same images in memory, from any batch on, for any number of workers."""
    memory = load("webdataset", root)
    monkeypatch.setattr(index, "MEMORY", 1000)
    streamed = load("webdataset", root)

    def batches(split, workers, start):
        loader = Loader(
            split, 5, "cpu", mean=memory.mean, std=memory.std, workers=workers, seed=2, augment="basic", shuffle=True
        )
        return list(loader.epoch(3, start))

    expected = batches(memory.train, 0, 0)
    for workers, start in ((0, 0), (0, 3), (2, 2)):
        got = batches(streamed.train, workers, start)
        assert len(got) == len(expected) - start
        for (x, y), (u, v) in zip(expected[start:], got, strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)


def test_class_names(root):
    (root / "classes.txt").write_text("zero\n one \nzwei\n\n")
    assert load("webdataset", root).classes == ("zero", "one", "zwei")
    for text, why in (
        ("zero\none\n", "there are 2 classes"),
        ("a\na\nb\n", "all different"),
        ("a\n\nb\n", "all different"),
    ):
        (root / "classes.txt").write_text(text)
        assert why in refusal(root)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert "no training images of d" in refusal(root)


def test_a_cls_goes_before_a_json_whichever_comes_first(tmp_path):
    image, cls, other = encoded(1), b"1", b'{"label": 0}'
    files = {"a.png": image, "a.cls": cls, "a.json": other, "b.json": other, "b.png": image, "b.cls": cls}
    path = write_tar(tmp_path / "train.tar", files | {"c.json": other, "c.png": image})
    assert tar.read_shard(path).labels.tolist() == [1, 1, 0]


def refusal(path: Path | None) -> str:
    with pytest.raises(Refused) as caught:
        load("webdataset", path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_which_shards_are_the_test_set(root):
    (root / "test-000.tar").rename(root / "set-val-000.tar")
    assert len(load("webdataset", root).test) == 8
    write_tar(root / "test.tar", {"a.png": encoded(1), "a.cls": b"1", "b.png": encoded(2), "b.cls": b"0"})
    with pytest.warns(UserWarning, match="not used: set-val-000.tar"):
        data = load("webdataset", root)
    assert len(data.test) == 2 and len(data.train) == 24
    with pytest.raises(Refused, match="no training images"):
        load("webdataset", root / "test.tar")


def test_without_test_shards_every_tenth_of_a_class_is_a_test_image(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, 60)
    for shard in range(2):
        files = {}
        for number in range(30 * shard, 30 * shard + 30):
            files |= {f"{number}.png": encoded(number), f"{number}.cls": str(labels[number]).encode()}
        write_tar(tmp_path / f"shards-{shard}.tar", files)
    with pytest.warns(UserWarning, match="every 10th image of each class"):
        data = load("webdataset", tmp_path / "shards-{0..1}.tar")
    seen, tested = [0, 0], []
    for number, label in enumerate(labels):
        seen[label] += 1
        tested += [number] if seen[label] % 10 == 0 else []
    assert data.test.labels.tolist() == labels[tested].tolist()
    assert torch.equal(
        data.test.images, torch.stack([members.read_square_bytes("", encoded(n), 32).pixels for n in tested])
    )
    assert len(data.train) == 60 - len(tested)


def test_a_shard_that_changes(root, monkeypatch, count):
    monkeypatch.setattr(index, "MEMORY", 1000)
    data = load("webdataset", root)
    count()
    path = root / "train-001.tar"
    path.write_bytes(path.read_bytes())  # in place, the same size
    with pytest.raises(Failed, match=r"train-001.tar: was changed since the start"):
        everything(data.train)
    count()
    load("webdataset", root)
    assert count() == (1, 8)
    path.unlink()
    with pytest.raises(Failed, match=r"train-001\.tar: there is no such file"):
        everything(data.train)
    assert "1 of 4 shards are not there" in refusal(root / PATTERN)


def test_a_damaged_or_hostile_listing_is_ignored(root, cache, count):
    load("webdataset", root / PATTERN)
    whole = {path: path.read_bytes() for path in cache.glob("*.safetensors")}
    assert len(whole) == 5
    for place in (100, -1):
        for path, data in whole.items():
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + (data[place + 1 :] if place > 0 else b""))
        count()
        load("webdataset", root / PATTERN)
        assert count() == (4, 32)
        assert {path: path.read_bytes() for path in whole} == whole
    path = root / "train-000.tar"
    place = tar.arrays_path(f"shard/{os.path.realpath(path)}")
    status = path.stat()
    good = {"offsets": [512], "sizes": [10], "labels": [0], "names": np.zeros((1, tar.NAME_WIDTH), np.uint8)}
    good["notes"] = np.frombuffer(b"[[], []]", np.uint8)
    for name, value in (
        ("offsets", [-1]),
        ("offsets", [2**62]),
        ("sizes", [2**40]),
        ("labels", [-1]),
        ("labels", [0, 1]),
    ):
        arrays = {key: np.array(array) for key, array in (good | {name: value}).items()}
        tar.write_arrays(place, f"shard {status.st_size} {status.st_mtime_ns}", arrays)
        count()
        load("webdataset", root / PATTERN)
        assert count() == (1, 0)


def test_processes_that_start_at_once_do_the_work_once(root, count):
    def start() -> tuple:
        data = load("webdataset", root)
        return data.mean, data.train.labels.tolist(), data.train.images.long().sum().item()

    found = at_once(start)
    assert found[0] == found[1] == found[2] and count() == (4, 32)


PAIR = {"a.png": encoded(1), "a.cls": b"0", "b.png": encoded(2), "b.cls": b"1"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({**PAIR, "c.png": encoded(3)}, "c.png: has no label; add c.cls"),
        ({"c.png": encoded(3), **PAIR}, "c.png: has no label"),
        ({**PAIR, "c\n.png": encoded(3)}, "c\\n.png: has no label; add c\\n.cls"),
        ({**PAIR, "c.png": b"", "c.json": b'{"caption": 3}'}, "c.png: has no label"),
        ({**PAIR, "c.png": encoded(3), "c.json": b"[" * 100_000}, "c.png: has no label"),
        ({**PAIR, "c.png": encoded(3), "c.json": b'{"label": true}'}, "c.png: has no label"),
        ({**PAIR, "c.png": encoded(3), "c.cls": b"three"}, "c.png: has a class name as its label, and "),
        ({**PAIR, "c.cls": b"-1"}, "c.cls: is no class number"),
        ({**PAIR, "c.cls": b"9" * 30}, "c.cls: is no class number"),
        ({**PAIR, "c.cls": b"1" * (tar.MAX_LABEL + 1)}, "too many for a label"),
        ({**PAIR, "c.png": encoded(3), "c.cls": b"99"}, "labels go up to 99, and there are 4 images"),
        ({**PAIR, "c.png": encoded(3), "c.cls": b"3", "d.png": encoded(3), "d.cls": b"3"}, "no training images of 2"),
        ({"a.png": encoded(1), "a.cls": b"0"}, "all images have one label"),
        ({**PAIR, "c.png": encoded(3), "c.PNG": encoded(3), "c.cls": b"1"}, "c.PNG: stands twice"),
        ({**PAIR, "c.png": encoded(3)[:50], "c.cls": b"1"}, "1 of 4 cannot be used: {path}/c.png (is truncated"),
        ({**PAIR, "c.png": b"no image", "c.cls": b"1"}, "{path}/c.png (is not an image"),
        ({**PAIR, "c\x1b[2J.png": b"", "c\x1b[2J.cls": b"1"}, "{path}/c\\x1b[2J.png ("),
        ({"photos/cat/1.png": encoded(3)}, "; or unpack it where its folders are the classes"),
        ({"readme": b"", "x.txt": b""}, "no samples in it"),
        ({}, "no samples in it"),
    ],
)  # fmt: skip
def test_samples_that_are_refused(tmp_path, files, why):
    path = write_tar(tmp_path / "train.tar", files)
    write_tar(tmp_path / "test.tar", {"a.png": encoded(1), "a.cls": b"0"})
    assert why.format(path=path) in refusal(tmp_path)


def test_tars_that_are_refused(root):
    path = root / "train-001.tar"
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # where the end mark begins
    for length in (0, 100, 700, 5000, 1024, end - 512, end):
        path.write_bytes(whole[:length])
        assert any(word in refusal(root) for word in ("cut short", "damaged")), length
    path.write_bytes(whole[:2048] + b"\xff" * 512 + whole[2560:])
    assert "train-001.tar" in refusal(root)
    for mode, name in (("w:gz", "train-001.tar"), ("w:gz", "more.tar.gz")):
        found = write_tar(root / name, PAIR, mode)
        assert "damaged" in refusal(root) if name == "train-001.tar" else "is compressed" in refusal(found)
    path.unlink()
    os.mkfifo(path)
    assert "train-001.tar" in refusal(root / PATTERN)


@pytest.mark.parametrize(
    ("kind", "size", "why"),
    [
        (tarfile.XHDTYPE, 1 << 40, "a header of 1,099,511,627,776 bytes"),
        (tarfile.GNUTYPE_LONGNAME, 1 << 40, "a header of 1,099,511,627,776 bytes"),
        (tarfile.XHDTYPE, -512, "damaged"),
        (tarfile.REGTYPE, -512, "damaged"),
        (tarfile.REGTYPE, 1 << 62, "is cut short"),
    ],
)
def test_headers_that_ask_for_memory_or_for_ever(tmp_path, kind, size, why):
    member = tarfile.TarInfo("x.png")
    member.type, member.size = kind, size
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"1" * 4096)
    assert why in refusal(tmp_path)


def test_only_plain_members_are_read_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.DIRTYPE), ("f.png", tarfile.FIFOTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for number in range(20):
            for name, data in (
                (f"../{number}{'é' * 90}.png", encoded(number)),
                (f"../{number}{'é' * 90}.cls", b"%d\n" % (number % 2)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        info = tarfile.TarInfo("__info__.json")
        archive.addfile(info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load("webdataset", tmp_path)
    assert len(data.train) == 18 and len(data.test) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_patterns_that_are_refused(tmp_path, monkeypatch):
    assert "data_dir: webdataset needs it" in refusal(None)
    assert "no .tar files in it" in refusal(tmp_path)
    for path in (tmp_path / "a.tar", Path("pipeline/a.tar")):
        assert "there is no such file" in refusal(path)
    for text in ("https://host/a.tar", "s3://b/a-{0..1}.tar", "pipe:touch made", "a.tar::b.tar"):
        assert "is not on this machine" in refusal(Path(text))
    assert "check the braces" in refusal(Path("a{0..1.tar"))
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    assert 'pip install "cifarnet[webdataset]"' in refusal(tmp_path)


def test_the_commands(root, cli):
    options = ("--dataset", "webdataset", "--data-dir", root / PATTERN, "--arch", "baseline", "--batch-size", 8)
    code, _, err = cli("train", *options, "--epochs", 1, "--augment", "none", "--out", "run")
    assert code == 0 and "webdataset: 24 train, 8 test, 3 classes" in err
    code, out, _ = cli("eval", "run", "--json")
    assert code == 0 and json.loads(out)["images"] == 8 and json.loads(out)["dataset"] == "webdataset"


@pytest.mark.parametrize(
    "pattern",
    [
        "{000000000..999999999}.tar",
        "{0..99999}{0..99999}.tar",
        "{1..10000000000000000000000000}.tar",
        "{a..}{0..9}.tar",
    ],
)
def test_braces_that_name_too_many_are_refused(tmp_path, pattern):
    with pytest.raises(Refused, match=r"more than 100,000 shards"):
        load("webdataset", tmp_path / pattern)


def test_names_of_a_pattern_are_counted():
    for pattern, count in (("a.tar", 1), ("{000..099}.tar", 100), ("{a,b,c}-{0..9}.tar", 30), ("{x}.tar", 1)):
        assert shards.count_names(pattern) == count
