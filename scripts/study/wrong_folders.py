"""What `cifarnet train` says of folders that are not what it was told: the last section of docs/data.md.

python scripts/study/wrong_folders.py
"""

import contextlib
import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cifarnet.cli import run


def picture(path: Path) -> None:
    """A small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name) * 9 % 256, 90, 120)).save(path)


def classes(folder: Path, *names: str) -> None:
    """Class folders with two images each."""
    for name in names:
        for number in range(2):
            picture(folder / name / f"{number}.png")


def flat(folder: Path) -> None:
    for number in range(3):
        picture(folder / f"{number}.png")


def packed(folder: Path) -> None:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", b"")


def kaggle(folder: Path) -> None:
    for number in range(1, 4):
        picture(folder / "train" / f"{number}.png")
    (folder / "trainLabels.csv").write_text("id,label\n1,cat\n2,dog\n3,cat\n")


def parquet(folder: Path) -> None:
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1")


def official(folder: Path) -> None:
    (folder / "cifar-10-batches-bin").mkdir()


def of_classes(folder: Path) -> None:
    classes(folder, "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def unlike(folder: Path) -> None:
    classes(folder / "train", "cat", "dog")
    classes(folder / "test", "cat", "fox")


def one_class(folder: Path) -> None:
    classes(folder / "train", "cat")


def no_images(folder: Path) -> None:
    classes(folder / "train", "cat", "dog")
    (folder / "train" / "fox").mkdir()


def damaged(folder: Path) -> None:
    classes(folder / "train", "cat", "dog")
    classes(folder / "test", "cat", "dog")
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path = folder / "train" / "cat" / "2.jpg"
    whole.save(path)
    path.write_bytes(path.read_bytes()[:900])


CASES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nothing in it": ("folder", lambda folder: None),
    "images without class folders": ("folder", flat),
    "an archive": ("folder", packed),
    "Kaggle's images with a list of labels": ("folder", kaggle),
    "parquet files": ("folder", parquet),
    "CIFAR's own files": ("folder", official),
    "class folders, read as CIFAR-10": ("cifar10", of_classes),
    "other classes in test than in train": ("folder", unlike),
    "a single class": ("folder", one_class),
    "a class without images": ("folder", no_images),
    "an image that is cut short": ("folder", damaged),
    "not there": ("folder", lambda folder: folder.rmdir()),
}


def message(dataset: str, make: Callable[[Path], object]) -> str:
    """What is said on stderr of a folder called `photos`."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ.update(XDG_CACHE_HOME=place + "/cache", HOME=place)
        Path("photos").mkdir()
        make(Path("photos"))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            run(f"train --dataset {dataset} --data-dir photos --arch baseline --epochs 1 -q --dry-run".split())
        return said.getvalue().replace(place, "/home/me").strip()


if __name__ == "__main__":
    for title, (dataset, make) in CASES.items():
        print(f"{title} (`--dataset {dataset}`)\n\n```text\n{message(dataset, make)}\n```\n")
