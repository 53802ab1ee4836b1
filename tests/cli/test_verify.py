"""`cifarnet verify` as it is used: a run, a list of pairs, folders of identities, two images; and what cannot be measured."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

import cifarnet
from cifarnet.analysis.open_classes import images_of, open_classes
from cifarnet.analysis.unit_embeddings import Embedder, embed_classes, embed_files
from cifarnet.analysis.verification.pair_files import read_pairs
from cifarnet.cli import run
from cifarnet.core.errors import Failed, Refused
from cifarnet.data import load
from cifarnet.data.images import index
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.engine.evaluate import open_for_evaluation
from cifarnet.models.digest import model_digest
from cifarnet.storage.safetensors_header import CHECKPOINT, read_metadata

TRAIN = "train --dataset digits --arch baseline --epochs 1 --device cpu --precision fp32 -q --hold-out-classes 4"
HELD_OUT = (6, 7, 8, 9)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run that never saw the digits 6 to 9, and folders of images of these."""
    home = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        assert run([*TRAIN.split(), "--loss", "arcface", "--out", "run"]) == 0
    data = load("digits").test
    for label in HELD_OUT:
        folder = home / "images" / f"d{label}"
        folder.mkdir(parents=True)
        chosen = (data.labels == label).nonzero().flatten()[:3].tolist()
        for number, place in enumerate(chosen, start=1):
            Image.fromarray(data.images[place].permute(1, 2, 0).numpy()).save(folder / f"d{label}_{number:04d}.png")
    return home


def test_a_run_is_measured_on_the_classes_it_never_saw(cli, home):
    code, out, _ = cli("verify", home / "run", "--json", "--bootstrap", "100", "--csv", "o.csv", "--figure", "o.png")
    document = json.loads(out)
    data = load("digits").test
    chosen = torch.isin(data.labels, torch.tensor(HELD_OUT))
    vectors = cifarnet.load(home / "run", device="cpu").embed(data.images[chosen]).numpy()
    upper = np.triu_indices(len(vectors), 1)
    labels = data.labels[chosen].numpy()
    same = (labels[:, None] == labels)[upper]
    assert code == 0
    assert document["auc"] == pytest.approx(roc_auc_score(same, (vectors @ vectors.T)[upper]), abs=1e-6)
    assert (document["genuine_pairs"], document["identities"]) == (same.sum(), 4)
    assert document["bootstrap"]["of"] == "images"
    assert [point["far"] for point in document["operating_points"]] == [0.1, 0.01, 0.001]  # 0.0001 has too few pairs
    assert json.loads((home / "run" / "verification.json").read_text()) == document
    assert Path("o.csv").read_text().splitlines()[1].startswith(f"0.1,{document['operating_points'][0]['threshold']}")
    assert Image.open("o.png").size[0] > 1000
    code, out, _ = cli("verify", home / "run", "--bootstrap", "100")
    assert (
        code == 0
        and "4 unseen classes" in out
        and "images within the 4 identities, which are too few to be drawn" in out
        and "0.1%*" in out
    )


def test_thresholds_of_other_images_stay_in_the_runs_folder(cli, home):
    kept, images = home / "run" / "verification.json", ["--folder", home / "images"]
    code, _, err = cli("verify", home / "run", "--bootstrap", "0", "--overwrite")
    first = kept.read_bytes()
    assert code == 0 and "keeps the thresholds" not in err
    code, out, err = cli("verify", *images, "--run", home / "run", "--bootstrap", "0")
    assert code == 0 and kept.read_bytes() == first and "verification.json" not in out
    of_split = json.loads(first)["measured_on"]
    assert err.splitlines()[-1].startswith(
        f"note: {kept} keeps the thresholds of {of_split}; --overwrite replaces them"
    )
    assert cli("verify", *images, "--run", home / "run", "--bootstrap", "0", "--overwrite")[0] == 0
    assert json.loads(kept.read_text())["measured_on"] != of_split
    # Measured again on the same images it is replaced; so it is where it is another model's, or no such file.
    for there in (json.loads(first) | {"bootstrap": None}, json.loads(first) | {"model_digest": "0" * 64}, "broken"):
        kept.write_text(json.dumps(there))
        assert cli("verify", home / "run", "--bootstrap", "0")[0] == 0 and kept.read_bytes() == first


