"""`cifarnet identify` and `visualize cmc` from the command line: answers, files, and what is refused in one line."""

import csv
import json
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cifarnet
import cifarnet.data
from cifarnet.analysis.identification import pictures
from cifarnet.analysis.identification.gallery_file import read_gallery, write_gallery
from cifarnet.analysis.identification.rates import OpenSet
from cifarnet.analysis.identification.seen import trained_on
from cifarnet.analysis.plots import identification as picture
from cifarnet.analysis.plots import style
from cifarnet.models.checkpoint import load_model, save_model
from cifarnet.storage.find_checkpoint import PACKAGED

KEPT = Path(__file__).parents[1] / "kept" / "v0.1" / "digits.safetensors"
NAMES = ("ada", "bob", "[red]eve")


@pytest.fixture
def folders(tmp_path):
    """known/: three identities with two pictures each; seen/: others of them, and of two strangers; alone/: pictures alone."""
    random = np.random.default_rng(0)
    for name in (*NAMES, "zoe", "yan"):
        face = random.integers(0, 256, (4, 4, 3))
        for number in range(5):
            noisy = np.clip(face + random.integers(-30, 31, (4, 4, 3)), 0, 255).astype(np.uint8)
            picture = Image.fromarray(noisy).resize((32, 32), Image.Resampling.BICUBIC)
            place = "known" if number < 2 and name in NAMES else "seen"
            (tmp_path / place / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / place / name / f"{number}.png")
            (tmp_path / "alone").mkdir(exist_ok=True)
            picture.save(tmp_path / "alone" / f"{name.strip('[]')}.png")
    return tmp_path


