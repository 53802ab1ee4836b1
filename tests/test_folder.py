"""Image folders: what is found, what is refused, and streaming."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifarnet.data import Loader, Split, StreamedSplit, folder, hold_out, index, load
from cifarnet.data.images import read_image
from cifarnet.errors import Failed, Refused


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
    with pytest.raises(Refused, match="--data-dir"):
        load("folder")
    assert "No such file" in refusal(tmp_path / "nowhere") and "train/<class>/" in refusal(tmp_path / "nowhere")
    (tmp_path / "flat" / "train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "flat" / "train" / "a.png")
    assert "no class folder" in refusal(tmp_path / "flat")
    (tmp_path / "flat" / "train" / "only").mkdir()
    assert "1 class folder" in refusal(tmp_path / "flat")


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class(root, part):
    for path in (root / part / "zero").iterdir():
        path.unlink()
    assert f"{root}/{part}: no images in the class zero" in refusal(root)


def test_classes_that_differ(root):
    (root / "test" / "two").mkdir()
    assert "the classes of train and test differ: two" in refusal(root)


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
    monkeypatch.setattr(folder, "read_image", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    loader = Loader(data.test, 3, "cpu", mean=data.mean, std=data.std, shuffle=False, workers=1)
    with pytest.raises(Failed, match="decoding ended early"):
        list(loader.epoch(0))