def test_thresholds_that_cannot_be_written_are_not_said_to_be_kept(cli, home, tmp_path):
    """Where a folder has the file's name: a warning, the result all the same, and no path of a file that is not there."""
    shutil.copytree(home / "run", tmp_path / "run")
    (tmp_path / "run" / "verification.json").unlink(missing_ok=True)
    (tmp_path / "run" / "verification.json").mkdir()
    code, out, err = cli("verify", tmp_path / "run", "--bootstrap", "0")
    assert code == 0 and "EER" in out and "verification.json" not in out
    assert err.count("warning: verification.json is not written: ") == 1


def test_copies_in_folders_are_said(cli, home, tmp_path):
    options = (
        "--folder",
        tmp_path / "own",
        "--run",
        home / "run",
        "--bootstrap",
        "0",
        "--out",
        "o.json",
        "--overwrite",
    )
    for file in sorted((home / "images").glob("*/*.png")):
        (tmp_path / "own" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / file.parent.name / file.name).write_bytes(file.read_bytes())
    code, _, err = cli("verify", *options)
    assert code == 0 and "cop" not in err and "trained on" not in err
    picture = tmp_path / "own" / "d6" / "d6_0001.png"
    (tmp_path / "own" / "d6" / "again.png").write_bytes(picture.read_bytes())
    code, _, err = cli("verify", *options)
    assert code == 0 and f"warning: 1 image is a copy of another ({picture}); remove them" in err
    (tmp_path / "own" / "d7" / "wrong.png").write_bytes(picture.read_bytes())
    code, _, err = cli("verify", *options)
    wrong = tmp_path / "own" / "d7" / "wrong.png"
    assert code == 0 and f"warning: 2 images are copies of another, 1 of several identities ({wrong})" in err


def test_copies_in_pairs_are_said(cli, home, tmp_path):
    """Two files with the same bytes: their score is 1, whatever the model is. Of two pairs with one of them nothing is said."""
    for number, name in enumerate(("a", "b", "c", "d")):
        Image.new("RGB", (32, 32), (40 * number, 99, 200 - 40 * number)).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / "d.png").rename(tmp_path / "cat" / "d.png")
    list_of, look = (
        tmp_path / "pairs.csv",
        ("verify", "--pairs", tmp_path / "pairs.csv", "--run", "packaged", "--bootstrap", "0"),
    )
    list_of.write_text("a,b,same\na.png,b.png,1\ncopy.png,c.png,0\n")
    code, _, err = cli(*look)
    assert code == 0 and "copy" not in err and "trained on" not in err
    files = f"({tmp_path / 'a.png'} and {tmp_path / 'copy.png'})"
    list_of.write_text("a,b,same\na.png,copy.png,1\na.png,b.png,1\na.png,c.png,0\n")
    code, _, err = cli(*look)
    assert (
        code == 0
        and f"warning: 1 pair is of an image and its copy {files}; remove them, else the rates say little\n" in err
    )
    list_of.write_text("a,b,same\na.png,copy.png,0\na.png,b.png,1\ncat/d.png,c.png,0\n")
    code, _, err = cli(*look)
    assert (
        code == 0 and f"warning: 1 pair is of an image and its copy, 1 of them called different {files}; remove" in err
    )
    assert "1 of 2 identities has the name of a class that the model was trained on" in err


def test_pairs_that_are_left_out_are_no_copies(cli, home, tmp_path):
    """Files that a download left empty hold the same bytes, and no image; their folder's name is no identity's either."""
    for number, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (32, 32), (40 * number, 99, 200 - 40 * number)).save(tmp_path / f"{name}.png")
    (tmp_path / "cat").mkdir()
    for name in ("one", "two"):
        (tmp_path / "cat" / f"{name}.png").write_bytes(b"")
    (tmp_path / "pairs.csv").write_text("a,b,same\na.png,b.png,1\na.png,c.png,0\ncat/one.png,cat/two.png,1\n")
    code, _, err = cli("verify", "--pairs", tmp_path / "pairs.csv", "--run", "packaged", "--bootstrap", "0")
    assert code == 1 and "2 files could not be used" in err and "copy" not in err and "trained on" not in err