def test_answers_scores_and_files(cli, folders):
    files = ["--save-gallery", "g.safetensors", "--csv", "a.csv", "--figure", "f.svg", "--top", 2]
    code, out, err = cli("identify", "--gallery", "known", "--probes", "seen", "--fpir", "0.1", *files, "--json")
    document = json.loads(out)
    assert code == 0 and "error" not in err
    # The same with the Python API: means of unit embeddings, and cosines.
    model, unit = cifarnet.load("packaged", device="cpu"), {}
    for name in NAMES:
        mean = model.embed(f"known/{name}").double().mean(dim=0)
        unit[name] = mean / mean.norm()
    assert len(document["probes"]) == 19
    for probe in document["probes"]:
        embedded = model.embed(probe["file"])[0].double()
        scores = sorted(((float(embedded @ unit[name]), name) for name in NAMES), reverse=True)
        assert [one["name"] for one in probe["candidates"]] == [name for _, name in scores[:2]]
        assert [one["score"] for one in probe["candidates"]] == pytest.approx([s for s, _ in scores[:2]], abs=1e-5)
        identity = probe["file"].split("/")[1]
        assert probe["identity"] == identity and (probe["rank"] is None) == (identity not in NAMES)
        assert probe["answer"] in (scores[0][1], None)
        assert (probe["answer"] is None) == (probe["candidates"][0]["score"] < document["threshold"])
    assert (document["mated_searches"], document["non_mated_searches"]) == (9, 10)
    point = document["operating_points"][0]
    assert point["fpir"] <= 0.1 and document["at_threshold"] == {"fpir": point["fpir"], "dir": point["dir"]}
    rows = list(csv.DictReader(Path("a.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["answer"] or None for row in rows] == [probe["answer"] for probe in document["probes"]]
    assert "CMC of 9 mated searches" in Path("f.svg").read_text(encoding="utf-8")

    # Pictures alone, in the gallery that was kept, with the threshold that was set on it.
    code, out, _ = cli("identify", "--gallery", "g.safetensors", "--probes", "alone", "--fpir", "0.1", "--json")
    later = json.loads(out)
    assert code == 0 and later["threshold"] == document["threshold"] and later["gallery"] == document["gallery"]
    assert (
        "kept in the gallery" in later["threshold_origin"] and later["cmc"] is None and later["operating_points"] == []
    )
    code, out, _ = cli("identify", "--gallery", "g.safetensors", "--probes", "alone", "--threshold", 1)
    assert code == 0 and out.count("not enrolled") == 5 and "1.0000, as given" in out and "5 not known" in out
    code, out, _ = cli("identify", "--gallery", "known", "--probes", "seen", "--flip", "--template", "MAX")
    assert code == 0 and "[red]eve" in out and "max templates" in out and "needs 100 probes" in out


def test_one_picture_is_searched_as_it_is_among_others(cli, folders):
    kept = ["identify", "--gallery", "known", "--threshold", "0.5", "--json", "--probes"]
    among = json.loads(cli(*kept, "alone")[1])["probes"]
    code, out, _ = cli(*kept, "alone/ada.png")
    document = json.loads(out)
    assert code == 0 and document["non_mated_searches"] == 0
    (probe,) = document["probes"]
    assert Path(probe["file"]).name == "ada.png" and probe["identity"] is None
    (wanted,) = [one for one in among if Path(one["file"]).name == "ada.png"]
    assert probe["answer"] == wanted["answer"]
    for one, other in zip(probe["candidates"], wanted["candidates"], strict=True):
        assert one["name"] == other["name"] and one["score"] == pytest.approx(other["score"], abs=1e-5)
    Path("note.txt").write_text("no picture")
    code, out, err = cli(*kept, "note.txt")
    assert code in (1, 2) and "note.txt" in err, (code, err)


def test_a_gallery_keeps_the_threshold_that_it_was_saved_with(cli, folders):
    """Whatever it was set by, until another one is asked for."""
    kept, probes = ["--gallery", "kept.safetensors"], ["--probes", "alone", "--json"]
    enrol = ["identify", "--gallery", "known", "--save-gallery", "kept.safetensors", "--overwrite"]

    def saved(*by):
        code, out, _ = cli(*enrol, "--probes", "seen", *by, "--json")
        assert code == 0
        return json.loads(out)

    def used(*more):
        code, out, err = cli("identify", *kept, *(more or probes))
        assert code == 0, err
        return json.loads(out)

    for by in (["--fpir", "0.2"], ["--fpir", "0.1,0.5"], ["--fpir", "0.5,0.1"], ["--threshold", "0.25"], []):
        document, later = saved(*by), used()
        assert later["threshold"] == document["threshold"] is not None, by
        assert later["threshold_origin"].startswith("kept in the gallery"), by
    lax, strict = (point["threshold"] for point in saved("--fpir", "0.5,0.1")["operating_points"])
    assert strict > lax == used()["threshold"]
    # The rates of other probes are measured, and their threshold is not taken unless it is asked for.
    assert used("--probes", "seen", "--json")["threshold"] == lax
    for rate, wanted in (("0.1", strict), ("0.5", lax)):
        assert used("--probes", "seen", "--fpir", rate, "--json")["threshold"] == wanted
        assert used(*probes, "--fpir", rate)["threshold"] == wanted
    # Enrolled alone, with a threshold or none.
    assert cli(*enrol, "--threshold", "0.5")[0] == 0 and used()["threshold"] == 0.5
    assert cli(*enrol)[0] == 0 and used()["threshold"] is None


def test_pictures_that_cannot_be_used_are_named_and_the_others_done(cli, folders):
    (folders / "known" / "bob" / "0.png").write_bytes(b"no picture")
    (folders / "known" / "gone").mkdir()
    (folders / "known" / "gone" / "x.png").write_bytes((folders / "alone" / "ada.png").read_bytes()[:50])
    os.mkfifo(folders / "seen" / "zoe" / "pipe.png")
    code, out, err = cli("identify", "--gallery", "known", "--probes", "seen", "--json")
    lines = [line for line in err.splitlines() if line.startswith(("error", "warning"))]
    assert code == 1 and len(json.loads(out)["probes"]) == 19 and len(lines) == 5, err
    assert "bob/0.png" in lines[0] and "gone/x.png" in lines[1] and "pipe.png" in lines[3]
    assert lines[2] == "warning: gone: is not enrolled, none of its images can be used"
    assert lines[4] == "error: identify: 3 images could not be used; see the lines above"
    # A model whose features overflow: no embedding at all.
    model, info = load_model(PACKAGED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e12)
    save_model(folders / "wild.safetensors", model, info)
    code, out, err = cli("identify", "--gallery", "known", "--probes", "seen", "--run", "wild.safetensors")
    assert code == 1 and out == "" and "not finite" in err
    assert err.splitlines()[-1] == "error: --gallery: none of its images can be used; see the lines above"


def test_names_stay_with_their_pictures_where_one_before_them_cannot_be_used(cli, folders):
    (folders / "known" / "aaa").mkdir()
    (folders / "known" / "aaa" / "x.png").write_bytes(b"no picture")
    (folders / "seen" / "ada" / "0.png").write_bytes((folders / "alone" / "ada.png").read_bytes()[:50])
    code, out, _ = cli("identify", "--gallery", "known", "--probes", "seen", "--json")
    model, probes = cifarnet.load("packaged", device="cpu"), json.loads(out)["probes"]
    unit = {name: model.embed(f"known/{name}").double().mean(dim=0) for name in NAMES}
    assert code == 1 and len(probes) == 19
    for probe in probes:
        assert probe["identity"] == probe["file"].split("/")[1]
        embedded = model.embed(probe["file"])[0].double()
        wanted = {name: float(torch.cosine_similarity(embedded, mean, dim=0)) for name, mean in unit.items()}
        assert {one["name"]: one["score"] for one in probe["candidates"]} == pytest.approx(wanted, abs=1e-5)


def test_probes_that_are_files_of_the_gallery_are_warned_of(cli, folders):
    told = "what scores and rates come out of that says nothing"
    code, _, err = cli("identify", "--gallery", "known", "--probes", "known")
    assert code == 0 and f"warning: 6 probes are in the gallery too: {told}\n" in err
    assert told not in cli("identify", "--gallery", "known", "--probes", "seen")[2]
    (folders / "seen" / "bob" / "9.png").symlink_to(folders / "known" / "bob" / "1.png")
    code, _, err = cli("identify", "--gallery", "known", "--probes", "seen")
    assert code == 0 and f"warning: 1 probe is in the gallery too: {told}\n" in err
    # A copy under another name and identity is the same picture; one that differs in a byte is not.
    picture = (folders / "known" / "ada" / "0.png").read_bytes()
    (folders / "seen" / "zoe" / "copy.png").write_bytes(picture)
    (folders / "seen" / "zoe" / "other.png").write_bytes(picture + b"x")
    code, _, err = cli("identify", "--gallery", "known", "--probes", "seen")
    assert code == 0 and f"warning: 2 probes are in the gallery too: {told}\n" in err
    # As well where the gallery was saved; one that was saved without digests is read, and tells nothing.
    assert cli("identify", "--gallery", "known", "--save-gallery", "g.safetensors")[0] == 0
    look = ("identify", "--gallery", "g.safetensors", "--probes", "seen")
    assert f"warning: 2 probes are in the gallery too: {told}\n" in cli(*look)[2]
    gallery = read_gallery(folders / "g.safetensors")
    write_gallery(folders / "g.safetensors", replace(gallery, contents=None))
    code, _, err = cli(*look)
    assert code == 0 and told not in err
    write_gallery(folders / "g.safetensors", replace(gallery, contents=gallery.contents[:, :31]))
    assert cli(*look)[0::2] == (2, "error: g.safetensors: is broken (its digests have another shape or type); "
                                   "take another gallery, or enrol the images again\n")  # fmt: skip


def test_files_that_cannot_be_used_are_not_in_the_gallery_too(cli, folders):
    for place in ("known/ada", "seen/zoe"):
        (folders / place / "empty.png").write_bytes(b"")
        (folders / place / "cut.png").write_bytes((folders / "known" / "ada" / "0.png").read_bytes()[:50])
    assert cli("identify", "--gallery", "known", "--save-gallery", "g.safetensors")[0] == 1
    for gallery in ("known", "g.safetensors"):
        code, _, err = cli("identify", "--gallery", gallery, "--probes", "seen")
        assert code == 1 and "seen/zoe/empty.png" in err and "in the gallery too" not in err
    (folders / "seen" / "zoe" / "copy.png").write_bytes((folders / "known" / "ada" / "0.png").read_bytes())
    for gallery in ("known", "g.safetensors"):
        assert "warning: 1 probe is in the gallery too" in cli("identify", "--gallery", gallery, "--probes", "seen")[2]


def test_images_are_read_for_their_digests_only_where_the_gallery_is_saved(cli, folders, monkeypatch):
    read = []
    real = pictures.contents_of
    monkeypatch.setattr(pictures, "contents_of", lambda files: read.append(len(files)) or real(files))
    assert cli("identify", "--gallery", "known", "--probes", "seen")[0] == 0 and read == []
    assert cli("identify", "--gallery", "known", "--save-gallery", "g.safetensors")[0] == 0 and read == [6]
    # Of a gallery that is read and saved again the digests stay.
    again = ("--gallery", "g.safetensors", "--probes", "seen", "--save-gallery", "again.safetensors")
    assert cli("identify", *again)[0] == 0 and read == [6]
    first, second = (read_gallery(folders / f"{name}.safetensors").contents for name in ("g", "again"))
    assert first.shape == (6, 32) and np.array_equal(first, second)


def test_identities_that_the_model_was_trained_on_are_said(cli, folders):
    """The packaged model knows `cat`: enrolled or searched under its name, in any Unicode form, it is no stranger."""
    told = "that the model was trained on: the rates of identities that it has seen say little of new ones\n"
    look = ("identify", "--gallery", "known", "--probes", "seen")
    assert told not in cli(*look)[2]
    (folders / "seen" / "zoe").rename(folders / "seen" / "cat")
    code, _, err = cli(*look)
    assert code == 0 and f"warning: 1 of 5 identities has the name of a class {told}" in err
    (folders / "known" / "bob").rename(folders / "known" / "dog")
    assert f"warning: 2 of 6 identities have names of classes {told}" in cli(*look)[2]
    assert told not in cli("identify", "--gallery", "known", "--probes", "alone")[2]  # no rates
    code, _, err = cli("verify", "--folder", "seen", "--out", "o.json", "--bootstrap", "0")
    assert code == 0 and f"warning: 1 of 5 identities has the name of a class {told}" in err
    assert len(trained_on([unicodedata.normalize("NFC", "Zoë")], [unicodedata.normalize("NFD", "Zoë")])) == 1


def test_identities_may_be_links_and_are_those_of_verify(cli, folders):
    """Pictures without a suffix count; what is left out is said once; verify names the same identities."""
    (folders / "linked").mkdir()
    for name in NAMES:
        (folders / "linked" / name).symlink_to(folders / "known" / name)
    (folders / "known" / "ada" / "0.png").rename(folders / "known" / "ada" / "IMG_0")
    (folders / "known" / "bob" / "2.heic").write_bytes(b"unread")
    left = r"^linked: left out: 1 .heic \(no format that is read here\)$"
    with pytest.warns(UserWarning, match=left):
        code, out, err = cli("identify", "--gallery", "linked", "--probes", "seen", "--json")
    document = json.loads(out)
    assert code == 0 and document["gallery"]["identities"] == 3 and document["gallery"]["images"] == 6, err
    with pytest.warns(UserWarning, match=left):
        code, out, err = cli("verify", "--folder", "linked", "--far", "0.5", "--json")
    assert code == 0 and json.loads(out)["identities"] == 3 and json.loads(out)["genuine_pairs"] == 3, err
    # A link that leads back is no identity, and ends nothing in a circle.
    (folders / "known" / "bob" / "2.heic").unlink()
    (folders / "linked" / "loop").symlink_to(folders / "linked")
    with pytest.warns(UserWarning, match="^linked: left out: links to folders: 1$"):
        code, _, err = cli("identify", "--gallery", "linked", "--probes", "seen")
    assert code == 2 and "--gallery: linked: no images of loop; remove the folder or fill it" in err
    with pytest.warns(UserWarning, match="^linked: left out: links to folders: 1$"):
        code, out, err = cli("verify", "--folder", "linked", "--far", "0.5", "--json")
    assert code == 1 and json.loads(out)["identities"] == 3 and "linked/loop: no image files in it" in err


def test_a_name_in_two_unicode_forms_is_one_identity(cli, folders):
    one, other = (unicodedata.normalize(form, "Am\u00e9lie") for form in ("NFC", "NFD"))
    (folders / "known" / "ada").rename(folders / "known" / other)
    (folders / "seen" / "ada").rename(folders / "seen" / one)
    code, out, err = cli("identify", "--gallery", "known", "--probes", "seen", "--json")
    assert code == 0 and json.loads(out)["mated_searches"] == 9, err
    (folders / "known" / one).mkdir()
    (folders / "known" / other / "1.png").rename(folders / "known" / one / "1.png")
    code, out, err = cli("identify", "--gallery", "known", "--probes", "seen", "--json")
    assert code == 0 and json.loads(out)["gallery"]["identities"] == 3, err
    code, out, err = cli("verify", "--folder", "known", "--far", "0.5", "--json")
    assert code == 0 and json.loads(out)["identities"] == 3 and json.loads(out)["genuine_pairs"] == 3, err


def test_what_is_refused_is_one_line_and_2(cli, folders):
    assert cli("identify", "--gallery", "known", "--save-gallery", "g.safetensors")[0] == 0
    model, info = load_model(PACKAGED)
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    save_model(folders / "other.safetensors", model, info)
    for name in ("empty", "parts/train/ada", "hole/ada"):
        (folders / name).mkdir(parents=True)
    for place in ("parts/train/ada", "hole/bob", "one/ada"):
        (folders / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folders / place / "a.png")
    known, probes = ["--gallery", "known"], ["--probes", "seen"]
    for arguments, start, fix in (
        ([], "--gallery: none is given", "name a folder"),
        (known, "--probes: none are given", "--save-gallery"),
        (["--gallery", "gone", *probes], "--gallery: gone: there is no such folder", "for each identity"),
        (["--gallery", "empty", *probes], "empty: no image files in it", "images end in"),
        ([*known, "--probes", "empty"], "empty: no image files in it", "images end in"),
        (["--gallery", "alone", *probes], "--gallery: alone: 5 images in no identity's folder", "the identity's name"),
        (["--gallery", "parts", *probes], "--gallery: parts holds the parts of a data set", "parts/train"),
        (["--gallery", "hole", *probes], "--gallery: hole: no images of ada", "fill it"),
        ([*known, "--probes", "gone.png"], "--probes: gone.png: there is no such image or folder", "give an image"),
        ([*known, *probes, "--fpir", "0.01"], "--fpir: 0.01 needs 100 probes", "ask for 0.1 or more"),
        ([*known, "--probes", "alone", "--fpir", "0.1"], "--fpir: no probe is known to show", "--threshold"),
        ([*known, "--probes", "one", "--fpir", "0.1"], "--fpir: no probe is known to show", "--threshold"),
        ([*known, *probes, "--fpir", "0.1,x"], "--fpir: 'x' is no number", "0.01,0.1"),
        ([*known, *probes, "--fpir", "nan"], "--fpir: nan is no rate", "above 0"),
        ([*known, "--probes", "alone", "--figure", "f.png"], "--figure: no probe shows", "as those in the gallery"),
        ([*known, "--save-gallery", "n.safetensors", "--csv", "x"], "--csv: is about probes", "--probes"),
        ([*known, *probes, "--save-gallery", "g.safetensors"], "g.safetensors: is there already", "--overwrite"),
        (["--gallery", "g.safetensors", *probes, "--template", "max"], "--template: g.safetensors holds mean", "enrol"),
        (["--gallery", "g.safetensors", *probes, "--flip"], "g.safetensors: was made without mirrored", "--flip"),
        (["--gallery", "other.safetensors", *probes], "other.safetensors: is no gallery file", "--save-gallery"),
        (["--gallery", "alone/ada.png", *probes], "alone/ada.png: is not a safetensors file", "--save-gallery"),
        (
            ["--gallery", "g.safetensors", *probes, "--run", "other.safetensors"],
            "g.safetensors: was made by another model",
            "name that model with --run",
        ),
    ):
        code, out, err = cli("identify", *arguments)
        lines = [line for line in err.splitlines() if not line.startswith(("the model", "other"))]
        assert code == 2 and out == "" and len(lines) == 1, (arguments, err)
        assert lines[0].startswith(f"error: {start}") and fix in lines[0], (arguments, lines[0])


def test_cmc_of_a_model(cli):
    code, out, _ = cli("visualize", "cmc", KEPT, "--data-out", "c.json", "--device", "cpu", "--enrolled", 7)
    found = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert code == 0 and out == "cmc.png\n" and os.path.exists("cmc.png")
    # Five of the ten classes are enrolled with seven images each; every other image is a probe.
    labels = cifarnet.data.load("digits").test.labels
    assert len(found["cmc"]) == 5 and found["cmc"][-1] == 1
    assert found["mated_searches"] + found["non_mated_searches"] == len(labels) - 35
    assert all(np.diff(found["curve"]["fpir"]) <= 0) and found["points"]["fpir_asked"] == [0.01, 0.1]
    picture.draw(np.array([0.5, 1]), OpenSet(np.array([]), np.array([0.4]), np.array([True])), [], Path("closed.svg"))
    assert "CMC of 1 mated" in Path("closed.svg").read_text() and "FPIR" not in Path("closed.svg").read_text()
    code, _, err = cli("visualize", "cmc", KEPT, "--classes", "some")
    assert code == 2 and err == "error: --classes: 'some' is not known; choose from unseen, seen, all\n"


def test_every_threshold_marked_is_inside_the_axis(tmp_path, monkeypatch):
    """The first lies at the least FPIR that four searches can tell, the last at 100%: a dotted line on an edge is not seen."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    rates = OpenSet(np.array([-0.4, -0.2, 0.1, 0.3]), np.array([0.2, 0.5]), np.array([True, True]))
    points = [rates.at(asked) for asked in (0.25, 1)]
    assert [(point.threshold, point.fpir) for point in points] == [(0.2, 0.25), (-0.4, 1)]
    picture.draw(np.array([1.0]), rates, points, tmp_path / "x.svg")
    ranks, axes = figures[0].axes
    low, high = axes.get_xlim()
    dotted = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == [25, 100] and low < 25 / 1.1 and high > 100 * 1.1
    assert [text.get_text() for text in axes.texts] == ["τ = 0.200", "τ = −0.400"]
    low, high = ranks.get_xlim()
    assert [tick for tick in ranks.get_xticks() if low <= tick <= high] == [1]  # one identity: one rank, no 0.8 nor 1.2
