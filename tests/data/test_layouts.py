"""The same images as people have them, in folders, a CSV, parquet and tar shards: one content; and the wrong folders."""

import csv
import io
import json
import shutil
import tarfile
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision import datasets

from cifarnet.cli.train import headline, new_config
from cifarnet.core.errors import Refused
from cifarnet.data import Loader, Split, StreamedSplit, load
from cifarnet.data.found import Found
from cifarnet.data.identity import identity_of_split
from cifarnet.data.images import index
from cifarnet.data.images.decode import read_square
from cifarnet.data.sources import parquet
from cifarnet.data.sources.cifar_sets import SETS
from cifarnet.data.sources.layouts import guess_dataset

CLASSES = ("cat", "dog", "fox")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cifarnet" / "index"


def arrays() -> dict[str, Split]:
    """48 training and 12 test images of 32 x 32 random pixels in three classes."""
    draw = np.random.default_rng(3)
    images = torch.from_numpy(draw.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8))
    labels = torch.arange(60) % 3
    return {"train": Split(images[:48], labels[:48]), "test": Split(images[48:], labels[48:])}


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def rows():
    """(part, number, PNG bytes, label) of each image."""
    for part, split in arrays().items():
        for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            yield part, number, png(image), label


def write_folder(root: Path, parts=("train", "test"), suffix=".png") -> Path:
    for part, number, data, label in rows():
        place = root / (parts[0] if part == "train" else parts[1]) / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}{suffix}").write_bytes(data)
    return root