def test_pairs_that_are_left_out_are_not_listed_again(cli, home, tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (32, 32), (40 * number, 99, 200 - 40 * number)).save(tmp_path / f"{name}.png")
    (tmp_path / "empty.png").write_bytes(b"")
    look = ("verify", "--pairs", tmp_path / "pairs.csv", "--run", "packaged", "--bootstrap", "0")
    lines = "a,b,same\na.png,b.png,1\na.png,c.png,0\na.png,empty.png,1\nempty.png,a.png,1\n"
    (tmp_path / "pairs.csv").write_text(lines)
    code, _, err = cli(*look)
    assert code == 1 and "empty.png" in err and "again" not in err
    (tmp_path / "pairs.csv").write_text(lines + "b.png,a.png,1\n")
    assert "lists 1 pair again; each line counts" in cli(*look)[2]


def test_files_that_cannot_be_used_are_no_copies_and_show_nobody(cli, home, tmp_path):
    """In folders: two empty files of two identities, two of the same broken bytes, and one identity that has no other."""
    shutil.copytree(home / "images", tmp_path / "own")
    (tmp_path / "own" / "cat").mkdir()
    for place, content in (("d6/e.png", b""), ("d7/e.png", b""), ("d6/t.png", b"\x89PNG"), ("cat/t.png", b"\x89PNG")):
        (tmp_path / "own" / place).write_bytes(content)
    code, out, err = cli("verify", "--folder", tmp_path / "own", "--run", "packaged", "--bootstrap", "0")
    assert code == 1 and "4 files could not be used" in err and "cop" not in err and "trained on" not in err
    count = len(list((home / "images").iterdir()))
    assert f"own, {count} identities" in out


def test_a_split_with_one_image_of_each_class_says_what_else_to_take(cli, home, tmp_path):
    for label in (6, 7):
        (tmp_path / "few" / f"c{label}").mkdir(parents=True)
        for file in (home / "images" / f"d{label}").iterdir():
            (tmp_path / "few" / f"c{label}" / file.name).write_bytes(file.read_bytes())
    train = (
        "train --dataset folder --arch baseline --epochs 1 --device cpu --precision fp32 -q --out few-run --data-dir"
    )
    assert cli(*train.split(), tmp_path / "few")[0] == 0
    code, out, err = cli("verify", "few-run")
    told = "error: --split: folder test has one image of each class, so no genuine pair; "
    assert (code, out) == (
        2,
        "",
    ) and told + "take the other --split, or measure images of your own with cifarnet verify --folder" in err
    code, out, err = cli("verify", "few-run", "--split", "train", "--bootstrap", "0")
    assert code == 0 and "folder train, 2 seen classes: 4 images" in out


def test_two_images_are_decided_by_the_stored_threshold(cli, home):
    first, second = home / "images/d6/d6_0001.png", home / "images/d7/d7_0001.png"
    cli("verify", home / "run", "--bootstrap", "0", "--far", "0.2,0.05", "--out", "own.json", "--flip")
    model = cifarnet.load(home / "run", device="cpu")
    embedder = Embedder(model.classifier, model.info, model.device, flip=True)
    plain = (model.embed(first) @ model.embed(second).T).item()
    stored = json.loads(Path("own.json").read_text())
    for far, point in zip((0.2, 0.05), stored["operating_points"], strict=True):
        line = ("verify", first, second, "--run", home / "run", "--thresholds", "own.json", "--far", far, "--json")
        found = json.loads(cli(*line)[1])
        flipped, _, _ = embed_files(embedder, [first, second], [0, 0], ["x"])
        score = float(flipped.vectors[0] @ flipped.vectors[1])
        assert found["score"] == pytest.approx(score, abs=1e-6) and abs(score - plain) > 1e-6
        assert found["decision"] == ("same" if score >= point["threshold"] else "different")
        assert (found["threshold"], found["fmr"]) == (point["threshold"], point["fmr"])
    assert "score" in cli("verify", first, second, "--run", home / "run", "--thresholds", "own.json")[1]
    stored["model_digest"] = "0" * 64
    Path("own.json").write_text(json.dumps(stored))
    code, out, err = cli("verify", first, second, "--run", home / "run", "--thresholds", "own.json")
    assert (code, out) == (2, "") and "another model" in err
    for broken in ("[]", "{}", '{"operating_points": 3}', "{", json.dumps(stored | {"operating_points": [1]})):
        Path("own.json").write_text(broken)
        code, out, err = cli("verify", first, second, "--run", home / "run", "--thresholds", "own.json")
        assert (code, out, err.count("error: ")) == (2, "", 1), broken
    code, out, err = cli("verify", first, second)  # the packaged model, of which nothing is stored
    assert code == 0 and "decision" not in out and "no threshold was measured" in err


