"""Image folders: what is found, what is refused, and streaming."""

import errno
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import at_once
from PIL import Image
from torchvision import datasets, transforms

from cifarnet.cli import progress as loading
from cifarnet.cli.common import messages
from cifarnet.core.errors import Failed, Refused
from cifarnet.core.signals import Stopped
from cifarnet.data import Loader, Split, StreamedSplit, hold_out, load
from cifarnet.data.images import index
from cifarnet.data.images.decode import read_image, read_square
from cifarnet.data.sources import folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cifarnet" / "index"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of real digits at several sizes and formats: 12 + 4 images each."""
    digits = load("digits", image_size=8)
    for part, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("one", "zero")):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            images = digits.train.images[digits.train.labels == 1 - label][:count]
            for i, image in enumerate(images):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((8 + i, 40 - i))
                picture.save(place / f"{i:02}{('.png', '.jpg', '.BMP')[i % 3]}")
    return tmp_path


def test_a_folder_in_memory(root):
    (root / "train" / "one" / "notes.txt").write_text("not an image, and not named like one")
    (root / "train" / ".cache").mkdir()
    data = load("folder", root, image_size=16)
    assert data.classes == ("one", "zero") and isinstance(data.train, Split)
    assert data.train.labels.tolist() == [0] * 12 + [1] * 12 and data.test.labels.tolist() == [0] * 4 + [1] * 4
    files = [p for name in data.classes for p in sorted((root / "train" / name).iterdir()) if p.suffix != ".txt"]
    assert torch.equal(data.train.images, torch.stack([read_image(path, 16)[0] for path in files]))
    pixels = data.train.images.double().numpy() / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_a_streamed_folder_gives_what_one_in_memory_gives(root, monkeypatch):
    """For any number of workers, also when entered later, and without touching torch's global generator."""
    memory = load("folder", root)
    monkeypatch.setattr(index, "MEMORY", 1000)
    streamed = load("folder", root)
    assert isinstance(streamed.train, StreamedSplit) and isinstance(streamed.test, StreamedSplit)
    assert (streamed.mean, streamed.std) == (memory.mean, memory.std)

    def batches(split, workers, start=0, **options):
        loader = Loader(split, 5, "cpu", mean=memory.mean, std=memory.std, workers=workers, seed=2, **options)
        return list(loader.epoch(1, start))

    expected = batches(memory.train, 0, augment="report")
    state = torch.get_rng_state()
    for workers, start in ((0, 0), (1, 0), (2, 2)):
        got = batches(streamed.train, workers, start, augment="report")
        assert len(got) == len(expected) - start
        for (x, y), (u, v) in zip(expected[start:], got, strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)
    assert torch.equal(torch.get_rng_state(), state)
    for (x, _), (u, _) in zip(*(batches(d.test, 0, shuffle=False) for d in (memory, streamed)), strict=True):
        assert torch.equal(x, u)
    for held, kept in zip(hold_out(memory.train, 0.25, 0), hold_out(streamed.train, 0.25, 0), strict=True):
        for (x, _), (u, _) in zip(batches(held, 0, shuffle=False), batches(kept, 2, shuffle=False), strict=True):
            assert torch.equal(x, u)