def write_csv(root: Path) -> Path:
    write_folder(root / "all")
    lines = [["file", "label", "split"]]
    lines += [[f"all/{part}/{CLASSES[label]}/{n:02}.png", CLASSES[label], part] for part, n, _, label in rows()]
    with open(root / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    return root / "list.csv"


def write_parquet(root: Path, group=10, test=True) -> Path:
    info = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    for part in ("train", "test") if test else ("train",):
        chosen = [(data, label) for found, _, data, label in rows() if found == part]
        pictures = [{"bytes": data, "path": None} for data, _ in chosen]
        table = pa.table({"img": pictures, "label": [label for _, label in chosen]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        place = root / "plain_text"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place / f"{part}-00000-of-00001.parquet", row_group_size=group)
    return root


def write_shards(root: Path, text=False) -> Path:
    root.mkdir(exist_ok=True)
    for part in ("train", "test"):
        with tarfile.open(root / f"{part}-0.tar", "w") as archive:
            for found, number, data, label in rows():
                if found == part:
                    name = CLASSES[label] if text else str(label)
                    add(archive, f"v1.0/{number}.png", data)
                    add(archive, f"v1.0/{number}.cls", name.encode())
    if not text:
        (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def quiet(name: str, place: Path, **options):
    """The data set, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load(name, place, **options)
    return data, [str(warning.message) for warning in caught]


def refusal(name: str, place: Path | None, **options) -> str:
    with warnings.catch_warnings(), pytest.raises(Refused) as caught:
        warnings.simplefilter("ignore")
        load(name, place, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_images_in_any_layout_have_one_digest(tmp_path):
    """At their own size and resized, at the first start and from the cache; the classes are the same too."""
    expected = arrays()
    places = {
        "folder": write_folder(tmp_path / "folder"),
        "csv": write_csv(tmp_path),
        "parquet": write_parquet(tmp_path / "parquet"),
        "webdataset": write_shards(tmp_path / "shards"),
    }
    found = {}
    for name, place in places.items():
        assert guess_dataset(place) == name
        for size in (32, 32, 16):
            data, _ = quiet(name, place, image_size=size)
            assert data.classes == CLASSES and isinstance(data.found, Found) and data.found.path.exists()
            for part, split in (("train", data.train), ("test", data.test)):
                assert identity_of_split(split).content == identity_of_split(expected[part]).content, (name, size, part)
                assert sorted(split.labels.tolist()) == sorted(expected[part].labels.tolist())
                if size == 32:
                    assert (
                        identity_of_split(Split(split.images, split.labels)).content
                        == identity_of_split(expected[part]).content
                    )
        found[name] = data
    assert torch.equal(found["csv"].train.images, found["parquet"].train.images)  # in the order of the lines
    text, _ = quiet("webdataset", write_shards(tmp_path / "text", text=True))
    assert (
        text.classes == CLASSES
        and identity_of_split(text.train).content == identity_of_split(expected["train"]).content
    )


def test_what_is_hashed_is_the_upright_picture_on_white(tmp_path):
    """Against pixels worked out here: turned by its EXIF, grey, transparent, and a JPEG as Pillow decodes it."""
    draw = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    clear = np.dstack([draw, np.full((20, 30), 255, np.uint8)])
    clear[:5, :, 3] = 0
    white = draw.copy()
    white[:5] = 255
    Image.fromarray(draw).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(draw[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(draw).save(tmp_path / "photo.jpg")
    photo = np.array(Image.open(tmp_path / "photo.jpg"))
    grey = np.repeat(draw[..., :1], 3, axis=2)
    for name, pixels in {
        "turned.png": np.rot90(draw, 3),
        "grey.png": grey,
        "clear.png": white,
        "photo.jpg": photo,
    }.items():
        whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        for size in (8, 64):
            square = read_square(tmp_path / name, size, hashed=True)
            label = torch.zeros(1, dtype=torch.int64)
            known = torch.frombuffer(bytearray(square.hash), dtype=torch.uint8)[None]
            assert (
                identity_of_split(Split(square.pixels[None], label, known)).content
                == identity_of_split(Split(whole, label)).content
            ), name
        assert read_square(tmp_path / name, 8).hash == b""


def test_names_of_the_parts_and_subfolders(tmp_path):
    expected = arrays()
    for parts in (("Training", "Test"), ("train", "val"), ("TRAIN", "validation"), ("train", "Valid")):
        root = write_folder(tmp_path / "-".join(parts), parts)
        data, said = quiet("folder", root)
        assert identity_of_split(data.test).content == identity_of_split(expected["test"]).content and said == []
    shutil.copytree(root / "Valid", root / "test")
    data, said = quiet("folder", root)
    assert len(said) == 1 and "left out: Valid (the set is train and test)" in said[0]
    deep = root / "train" / "cat" / "b.c" / "d"
    deep.mkdir(parents=True)
    shutil.move(root / "train" / "cat" / "00.png", deep / "00.png")
    (root / "train" / "cat" / "b-c").mkdir()
    shutil.move(root / "train" / "cat" / "03.png", root / "train" / "cat" / "b-c" / "x.PNG")
    (root / "train" / "cat" / "link").symlink_to(root / "train" / "dog")
    (root / "train" / "cat" / ".hidden").mkdir()
    for name in ("a.txt", "b.txt", "c.mp4", "d.heic", "README"):
        (root / "train" / "dog" / name).write_text("no image")
    for start in range(2):
        data, said = quiet("folder", root)
        (line,) = said[1:]
        assert line.endswith(
            ": left out: 2 .txt, 1 .mp4, 1 without a suffix (no images), hidden: 1, links to folders: 1, "
            "1 .heic (no format that is read here)"
        ), start
    assert dict(data.found.left_out)[".txt: no images"] == 2 and sum(n for _, n in data.found.left_out) == 7
    assert identity_of_split(data.train).content == identity_of_split(expected["train"]).content
    shutil.rmtree(root / "train" / "cat" / ".hidden")
    (root / "train" / "cat" / "link").unlink()
    theirs = datasets.ImageFolder(str(root / "train"))
    assert torch.equal(
        data.train.images, torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in theirs])
    )


def test_other_suffixes_and_none(tmp_path):
    root = tmp_path / "photos"
    kinds = {
        ".jfif": "JPEG",
        ".avif": "AVIF",
        ".jp2": "JPEG2000",
        ".j2k": "JPEG2000",
        ".tga": "TGA",
        ".apng": "PNG",
        "": "PNG",
        ".JPE": "JPEG",
    }
    for number, (suffix, kind) in enumerate(kinds.items()):
        for label in ("a", "b"):
            for part in ("train", "test"):
                (root / part / label).mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (16, 16), (number * 30, 100 + 9 * ord(label) % 50, 150 + 9 * len(part)))
                picture.save(root / part / label / f"image{number}{suffix}", kind)
    data, said = quiet("folder", root)
    assert said == [] and len(data.train) == 16
    reds = data.train.images[:8, 0].float().mean((1, 2)).tolist()
    assert np.allclose(reds, [30 * n for n in range(8)], atol=6)


def test_a_split_is_made_where_none_is(tmp_path):
    """A tenth of each class, at least one, the same in a copy and whatever the seed."""
    root = tmp_path / "photos"
    for label, count in (("a", 25), ("b", 4), ("c", 60)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, count, 0)).save(root / label / f"{number}.png")
    data, said = quiet("folder", root)
    assert (
        len(said) == 1 and "so one image of 10 of each class, and at least one, is taken for it (10 of 89)" in said[0]
    )
    assert data.test.labels.bincount().tolist() == [3, 1, 6] and len(data.train) == 79
    assert guess_dataset(root) == "folder"
    (tmp_path / "copy" / "inner" / "train").mkdir(parents=True)
    for label in "abc":
        shutil.copytree(root / label, tmp_path / "copy" / "inner" / "train" / label)
    again, said = quiet("folder", tmp_path / "copy", seed=5)
    assert "the images are taken from inner/ in it" in said[0] and len(said) == 2
    assert torch.equal(again.test.images, data.test.images) and torch.equal(again.train.images, data.train.images)
    streets = tmp_path / "streets"  # a class that is called train
    for label in ("train", "bus"):
        shutil.copytree(root / "a", streets / label)
    assert quiet("folder", streets)[0].classes == ("bus", "train") and guess_dataset(streets) == "folder"
    for path in (root / "b").glob("[1-9]*"):
        path.unlink()
    assert f"{root}: has no test set, and b has a single image" in refusal("folder", root)


def test_wrong_folders_say_what_was_seen_and_what_to_do(tmp_path):
    def folder(name, files=(), folders=()):
        place = tmp_path / name
        for inside in ("", *folders):
            (place / inside).mkdir(parents=True, exist_ok=True)
        for file in files:
            (place / file).write_bytes(b"x")
        return place

    cases = [
        (folder("zip", ["cats.zip"]), "the archive cats.zip; unpack it"),
        (folder("targz", ["cats.tar.gz"]), "the archive cats.tar.gz; unpack it"),
        (folder("tar", ["a.tar"]), "use `dataset=webdataset`, or unpack them"),
        (
            folder("list", ["a.png", "list.csv"]),
            "1 image and the list list.csv; read it with `dataset=csv` and `data_dir=",
        ),
        (folder("pq", ["a.parquet"]), "use `dataset=parquet`"),
        (folder("cifar", ["data_batch_1.bin"]), "holds the files of CIFAR-10; use `dataset=cifar10`"),
        (folder("c100", folders=["cifar-100-python"]), "holds the files of CIFAR-100; use `dataset=cifar100`"),
        (folder("flat", ["a.png", "b.jpg"]), "2 images; put each class in its own folder, or list"),
        (folder("odd", ["a.doc", "b.doc"], ["x"]), "it holds 2 .doc, 1 folder (x); put each class"),
        (folder("empty"), "it holds nothing"),
        (folder("testonly", folders=["test/a", "test/b"]), "there is the folder test and none for training"),
        (
            folder("twice", folders=["train/a", "train/b", "Training/a"]),
            "the folders Training, train have the same meaning",
        ),
        (folder("kaggle", ["trainLabels.csv", "train/1.png"], ["train", "test"]), "the list trainLabels.csv; read it"),
        (folder("file", ["a.csv"]) / "a.csv", "is a file, not a folder; use `dataset=csv`"),
        (tmp_path / "nowhere", "No such file"),
    ]
    for place, words in cases:
        assert words in refusal("folder", place), place


def test_a_csv_as_people_write_it(tmp_path):
    """Kaggle's numbered images, other delimiters and headings, none at all, named columns, numbers as classes."""
    expected = [
        (n, png(image), label)
        for n, (image, label) in enumerate(
            zip(arrays()["train"].images, arrays()["train"].labels.tolist(), strict=True), 1
        )
    ]
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    for number, data, _ in expected:
        (tmp_path / "train" / f"{number}.png").write_bytes(data)
    (tmp_path / "test" / "1.png").write_bytes(expected[0][1])
    table = tmp_path / "trainLabels.csv"
    table.write_text("id,label\n" + "".join(f"{n},{CLASSES[label]}\n" for n, _, label in expected))
    (tmp_path / "sampleSubmission.csv").write_text("id,label\n1,cat\n")
    assert guess_dataset(tmp_path) == "csv" and guess_dataset(table) == "csv"
    data, said = quiet("csv", tmp_path)
    assert any("trainLabels.csv is read; left out: sampleSubmission.csv" in text for text in said)
    assert any("images from the column id, labels from the column label" in text for text in said)
    assert any("test: its images have no labels here" in text for text in said)
    assert (len(data.train), len(data.test)) == (42, 6) and data.classes == CLASSES
    together = Split(torch.cat([data.train.images, data.test.images]), torch.cat([data.train.labels, data.test.labels]))
    assert identity_of_split(together).content == identity_of_split(arrays()["train"]).content

    table.write_text(
        "\ufeffnumber;Image Path;ID\n" + "".join(f"{10 - label};train\\{n}.png;{n}\n" for n, _, label in expected)
    )
    data, said = quiet("csv", table)  # by what is in the columns: "number" repeats, and no heading is known
    assert data.classes == ("8", "9", "10") and "labels from the column number" in said[0]
    table.write_text("".join(f"train/{n}.png\t{label}\t\n" for n, _, label in expected))
    assert "column 1, labels from column 2" in quiet("csv", table)[1][0]
    table.write_text("path,a,b\n" + "".join(f"train/{n}.png,{label},{label % 2}\n" for n, _, label in expected))
    assert "which of its columns holds the labels cannot be told: path, a, b; name it with `label_column`" in refusal(
        "csv", table
    )
    assert quiet("csv", table, label_column="b")[0].classes == ("0", "1")
    assert "has no column c" in refusal("csv", table, image_column="c")

    for text, words in (
        ("path,label\ntrain/1.png,a\nnone.png,b\nnope/x.png,a\n", "2 of 3 images are not there: none.png, nope/x.png"),
        (
            "path,label\n\n , \ntrain/1.png,a\ntrain/2.png\n",
            "line 5 has 1 column, the first 2; fill the line up, or remove it",
        ),
        (
            "path;label\ntrain/1.png;a\n\ntrain/2.png;b;c\n",
            "line 4 has 3 columns, the first 2; put text with ';' in it into quotes",
        ),
        (' , \npath,label\ntrain/1.png,"a\nb"\nx\n', "line 5 has 1 column, the first 2"),
        ("path\na\n", "2 lines of 1 column"),
        ("", "0 lines"),
        ("path,label\ntrain/1.png,a\ntrain/2.png,a\n", "all images have one label"),
        ("path,label\ntrain/1.png,\n", "no line has a path and a label (lines without a label: 1)"),
    ):
        table.write_text(text)
        assert words in refusal("csv", table), text
    table.write_bytes(b"\xff\xfe\x00")
    assert "not text in UTF-8" in refusal("csv", table)
    assert "there is no such file" in refusal("csv", tmp_path / "none.csv") and "csv needs it" in refusal("csv", None)


def test_a_csv_whose_column_of_parts_has_other_words(tmp_path):
    """One such cell, or an empty one, costs its line and not the column; no test image is trained on."""
    write_folder(tmp_path / "all")
    lines = [(f"all/{part}/{CLASSES[label]}/{n:02}.png", CLASSES[label], part) for part, n, _, label in rows()]
    odd = {0: "dev", 1: "", 50: "dev"}
    table = tmp_path / "list.csv"

    def written(heading, cells):
        table.write_text(f"file,label,{heading}\n" + "".join(f"{a},{b},{c}\n" for a, b, c in cells))
        return quiet("csv", table)

    data, said = written("split", [(a, b, odd.get(n, part.upper())) for n, (a, b, part) in enumerate(lines)])
    assert said[0].endswith(", parts from the column split") and len(said) == 2
    assert said[1].endswith(": left out: 2 dev, 1 empty (lines whose part is unknown)")
    expected = arrays()
    for split, known, left in ((data.train, expected["train"], [0, 1]), (data.test, expected["test"], [2])):
        kept = torch.tensor([n for n in range(len(known)) if n not in left])
        assert identity_of_split(split).content == identity_of_split(known.subset(kept)).content
    data, said = written("fold", [(a, b, n % 5) for n, (a, b, _) in enumerate(lines)])
    assert said[0].endswith("; the column fold names no train, test or val, and is not used") and len(data.train) == 54


def test_the_test_lines_of_a_csv_are_the_test_set_beside_val_lines(tmp_path):
    table = write_csv(tmp_path)
    heading, *lines = table.read_text().splitlines()
    lines[:12] = [line.removesuffix("train") + "val" for line in lines[:12]]
    table.write_text("\n".join([heading, *lines]))
    data, said = quiet("csv", table)
    expected = arrays()
    assert identity_of_split(data.test).content == identity_of_split(expected["test"]).content
    assert (
        identity_of_split(data.train).content
        == identity_of_split(expected["train"].subset(torch.arange(12, 48))).content
    )
    assert any("left out: 12 images of val (test is the test set)" in text for text in said)


def test_a_name_in_two_unicode_forms_is_one_class(tmp_path):
    """As folders of macOS beside those of Linux: in train and test, in one part, in a CSV's labels and paths, in shards."""
    one, other = (unicodedata.normalize(form, "Am\u00e9lie") for form in ("NFC", "NFD"))
    root = write_folder(tmp_path / "photos")
    expected, _ = quiet("folder", root)
    (root / "train" / "cat").rename(root / "train" / other)
    (root / "test" / "cat").rename(root / "test" / one)
    data, _ = quiet("folder", root)
    assert data.classes == (one, "dog", "fox") and torch.equal(data.train.images, expected.train.images)
    (root / "train" / one).mkdir()
    (root / "train" / other / "45.png").rename(root / "train" / one / "45.png")
    data, _ = quiet("folder", root)
    assert data.classes == (one, "dog", "fox")
    assert identity_of_split(data.train).content == identity_of_split(expected.train).content
    (root / "train" / one / "45.png").rename(root / "train" / other / "45.png")
    (root / "train" / one).rmdir()
    alone, _ = quiet("folder", root / "train")
    (root / "train" / other).rename(root / "train" / one)
    again, _ = quiet("folder", root / "train")  # the same images are taken for the test set
    assert alone.classes == again.classes and torch.equal(alone.test.images, again.test.images)

    lines = [(f"train/{other}/{n:02}.png", other if n % 2 else one) for n in range(0, 48, 3)]
    lines += [(f"train/dog/{n:02}.png", "dog") for n in range(1, 48, 3)]
    (root / "list.csv").write_text("path,label\n" + "".join(f"{a},{b}\n" for a, b in lines))
    assert quiet("csv", root / "list.csv")[0].classes == (one, "dog")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, (_, _, data, label) in enumerate(rows()):
            add(archive, f"{number}.png", data)
            add(archive, f"{number}.cls", ((one, other)[number % 2] if label else "dog").encode())
    assert quiet("webdataset", tmp_path / "a.tar")[0].classes == (one, "dog")


@pytest.mark.parametrize("ceiling", [index.MEMORY, 1000])
def test_images_that_are_there_twice_are_said_in_one_line(tmp_path, monkeypatch, ceiling):
    """By their pixels, in memory and streamed; nothing is decoded for it."""
    monkeypatch.setattr(index, "MEMORY", ceiling)
    root = write_folder(tmp_path / "photos")
    assert quiet("folder", root)[1] == []
    end = "; remove or correct them, else the accuracy says little"
    for number in ("00", "03", "06"):
        shutil.copy(root / "train" / "cat" / f"{number}.png", root / "test" / "cat" / f"x{number}.png")
    expected = [f"{root}: 3 test images are training images too ({root}/test/cat/x00.png){end}"]
    assert quiet("folder", root)[1] == expected
    shutil.copy(root / "train" / "cat" / "09.png", root / "train" / "dog" / "x.bmp")
    two = f"too ({root}/test/cat/x00.png), 1 image has two labels or more ({root}/train/dog/x.bmp){end}"
    assert quiet("folder", root)[1] == [expected[0].replace(f"too ({root}/test/cat/x00.png){end}", two)]

    lines = [(f"train/{CLASSES[n % 3]}/{n:02}.png", CLASSES[n % 3], "train") for n in range(48)]
    lines += [(f"test/{CLASSES[n % 3]}/{n:02}.png", CLASSES[n % 3], "test") for n in range(12)]
    lines += [("train/cat/00.png", "cat", "test"), ("train/../train/cat/03.png", "dog", "train"), lines[4]]
    table = root / "list.csv"
    table.write_text("path,label,split\n" + "".join(f"{a},{b},{c}\n" for a, b, c in lines))
    said = quiet("csv", table)[1]
    assert said[1:] == [
        f"{table}: 1 test image is a training image too ({root}/train/cat/00.png), "
        f"1 image has two labels or more ({root}/train/../train/cat/03.png), 3 lines name a file that another line names{end}"
    ]


def test_parquet_streamed_gives_what_it_gives_in_memory(tmp_path, monkeypatch):
    """In any order, entered later, by workers; a later start opens no parquet file."""
    root = write_parquet(tmp_path / "set")
    memory, _ = quiet("parquet", root)
    monkeypatch.setattr(index, "MEMORY", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "make_copy", None)
        streamed, _ = quiet("parquet", root)
    assert isinstance(streamed.train, StreamedSplit) and (streamed.mean, streamed.std) == (memory.mean, memory.std)

    def batches(split, workers, start):
        return list(Loader(split, 7, "cpu", mean=memory.mean, std=memory.std, workers=workers, seed=2).epoch(3, start))

    expected = batches(memory.train, 0, 0)
    for workers, start in ((0, 0), (2, 3)):
        for (x, y), (u, v) in zip(expected[start:], batches(streamed.train, workers, start), strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)


def test_parquet_copies_that_are_stale_or_damaged_are_made_again(tmp_path, cache):
    root = write_parquet(tmp_path / "set")
    expected, _ = quiet("parquet", root)
    (copy,) = cache.glob("*.images")
    for harm in (lambda: copy.write_bytes(b"x" * copy.stat().st_size), copy.unlink, lambda: [p.write_bytes(b"x") for p in cache.glob("*.safetensors")]):  # fmt: skip
        harm()
        again, _ = quiet("parquet", root)
        assert identity_of_split(again.train).content == identity_of_split(expected.train).content
    write_parquet(root, group=3)
    assert identity_of_split(quiet("parquet", root)[0].train).content == identity_of_split(expected.train).content


def test_parquet_columns_and_labels(tmp_path):
    split = arrays()["train"]
    images, labels = [png(image) for image in split.images], split.labels.tolist()
    words = [CLASSES[label] for label in labels]

    def write(name="a.parquet", **columns):
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    path = write(jpg=images, other=images, label=words, id=list(range(48)))
    data, said = quiet("parquet", path)
    assert guess_dataset(path) == "parquet" and data.classes == CLASSES and len(data.test) == 6
    assert "images from the column jpg, labels from the column label" in said[0]
    assert "no test set, so one image of 10" in said[1]
    path = write(x=[None, *images[1:]], n=[-1 if n == 1 else 7 + label for n, label in enumerate(labels)])
    data, said = quiet("parquet", path)
    assert data.classes == ("7", "8", "9") and len(data.train) + len(data.test) == 46
    assert any("left out: rows without a label: 1, rows without an image: 1" in text for text in said)
    path = write(a=images, b=images, u=labels, v=labels)
    assert "which column holds bytes of images cannot be told: a, b; name it with `image_column`" in refusal(
        "parquet", path
    )
    assert "which column holds labels" in refusal("parquet", path, image_column="b")
    assert quiet("parquet", path, image_column="b", label_column="v")[0].classes == ("0", "1", "2")
    assert "has no column u of bytes" in refusal("parquet", path, image_column="u")
    assert "no column of it holds bytes of images; it has label" in refusal("parquet", write(label=labels))
    assert "row 5 (is not an image" in refusal(
        "parquet", write(image=[*images[:5], b"text", *images[6:]], label=labels)
    )
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-20], whole[:4] + bytes(len(whole) // 2 - 4) + whole[len(whole) // 2 :]):
        path.write_bytes(data)
        assert "is damaged" in refusal("parquet", path)
    assert "there is no such file" in refusal("parquet", tmp_path / "none.parquet") or "cannot be read" in refusal(
        "parquet", tmp_path / "none"
    )


def test_keys_with_dots_are_counted(tmp_path):
    """By the package's rule a key ends at the first dot of its name: `cat.1.png` is no sample, and said to be none."""
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for number, (_, _, data, label) in enumerate(rows()):
            add(archive, f"a.b/{number}.png", data)
            add(archive, f"a.b/{number}.json", json.dumps({"class_name": CLASSES[label]}).encode())
        add(archive, "a.b/x.1.png", data)
        add(archive, "a.b/x.1.cls", b"0")
        add(archive, "a.b/x.2.txt", b"0")
        add(archive, "README", b"0")
    for _ in range(2):
        data, said = quiet("webdataset", tmp_path)
        assert data.classes == CLASSES and len(data.train) + len(data.test) == 60
        line = next(text for text in said if "left out" in text)
        assert "1 .1.png" in line and "1 .1.cls" in line and "1 .2.txt" in line and "1 without a suffix" in line
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        add(archive, "x.1.png", data=png(arrays()["train"].images[0]))
        add(archive, "x.1.cls", b"0")
    assert "a key ends at the first dot" in refusal("webdataset", tmp_path)


def test_what_no_layout_says_is_not_guessed(tmp_path):
    assert guess_dataset(tmp_path) is None and guess_dataset(tmp_path / "none") is None
    (tmp_path / "models").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.txt").touch()
    assert guess_dataset(tmp_path) is None
    (tmp_path / "cifar-100-python").mkdir()
    assert guess_dataset(tmp_path) == "cifar100" and guess_dataset(tmp_path / "cifar-100-python") == "cifar100"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert guess_dataset(tmp_path) == "cifar10"
    assert guess_dataset(tmp_path / "shards-{000..002}.tar") == "webdataset"


def test_train_takes_what_lies_there(tmp_path):
    """Without a data set's name, and says so; a name that was given stays."""
    root = str(write_parquet(tmp_path / "set"))
    config = new_config("report", {}, {"data_dir": root})
    assert config.dataset == "parquet"
    assert ("data", f"what lies in {root} is taken as --dataset parquet") in headline(
        "report", config, {"data_dir": root}
    )
    assert new_config("report", {}, {"data_dir": root, "dataset": "folder"}).dataset == "folder"
    assert new_config("report", {}, {"data_dir": str(tmp_path / "none")}).dataset == "cifar10"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty", "it holds nothing; put each class in its own folder"),
        ("photos", "no class folder in it, but 2 images; put each class in its own folder, or list"),
        ("photos/1.png", "is a file, not a folder; name the folder that holds its class"),
    ],
)
def test_where_no_data_set_lies_none_is_fetched_in_its_place(tmp_path, name, why):
    """One who names a folder has data of his own: CIFAR-10 is not what he means, unless he says so."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    for image in ("1.png", "2.png"):
        (tmp_path / "photos" / image).write_bytes(png(arrays()["train"].images[0]))
    place = tmp_path / name
    with pytest.raises(Refused) as raised:
        new_config("report", {}, {"data_dir": str(place)})
    assert str(raised.value).startswith(f"`data_dir={place}`: {why}")
    assert str(raised.value).endswith("or leave it out to train on CIFAR-10") and "archive" not in str(raised.value)
    assert new_config("report", {}, {"data_dir": str(place), "dataset": "cifar10"}).dataset == "cifar10"


def test_cifar_below_other_folders_is_still_found(tmp_path):
    """As unpacking may leave it: its names are not seen from above."""
    inner = tmp_path / "set" / "download" / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for file in SETS["cifar10"].archive.files:
        (inner / file).touch()
    assert guess_dataset(tmp_path / "set") is None
    assert new_config("report", {}, {"data_dir": str(tmp_path / "set")}).dataset == "cifar10"


def test_runs_beside_the_images_are_no_classes(tmp_path):
    """A training in the folder of its own data leaves figures there: the next one trains on the same classes."""
    write_folder(tmp_path, parts=("", ""))
    before = quiet("folder", tmp_path)[0]
    for run in ("runs/first", "mine"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / ".lock").touch()
        assert quiet("folder", tmp_path)[0].classes == CLASSES  # a run that has just begun
        (tmp_path / run / "config.json").write_text("{}")
        (tmp_path / run / "confusion.png").write_bytes(png(arrays()["train"].images[0]))
    after, said = quiet("folder", tmp_path)
    assert after.classes == before.classes == CLASSES and len(after.train) == len(before.train)
    assert len(said) == 1 and "no test set" in said[0]


def plain_table(values, labels: dict[str, list], names=None) -> pa.Table:
    """Pictures of one grey value each, as BMP (all of one size), and columns of labels; `names` as Hugging Face writes them."""
    pictures = []
    for value in values:
        buffer = io.BytesIO()
        Image.new("L", (32, 32), value).save(buffer, "BMP")
        pictures.append(buffer.getvalue())
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    columns = {"image": pa.array(pictures, pa.binary())} | {k: pa.array(v, pa.int64()) for k, v in labels.items()}
    return pa.table(columns).replace_schema_metadata(meta)


def test_parquet_a_column_without_some_labels_leads_to_its_own_pixels(tmp_path):
    """Its rows lie elsewhere in the copy than those of the column that was asked for before."""
    for name, count, first in (("train", 8, 0), ("test", 4, 100)):
        every = [n % 2 for n in range(count)]
        some = [None if n == 1 else label for n, label in enumerate(every)]
        table = plain_table([first + 10 * n for n in range(count)], {"all": every, "some": some})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    for column in ("all", "some", "all", "some"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load("parquet", tmp_path, label_column=column)
        gone = [] if column == "all" else [10]
        assert found.train.images[:, 0, 0, 0].tolist() == [grey for grey in range(0, 80, 10) if grey not in gone]
        assert len(found.test) == (4 if column == "all" else 3) and found.test.images[:, 0, 0, 0].min() == 100


def test_parquet_files_that_number_their_classes_otherwise_agree_by_name(tmp_path):
    for name, names in (("train", ["cat", "dog", "fox"]), ("test", ["fox", "cat", "dog"])):
        animals = ["cat", "dog", "fox", "dog"]
        greys = [{"cat": 10, "dog": 100, "fox": 200}[animal] for animal in animals]
        labels = {"label": [names.index(animal) for animal in animals]}
        pq.write_table(plain_table(greys, labels, names), tmp_path / f"{name}.parquet")
    found, _ = quiet("parquet", tmp_path)
    assert found.classes == ("cat", "dog", "fox")
    for part in (found.train, found.test):
        assert part.labels.tolist() == [0, 1, 2, 1] and part.images[:, 0, 0, 0].tolist() == [10, 100, 200, 100]
    wrong = plain_table([1, 2], {"label": [0, 2]}, ["fox", "cat"])
    pq.write_table(wrong, tmp_path / "test.parquet")
    with pytest.raises(Refused, match="has the label 2, and names of 2 classes"):
        quiet("parquet", tmp_path)


@pytest.mark.parametrize("told", ["one order", "two orders", "text"])
def test_parquet_numbers_without_names_beside_files_that_name_their_classes(tmp_path, told):
    """They count the classes in the one order that is written; of two orders none is taken. Text is names as it stands."""
    write = lambda table, name: pq.write_table(table, tmp_path / f"{name}.parquet")  # noqa: E731
    write(plain_table([10, 200], {"label": [0, 1]}, ["fox", "cat"]), "train-0")
    write(plain_table([11, 201], {"label": [1, 0]}, ["cat", "fox"] if told == "two orders" else None), "train-1")
    test = plain_table([12, 202], {"label": [0, 1]})
    if told == "text":
        write(plain_table([11, 201], {"label": [1, 0]}, ["fox", "cat"]), "train-1")
        test = test.set_column(1, "label", pa.array(["fox", "cat"]))
    elif told == "one order":
        write(plain_table([11, 201], {"label": [0, 1]}), "train-1")
    write(test, "test")
    if told == "two orders":
        with pytest.raises(
            Refused, match=r"test.parquet: has numbers as labels and no names for them, and other files"
        ):
            quiet("parquet", tmp_path)
        return
    found, _ = quiet("parquet", tmp_path)
    assert found.classes == ("fox", "cat") and found.test.labels.tolist() == [0, 1]
    greys, labels = found.train.images[:, 0, 0, 0].tolist(), found.train.labels.tolist()
    named = dict(zip(greys, labels, strict=True))
    assert named == ({10: 0, 200: 1, 11: 1, 201: 0} if told == "text" else {10: 0, 200: 1, 11: 0, 201: 1})