def test_two_images_are_decided_at_one_percent_where_no_far_is_asked_for(cli, home):
    first, second = home / "images/d6/d6_0001.png", home / "images/d7/d7_0001.png"
    assert cli("verify", home / "run", "--bootstrap", "0", "--far", "0.1,0.01,0.001", "--out", "own.json")[0] == 0
    points = {point["far"]: point for point in json.loads(Path("own.json").read_text())["operating_points"]}
    document = json.loads(cli("verify", first, second, "--run", home / "run", "--thresholds", "own.json", "--json")[1])
    assert list(points) == [0.1, 0.01, 0.001] and document["far"] == 0.01
    assert document["threshold"] == points[0.01]["threshold"]


def test_lists_and_folders_of_images(cli, home):
    lines = ["2\t2", "d6\t1\t2", "d7\t1\t3", "d6\t1\td7\t2", "d8\t2\td9\t1"]
    lines += ["d8\t1\t2", "d9\t2\t3", "d6\t3\td9\t2", "d8\t3\td7\t1"]
    Path("pairs.txt").write_text("\n".join(lines))
    rows = ["a,b,same,fold", "d6/d6_0001.png,d6/d6_0002.png,1,x", "d7/d7_0001.png,d7/d7_0003.png,yes,x"]
    rows += ["d6/d6_0001.png,d7/d7_0002.png,0,x", "d8/d8_0002.png,d9/d9_0001.png,false,x"]
    rows += ["d8/d8_0001.png,d8/d8_0002.png,true,y", "d9/d9_0002.png,d9/d9_0003.png,same,y"]
    rows += ["d6/d6_0003.png,d9/d9_0002.png,different,y", "d8/d8_0003.png,d7/d7_0001.png,no,y"]
    Path("pairs.csv").write_text("\n".join(rows))
    shared = ("--run", home / "run", "--folder", home / "images", "--far", "0.5", "--json", "--bootstrap", "100")
    documents = [
        json.loads(cli("verify", "--pairs", name, "--folds", *shared)[1]) for name in ("pairs.txt", "pairs.csv")
    ]
    for name in ("auc", "eer", "folds"):
        assert documents[0][name] == documents[1][name]
    assert (documents[0]["identities"], documents[1]["identities"]) == (4, 8)  # folders; joined by lines
    (home / "images/d6/broken.png").write_text("no image")
    (home / "images/empty").mkdir()
    try:
        code, out, err = cli("verify", *shared)
    finally:
        (home / "images/d6/broken.png").unlink()
        (home / "images/empty").rmdir()
    assert code == 1 and json.loads(out)["genuine_pairs"] == 4 * 3
    assert "broken.png" in err and "empty" in err and "2 files could not be used" in err


def test_too_few_resamples_are_refused_before_an_image_is_read(cli, home, monkeypatch):
    monkeypatch.setattr("cifarnet.analysis.verify_images.embed_parts", None)
    code, _, err = cli("verify", home / "run", "--bootstrap", "50")
    assert code == 2 and "--bootstrap: 50 is out of range; give 0, or 100 to 100,000 resamples" in err