def refusal(root: Path) -> str:
    with pytest.raises(Refused) as caught:
        load("folder", root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_folder_and_no_classes(root, tmp_path):
    with pytest.raises(Refused, match=r"^data_dir: an image folder needs it"):
        load("folder")
    assert "No such file" in refusal(tmp_path / "nowhere") and "train/<class>/" in refusal(tmp_path / "nowhere")
    (tmp_path / "flat" / "train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "flat" / "train" / "a.png")
    assert "no class folder" in refusal(tmp_path / "flat")
    (tmp_path / "flat" / "train" / "only").mkdir()
    assert "1 class folder" in refusal(tmp_path / "flat")
    (tmp_path / "flat" / "train" / "a.png").unlink()
    assert "holds a single class, only" in refusal(tmp_path / "flat")


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class(root, part):
    for path in (root / part / "zero").iterdir():
        path.unlink()
    assert f"{root}/{part}: no images in the class zero" in refusal(root)


def test_classes_that_differ(root):
    (root / "test" / "two").mkdir()
    assert "its parts have not the same classes: only test has two" in refusal(root)


@pytest.mark.parametrize("ceiling", [index.MEMORY, 1000])
def test_unreadable_images_are_named(root, monkeypatch, ceiling):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    (root / "train" / "one" / "00.png").write_text("nothing of the kind")
    whole = (root / "train" / "zero" / "01.jpg").read_bytes()
    (root / "train" / "zero" / "01.jpg").write_bytes(whole[: len(whole) // 2])
    text = refusal(root)
    assert "2 of 32" in text and "one/00.png (is not an image" in text and "zero/01.jpg (is truncated" in text
    for name in ("one/00.png", "zero/01.jpg"):
        (root / "train" / name).unlink()
    (root / "test" / "one" / "00.png").write_bytes(b"")
    assert "1 of 30" in refusal(root) and "one/00.png (is empty)" in refusal(root)


def test_many_unreadable_images_are_counted(root):
    for path in (root / "train" / "one").iterdir():
        path.write_bytes(b"")
    text = refusal(root)
    assert "12 of 32" in text and text.count("is empty") == index.NAMED and "and 7 more" in text


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_away_during_the_work(root, monkeypatch, workers):
    monkeypatch.setattr(index, "MEMORY", 1000)
    data = load("folder", root)
    (root / "test" / "zero" / "01.jpg").unlink()
    loader = Loader(data.test, 3, "cpu", mean=data.mean, std=data.std, shuffle=False, workers=workers)
    with pytest.raises(Failed, match=r"zero/01.jpg: there is no such file"):
        list(loader.epoch(0))


def test_a_worker_that_is_killed(root, monkeypatch):
    monkeypatch.setattr(index, "MEMORY", 1000)
    data = load("folder", root)
    monkeypatch.setattr(folder, "read_square", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    loader = Loader(data.test, 3, "cpu", mean=data.mean, std=data.std, shuffle=False, workers=1)
    with pytest.raises(Failed, match="decoding ended early"):
        list(loader.epoch(0))


# --- the index -------------------------------------------------------------------------------------------------------

CEILINGS = pytest.mark.parametrize("ceiling", [index.MEMORY, 1000], ids=["memory", "streamed"])


@pytest.fixture
def read_log(tmp_path_factory, monkeypatch) -> Callable[[], list[str]]:
    """Tells which files were decoded since it was last asked, in whatever process."""
    log = tmp_path_factory.mktemp("log") / "log"

    def read(path, size, hashed):
        with open(log, "a") as file:
            file.write(f"{path}\n")
        return read_square(path, size, hashed=hashed)

    def lines() -> list[str]:
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(os.path.relpath(path, Path(path).parents[2]) for path in found)

    monkeypatch.setattr(folder, "read_square", read)
    return lines


def all_images(split) -> torch.Tensor:
    return next(iter(split.batches([torch.arange(len(split))])))


def same(one, other) -> bool:
    """True where two data sets are the same in every number."""
    pairs = ((one.train, other.train), (one.test, other.test))
    return (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std) and all(
        torch.equal(a.labels, b.labels) and torch.equal(all_images(a), all_images(b)) for a, b in pairs
    )


def fresh(root: Path, monkeypatch, tmp_path_factory):
    """The data set as a start without any index gives it."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("empty")))
        return load("folder", root)


@CEILINGS
def test_it_is_torchvisions_image_folder(root, monkeypatch, ceiling):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    squeeze = transforms.Compose([transforms.Resize((32, 32)), transforms.PILToTensor()])
    for _ in range(2):  # the second from the index
        data = load("folder", root)
        for part, split in (("train", data.train), ("test", data.test)):
            theirs = datasets.ImageFolder(str(root / part), squeeze)
            assert theirs.classes == list(data.classes) and theirs.targets == split.labels.tolist()
            assert torch.equal(torch.stack([image for image, _ in theirs]), all_images(split))


@CEILINGS
def test_a_second_start_decodes_nothing(root, monkeypatch, ceiling, read_log):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    told: list[tuple[int, int]] = []
    first = load("folder", root, progress=lambda *numbers: told.append(numbers))
    assert len(read_log()) == 32 and told[-1] == (32, 32)
    second = load("folder", root, progress=lambda *numbers: told.append(numbers))
    assert read_log() == [] and len(told) == 1
    assert same(first, second)
    read_log()
    load("folder", root, image_size=16)
    assert len(read_log()) == 32  # another size is another index


def replace(path: Path, other: Path) -> None:
    """New content in place, as `cp` does; the folder's own time stays."""
    path.write_bytes(other.read_bytes())


@CEILINGS
def test_a_change_is_noticed_and_only_what_is_new_is_decoded(root, monkeypatch, tmp_path_factory, ceiling, read_log):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    load("folder", root)
    one, zero = root / "train" / "one", root / "train" / "zero"
    steps = [
        (lambda: shutil.copy(zero / "02.BMP", one / "aa.bmp"), ["train/one/aa.bmp"]),
        (lambda: (one / "03.png").unlink(), []),
        (lambda: (one / "04.jpg").rename(zero / "04.jpg"), ["train/zero/04.jpg"]),
        (lambda: replace(zero / "00.png", zero / "03.png"), ["train/zero/00.png"]),
        (lambda: os.utime(root / "test" / "one" / "00.png", ns=(1, 1)), ["test/one/00.png"]),
        (lambda: (shutil.copy(zero / "06.png", zero / "new"), (zero / "new").rename(zero / "06.png")), ["train/zero/06.png"]),
        (lambda: (one / "05.BMP").rename(one / "zz.bmp"), ["train/one/zz.bmp"]),
    ]  # fmt: skip
    for change, decoded in steps:
        read_log()
        change()
        data = load("folder", root)
        assert read_log() == decoded
        assert same(data, fresh(root, monkeypatch, tmp_path_factory))


def test_after_unreadable_images_the_good_ones_are_known(root, read_log):
    bad = root / "train" / "one" / "00.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"no image")
    assert "one/00.png" in refusal(root) and len(read_log()) == 32
    bad.write_bytes(whole)
    load("folder", root)
    assert read_log() == ["train/one/00.png"]


@CEILINGS
def test_a_damaged_or_hostile_index_is_ignored(root, cache, monkeypatch, ceiling, read_log):
    monkeypatch.setattr(index, "MEMORY", ceiling)
    expected = load("folder", root)
    (path,) = cache.glob("*.safetensors")
    whole = path.read_bytes()
    orphan, young = cache / f".cifarnet-{0:016x}.tmp", cache / f".cifarnet-{1:016x}.tmp"
    orphan.touch(), young.touch()
    os.utime(orphan, (1, 1))
    length = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:length])
    begin = header["sums"]["data_offsets"][0]
    wrong = [b"", whole[:-1], whole + b"\0", whole[:100], b"\xff" * 16 + whole[16:], b"null", b"PK\x03\x04" + whole]
    wrong += [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (9, length + 3, length + begin, -1)
    ]
    for data in wrong:
        path.write_bytes(data)
        read_log()
        assert same(load("folder", root), expected) and read_log()
        assert path.read_bytes() == whole  # built anew
    assert not orphan.exists() and young.exists()  # what a killed process left is swept, what one writes now is not
    # sums that no image has, under a checksum that is right
    keys = np.frombuffer(whole[length:], np.int64, 32, header["keys"]["data_offsets"][0])
    for value in (-1, 2**62):
        pixels = np.zeros((32 if ceiling > 1000 else 0, 3, 32, 32), np.uint8)
        hashes = np.zeros((len(pixels), 32), np.uint8)
        arrays = {"keys": keys, "sums": np.full((32, 6), value), "pixels": pixels, "hashes": hashes}
        index.write_arrays(path, index.STAMP, arrays)
        assert same(load("folder", root), expected)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="cannot be written"):
        assert same(load("folder", root), expected)


def test_a_cache_that_cannot_be_written(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"cannot be written \(Not a directory\); the next start will read all again"):
        assert len(load("folder", root).train) == 24


def test_a_signal_in_the_first_reading_leaves_no_index(root, cache, monkeypatch):
    def interrupted(path, size, hashed):
        if path.endswith("05.BMP"):
            raise Stopped(signal.SIGINT)
        return read_square(path, size, hashed=hashed)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(folder, "read_square", interrupted)
        load("folder", root)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert len(load("folder", root).train) == 24


@CEILINGS
def test_processes_that_start_at_once_decode_each_image_once(root, monkeypatch, ceiling, read_log):
    monkeypatch.setattr(index, "MEMORY", ceiling)

    def start() -> tuple:
        data = load("folder", root)
        return data.mean, data.std, data.train.labels.tolist(), int(all_images(data.train).long().sum())

    found = at_once(start)
    decoded = read_log()
    shown = 0 if ceiling > 1000 else 3  # `all_images` of a streamed split
    expected = load("folder", root)
    assert found == [(expected.mean, expected.std, expected.train.labels.tolist(), found[0][3])] * 3
    counts = {name: decoded.count(name) for name in decoded}
    assert len(counts) == 32 and counts == {name: 1 + shown * name.startswith("train") for name in counts}


def test_a_rank_decodes_its_own_images_alone(root, monkeypatch, read_log):
    monkeypatch.setattr(index, "MEMORY", 1000)
    data = load("folder", root)
    read_log()
    mine = data.train.subset(torch.arange(1, 24, 2))
    assert mine.labels.tolist() == [0] * 6 + [1] * 6 and read_log() == []
    list(mine.batches([torch.tensor([0, 11])]))
    list(data.train.batches([torch.tensor([4])]))
    assert read_log() == ["train/one/01.jpg", "train/one/04.jpg", "train/zero/11.BMP"]
    assert len(mine.source.digest()) == 16 and mine.source.digest() != data.train.source.digest()


def test_a_long_first_reading_is_seen(root, monkeypatch, capfd):
    monkeypatch.setattr(loading, "PATIENCE", -1)
    monkeypatch.setattr(loading, "PAUSE", -1)
    for _ in range(2):
        loading.load_shown(messages(), "folder", str(root))
    assert capfd.readouterr().err == "reading folder, once: 32 of 32\n"


def test_strange_file_names(root):
    place = root / "train" / "one"
    for name in (b"line\nbreak.png", b"\xff\xfe.png", "é漢.png".encode(), b"a" * 250 + b".png"):
        shutil.copy(place / "00.png", os.path.join(os.fsencode(place), name))
    data = load("folder", root)
    assert data.train.labels.tolist() == [0] * 16 + [1] * 12
    with open(os.path.join(os.fsencode(place), b"line\nbreak.png"), "wb") as file:
        file.write(b"x")
    assert "line\\nbreak.png (is not an image" in refusal(root)


def test_a_link_into_nothing_is_named(root):
    (root / "train" / "one" / "link.png").symlink_to("nowhere.png")
    assert "one/link.png (there is no such file)" in refusal(root)


def test_a_file_system_without_locks_keeps_nobody_out(root, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(load("folder", root).train) == 24