def test_a_line_without_a_fold_among_lines_with_one_is_refused(home):
    """It would be a fold of its own, and weigh as much as a whole one."""
    rows = ["a,b,same,fold", "1.png,2.png,1,x", "1.png,3.png,0, ", "4.png,5.png,1,y"]
    Path("pairs.csv").write_text("\n".join(rows))
    with pytest.raises(Refused, match="line 3: names no fold, as other lines do"):
        read_pairs(Path("pairs.csv"), home / "images")
    Path("pairs.csv").write_text("\n".join(rows).replace("x", "").replace("y", ""))
    assert read_pairs(Path("pairs.csv"), home / "images").folds is None


def test_an_image_is_one_however_its_path_is_spelt(cli, home):
    lines = ["a;b;same", "d6/d6_0001.png;./d6/d6_0002.png;1.0", "d6/./d6_0002.png;d6/d6_0001.png;1.0"]
    lines += ["d6/d6_0001.png;d8/../d7/d7_0001.png;0.0", "d7/d7_0001.png;d7/d7_0002.png;1.0"]
    for delimiter in ";\t":
        Path("pairs.csv").write_text("\n".join(lines).replace(";", delimiter))
        listed = read_pairs(Path("pairs.csv"), home / "images")
        assert len(listed.files) == 4 and len(set(listed.labels)) == 2 and listed.repeated(np.ones(4, bool)) == 1
    code, out, err = cli("verify", "--run", home / "run", "--pairs", "pairs.csv", "--folder", home / "images")
    assert (
        code == 0
        and "pairs.csv lists 1 pair again; each line counts" in err
        and "no threshold: 1 impostor pair shows none" in err
    )
    assert "FAR asked" not in out and "EER" in out and "fewer than 30 genuine pairs" in out
    two = (home / "images/d6/d6_0001.png", home / "images/d6/d6_0002.png", "--run", home / "run")
    pairs = ("--pairs", "pairs.csv", "--folder", home / "images", "--out", "kept.json")
    code, out, err = cli("verify", "--run", home / "run", *pairs)
    assert code == 0 and "kept.json" in out and json.loads(Path("kept.json").read_text())["operating_points"] == []
    code, out, err = cli("verify", *two, "--thresholds", "kept.json")
    assert (code, out) == (2, "") and "kept.json: holds no threshold" in err
    Path("pairs.csv").write_text("a,b,same\nx/y.png,./x/../x/y.png,1\n")
    with pytest.raises(Refused, match="line 2: both images are the same"):
        read_pairs(Path("pairs.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not name the columns"),
        ("a,b\n1,2\n", "does not name the columns"),
        ("a,b,same\n", "lists no pairs"),
        ("a,b,same\nx,y\n", "line 2: has 2 cells"),
        ("a,b,same\nx,y,1\nx,z,maybe\n", "line 3: 'maybe' says neither"),
        ("a,b,same\nx,x,1\n", "line 2: both images are the same"),
        ("a,b,same\n,x,1\n", "line 2: names no image"),
        ("a,b,same\nx,y,1\ny,z,1\nx,z,0\n", "line 4: x and z differ here"),
        ("10 300\n", "promises 6,000 pairs"),
        ("1\nx 1 2\nx 1 y\n", "line 3: is not"),
        ("1\nx 1 b\nx 1 y 2\n", "line 2: does not number"),
        ("a,b,same\n\udcff", "not text"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, text, words):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Refused, match=words):
        read_pairs(path)


def test_what_cannot_be_measured_is_refused_in_one_line(cli, home):
    image = home / "images/d6/d6_0001.png"
    refused = {
        ("run", "--far", "0"): "--far: 0 is no rate; give numbers above 0, below 1",
        ("run", "--far", "x"): "is no number",
        ("run", "--far", "1e-9"): "give at least",
        ("run", "--classes", "unsen"): "did you mean unseen",
        ("run", "--split", "val", "--classes", "unseen"): "of the seen classes",
        ("run", "--folds"): "add --pairs",
        ("run", "--thresholds", "x.json"): "is of two images",
        ("run", "--pairs", "none.csv"): "there is no such file",
        ("run", "--folder", "none"): "there is no such folder",
        ("run", "--folder", "images", "--classes", "seen"): "the images are given by name",
        ("run", "--run", "run"): "name the run once",
        (image,): "give two",
        ("images",): f"images, and is no run; did you mean --folder {home / 'images'}?",
        (home / "images/d6",): "is no run folder",
        (home,): "is no run folder",  # a folder of runs, with their pictures
        (image, image, image): "3 names",
        (image, image, "--csv", "x.csv"): "only compared",
        (image, image, "--far", "0.1,0.2"): "give one",
    }
    for words, told in refused.items():
        line = [home / "run" if word == "run" else home / "images" if word == "images" else word for word in words]
        code, out, err = cli("verify", *line)
        assert (code, out, err.count("error: ")) == (2, "", 1), words
        assert told in err, err
    code, out, err = cli("verify", image, "none.png", "--run", home / "run")
    assert code == 1 and out == "" and "none.png: there is no such file" in err


def test_embeddings_that_are_not_finite(cli, home):
    """Weights that overflow, in a copy of the checkpoint: a split is not measured, an image file is left out."""
    tensors = load_file(home / "run/last.safetensors")
    first = next(name for name in tensors if name.startswith("backbone") and name.endswith("weight"))
    tensors[first] = torch.full_like(tensors[first], 3e38)
    save_file(tensors, "broken.safetensors", read_metadata(home / "run/last.safetensors", CHECKPOINT, "model"))
    code, out, err = cli("verify", "broken.safetensors", "--bootstrap", "0")
    assert (code, out) == (1, "") and "not finite" in err and "image 0 (nine)" in err
    opened = open_for_evaluation("broken.safetensors")
    with pytest.raises(Failed, match="141 images"):
        embed_classes(opened, "unseen")
    image = home / "images/d6/d6_0001.png"
    found, errors, _ = embed_files(Embedder(opened.model, opened.info, opened.device), [image], [0], ["x"])
    assert len(found) == 0 and "not finite" in errors[0] and "d6_0001.png" in errors[0]


def test_classes_and_mirror_images(home):
    opened = open_for_evaluation(home / "run")
    seen, unseen, both = (embed_classes(opened, kind) for kind in ("seen", "unseen", "all"))
    np.testing.assert_array_equal(both.vectors, np.concatenate([seen.vectors, unseen.vectors]))
    assert [both.classes[label] for label in both.labels[-2:]] == [
        unseen.classes[label] for label in unseen.labels[-2:]
    ]
    images, labels = next(iter(opened.loader.epoch(0)))
    with torch.no_grad():
        features = opened.model.features(images) + opened.model.features(images.flip(3))
    wanted = torch.nn.functional.normalize(features.double(), dim=1)
    flipped = embed_classes(opened, "seen", flip=True)
    np.testing.assert_allclose(flipped.vectors, wanted.numpy(), atol=1e-5)
    np.testing.assert_array_equal(flipped.labels, labels.numpy())
    assert model_digest(opened.model) == model_digest(open_for_evaluation(home / "run" / "last.safetensors").model)


@pytest.mark.parametrize("of", ["a split", "a folder", "listed pairs", "a curve"])
def test_flip_adds_the_features_of_the_mirrored_image(cli, home, of):
    data, model = load("digits").test, cifarnet.load(home / "run", device="cpu")
    chosen = torch.isin(data.labels, torch.tensor(HELD_OUT)).nonzero().flatten()
    files = [(f"d{label}/d{label}_{n:04d}.png", label) for label in HELD_OUT for n in (1, 2, 3)]
    if of in ("a folder", "listed pairs"):
        chosen = torch.cat([(data.labels == label).nonzero().flatten()[:3] for label in HELD_OUT])
        lines = [f"{a},{b},{int(x == y)}" for (a, x), (b, y) in combinations(files, 2)]
        Path("pairs.csv").write_text("\n".join(["a,b,same", *lines]))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.info.mean, model.info.std))
    pixels = (data.images[chosen] / 255 - mean) / std
    with torch.no_grad():
        plain, mirrored = (model.classifier.features(view).double().numpy() for view in (pixels, pixels.flip(3)))
    upper = np.triu_indices(len(chosen), 1)
    same = (data.labels[chosen][:, None] == data.labels[chosen]).numpy()[upper]
    without, cosines = (cosine_similarity(rows)[upper] for rows in (plain, plain + mirrored))
    if of == "a curve":
        assert cli("visualize", "det", home / "run", "--flip", "--data-out", "d.json")[0] == 0
        [curve] = json.loads(Path("d.json").read_text()).values()
        inside = np.array(curve["threshold"])[:, None] - 1e-6
        np.testing.assert_allclose(curve["fmr"], (cosines[~same] >= inside).mean(axis=1), atol=1e-3)
        np.testing.assert_allclose(curve["fnmr"], (cosines[same] < inside).mean(axis=1), atol=1e-3)
        return
    pairs, folder = ("--pairs", "pairs.csv"), ("--folder", home / "images", "--run", home / "run")
    asked = {"a split": [home / "run"], "a folder": folder, "listed pairs": [*pairs, *folder]}[of]
    code, out, _ = cli("verify", *asked, "--flip", "--far", "0.5", "--bootstrap", "0", "--out", "o.json", "--json")
    assert code == 0 and json.loads(out)["auc"] == pytest.approx(roc_auc_score(same, cosines), abs=1e-6)
    assert abs(roc_auc_score(same, cosines) - roc_auc_score(same, without)) > 1e-4


def test_the_unseen_classes_of_the_training_split_are_its_own(cli, home):
    code, out, _ = cli("verify", home / "run", "--split", "train", "--bootstrap", "0", "--out", "o.json", "--json")
    document, labels = json.loads(out), load("digits").train.labels.tolist()
    counts = [labels.count(label) for label in HELD_OUT]
    assert code == 0 and document["images"] == sum(counts)
    assert document["genuine_pairs"] == sum(count * (count - 1) // 2 for count in counts)


@pytest.mark.parametrize("split", ["train", "test"])
def test_figures_of_either_split_are_of_its_pairs(cli, home, split):
    labels = getattr(load("digits"), split).labels
    labels = labels[torch.isin(labels, torch.tensor(HELD_OUT))]
    vectors = cifarnet.load(home / "run", device="cpu").embed(pictures(split, labels))
    upper = np.triu_indices(len(labels), 1)
    same = (labels[:, None] == labels).numpy()[upper]
    cosines = (vectors @ vectors.T).numpy()[upper]
    assert cli("visualize", "det", home / "run", "--split", split, "--data-out", "d.json")[0] == 0
    [curve] = json.loads(Path("d.json").read_text()).values()
    inside = np.array(curve["threshold"]) - 1e-6
    np.testing.assert_allclose(curve["fnmr"], [(cosines[same] < low).mean() for low in inside], atol=1e-3)
    assert cli("visualize", "scores", home / "run", "--split", split, "--data-out", "s.json", "--far", "0.1")[0] == 0
    numbers = json.loads(Path("s.json").read_text())
    for kind, chosen in (("genuine", same), ("impostor", ~same)):
        wanted, _ = np.histogram(cosines[chosen], numbers["edges"], density=True)
        np.testing.assert_allclose(numbers[kind], wanted, atol=0.02 * wanted.max())


def pictures(split, labels):
    """The images of the held-out digits of a split."""
    found = getattr(load("digits"), split)
    return found.images[torch.isin(found.labels, labels)]


def test_in_canonical_order_unseen_images_come_as_they_do_from_a_shuffled_set(home):
    opened = open_for_evaluation(home / "run")
    test = opened.data.test
    shuffled = test.subset(torch.from_numpy(np.random.default_rng(0).permutation(len(test))))
    config, found = replace(opened.shaping, canonical_order=True), []
    for one in (test, shuffled):
        other = replace(opened, shaping=config, data=replace(opened.data, test=one))
        found.append(embed_classes(other, "unseen"))
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    np.testing.assert_allclose(found[0].vectors, found[1].vectors, atol=1e-5)


def test_curves_of_unlike_images_say_so(cli, home, monkeypatch):
    """Two curves of one figure are compared by the eye: each names its images where they are not the same."""
    assert cli(*TRAIN.split(), "--hold-out-classes", "3", "--out", "other")[0] == 0
    drawn = []
    monkeypatch.setattr("cifarnet.analysis.plots.verification.draw_det", lambda *arguments: drawn.append(arguments))
    code, _, err = cli("visualize", "det", home / "run", "other", "--out", "d.png")
    assert code == 0 and "these curves are not of the same images" in err
    assert [name.split("\n")[1] for name in drawn[0][0]] == [f"digits test, {n} unseen classes" for n in (4, 3)]
    code, _, err = cli("visualize", "det", home / "run", home / "run/last.safetensors", "--out", "e.png")
    assert code == 0 and "same images" not in err and not any("\n" in name for name in drawn[1][0])
    assert drawn[0][2] == "Not of the same images" and drawn[1][2].endswith("digits test, 4 unseen classes")


def test_curves_of_as_many_other_classes_say_so(cli, home, monkeypatch):
    """As many classes held out, but others: the same words, and other images. The title says what all curves are of."""
    for name, loss, held in (("a", "ce", "4"), ("b", "ce", "five,six,seven,eight")):
        assert cli(*TRAIN.split(), "--loss", loss, "--hold-out-classes", held, "--out", name)[0] == 0
    drawn = []
    monkeypatch.setattr("cifarnet.analysis.plots.verification.draw_det", lambda *arguments: drawn.append(arguments))
    code, _, err = cli("visualize", "det", home / "run", "b", "--out", "d.png")
    assert code == 0 and "the same images: run: digits test, 4 unseen classes: eight, nine, seven, six; b: " in err
    assert [name.split("\n")[1:] for name in drawn[0][0]] == [
        ["digits test, 4 unseen classes", names] for names in ("eight, nine, seven, six", "eight, five, seven, six")
    ]
    assert cli("visualize", "det", home / "run", "a", "--out", "e.png")[0] == 0
    assert drawn[1][2] == "digits test, 4 unseen classes"  # of two losses: which pairs these are
    code, _, err = cli("visualize", "det", home / "run", "b", "--classes", "all", "--out", "f.png")
    assert code == 0 and "same images" not in err  # all ten, whoever was trained on which


@pytest.mark.parametrize("ceiling", [index.MEMORY, 1000])
def test_all_classes_are_the_same_images_whoever_held_out_which(cli, home, monkeypatch, tmp_path, ceiling):
    """In memory and on the disk; another image in one class makes them others."""
    monkeypatch.setattr(index, "MEMORY", ceiling)
    for number, place in enumerate(np.ndindex(4, 2, 3)):
        folder = tmp_path / "set" / ("train", "test")[place[1]] / "abcd"[place[0]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (10 * number, 99, 200)).save(folder / f"{place[2]}.png")
    for held in ("a,", "c,d"):
        line = f"{TRAIN.replace('digits', 'folder')} --hold-out-classes {held} --out run-{held[0]}"
        assert cli(*line.split(), "--data-dir", tmp_path / "set")[0] == 0

    def found(held):
        parts = open_classes(open_for_evaluation(Path(f"run-{held}")), "all")
        assert isinstance(parts[0].loader.split, StreamedSplit) is (ceiling == 1000)
        return images_of(parts)

    before = found("a")
    assert before[:2] == (("a", "b", "c", "d"), 12) and found("c") == before
    (tmp_path / "set" / "test" / "b" / "0.png").unlink()
    Image.new("RGB", (40, 40), (0, 0, 7)).save(tmp_path / "set" / "test" / "b" / "3.png")
    after = found("a")
    assert after[:2] == before[:2] and after != before and found("c") == after


def test_figures(cli, home):
    code, out, _ = cli("visualize", "det", home / "run", home / "run/last.safetensors", "--data-out", "d.json")
    curves = json.loads(Path("d.json").read_text())
    assert code == 0 and out.strip() == "det.png" and len(curves) == 2
    one = next(iter(curves.values()))
    assert one["fmr"] == sorted(one["fmr"]) and one["fnmr"] == sorted(one["fnmr"], reverse=True)
    code, out, _ = cli("visualize", "scores", home / "run", "--out", "s.svg", "--data-out", "s.json", "--far", "0.1")
    numbers = json.loads(Path("s.json").read_text())
    width = numbers["edges"][1] - numbers["edges"][0]
    assert code == 0 and sum(numbers["genuine"]) * width == pytest.approx(1)
    assert list(numbers["thresholds"]) == ["0.1"]
