"""The commands that draw, run as a user runs them, on real images; and what they say of bad input."""

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix

import cifarnet
from cifarnet.analysis import embedding
from cifarnet.analysis.embedding import project
from cifarnet.analysis.report import read_results
from cifarnet.analysis.significance import mcnemar
from cifarnet.analysis.verification.rates import det_points
from cifarnet.cli import run
from cifarnet.cli.figures import write_numbers
from cifarnet.cli.inputs import embed_images, open_samples
from cifarnet.cli.report import paired_tests
from cifarnet.data import load
from cifarnet.data.shaping import canonical_order
from cifarnet.models import ARCHS
from cifarnet.models.checkpoint import load_model

TRAIN = ["train", "--dataset", "digits", "--arch", "baseline", "--epochs", "2", "--augment", "none", "--lr", "3e-3"]
TRAIN += ["--schedule", "onecycle", "--precision", "fp32", "-q"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short digits runs: cross-entropy, and arcface on the sphere with its film."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where runs/latest is marked
        assert run([*TRAIN, "--log-grad", "--out", str(folder / "ce")]) == 0
        options = ["--loss", "arcface", "--scale", "16", "--margin", "0.2", "--embed-dim", "3", "--animate"]
        assert run([*TRAIN, *options, "--out", str(folder / "arc")]) == 0
    return folder


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_figures_are_written_where_they_say(cli, runs, tmp_path):
    for figure in ("confusion", "grid", "angles"):
        code, out, err = cli("visualize", figure, runs / "ce")
        assert (code, out) == (0, f"{runs / 'ce' / figure}.png\n")
        assert err.startswith(f"{runs / 'ce'}: baseline, ce, digits test, ") and err.count("\n") == 1
        assert min(size_of(runs / "ce" / f"{figure}.png")) > 300
    code, out, _ = cli("visualize", "sphere", runs / "arc", "--out", tmp_path / "s.svg")
    assert (code, out) == (0, f"{tmp_path / 's.svg'}\n") and (tmp_path / "s.svg").read_text().startswith("<?xml")


def test_a_figure_is_the_same_whichever_command_draws_it(cli, runs, tmp_path):
    assert cli("visualize", "curves", runs / "ce", "--out", "curves.png")[0] == 0
    assert (tmp_path / "curves.png").read_bytes() == (runs / "ce" / "curves.png").read_bytes()
    assert cli("visualize", "confusion", runs / "ce", "--out", "seen.png")[0] == 0
    assert cli("eval", runs / "ce", "--figure", "scored.png")[0] == 0
    assert (tmp_path / "seen.png").read_bytes() == (tmp_path / "scored.png").read_bytes()


def test_confusion_numbers_against_scikit_learn(cli, runs, tmp_path):
    code, _, _ = cli("visualize", "confusion", runs / "ce", "--data-out", tmp_path / "c.json")
    model, info = load_model(runs / "ce" / "last.safetensors")
    test = load("digits").test
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (info.mean, info.std))
    with torch.no_grad():
        predicted = model((test.images.float() / 255 - mean) / std).argmax(1)
    expected = confusion_matrix(test.labels, predicted, labels=range(10))
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert code == 0 and numbers["counts"] == expected.tolist()
    np.testing.assert_allclose(np.array(numbers["percent"]) / 100, expected / expected.sum(1, keepdims=True))


def test_angles_numbers_against_numpy(cli, runs, tmp_path):
    assert cli("visualize", "angles", runs / "arc", "--data-out", tmp_path / "a.npz")[0] == 0
    model, info = load_model(runs / "arc" / "last.safetensors")
    test = load("digits").test
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (info.mean, info.std))
    with torch.no_grad():
        z = model.features((test.images.float() / 255 - mean) / std).double().numpy()
    w = model.head.weight.detach().double().numpy()
    cosine = np.sum(z * w[test.labels], axis=1) / np.linalg.norm(z, axis=1) / np.linalg.norm(w[test.labels], axis=1)
    found = np.load(tmp_path / "a.npz")
    np.testing.assert_allclose(found["own"], np.degrees(np.arccos(cosine)), atol=0.02)
    np.testing.assert_allclose(found["norms"], np.linalg.norm(z, axis=1), rtol=1e-4)


def test_curves_of_two_runs(cli, runs, tmp_path):
    code, out, _ = cli("visualize", "curves", runs / "ce", runs / "arc", "--data-out", tmp_path / "c.json")
    assert (code, out) == (0, "curves.png\n") and (tmp_path / "curves.png").exists()
    lines = [json.loads(line) for line in (runs / "arc" / "metrics.jsonl").read_text().splitlines()]
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert numbers["arc"]["test_loss"] == {"epoch": [1, 2], "value": [line["test_loss"] for line in lines]}
    assert "grad_norm_first" in numbers["ce"] and "grad_norm_first" not in numbers["arc"]


def test_half_written_line_is_skipped_with_a_warning(cli, runs, tmp_path):
    text = (runs / "ce" / "metrics.jsonl").read_text()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "metrics.jsonl").write_text(text[:-40])
    code, _, err = cli("visualize", "curves", "cut", "--data-out", "c.json")
    assert code == 0 and err == "warning: cut/metrics.jsonl: line 2 is not a record and is skipped\n"
    assert json.loads((tmp_path / "c.json").read_text())["cut"]["lr"]["epoch"] == [1]


def test_projections(cli, runs, tmp_path):
    code, out, err = cli("visualize", "umap", runs / "arc", "--method", "pca", "--samples", 50, "--data-out", "p.npz")
    assert code == 0 and out == f"{runs / 'arc' / 'pca.png'}\n" and "50 points, cosine" in err
    found = np.load(tmp_path / "p.npz")
    assert found["points"].shape == (50, 2) and np.bincount(found["labels"]).tolist() == [5] * 10
    code, _, err = cli("visualize", "umap", runs / "ce", "--method", "pca", "--samples", 50)
    assert code == 0 and "euclidean" in err


def test_umap_is_seeded(cli, runs, tmp_path, monkeypatch):
    """Of the very same features: UMAP makes much of their last bits."""
    seen = []
    monkeypatch.setattr(embedding, "project", lambda *given, **named: seen.append(given[0]) or project(*given, **named))
    code, _, err = cli("visualize", "umap", runs / "arc", "--samples", 40, "--seed", 3, "--data-out", "u.npz")
    assert code == 0 and "umap of 40 points, cosine" in err
    first, again, other = (project(seen[0], "umap", metric="cosine", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.load(tmp_path / "u.npz")["points"], first)
    assert first.shape == (40, 2) and not np.allclose(first, other)


def test_what_is_asked_of_umap_reaches_it(cli, runs, monkeypatch):
    asked = {}

    class Fake:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, points):
            return points[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    options = ["--neighbors", 9, "--seed", 3, "--metric", "euclidean"]
    assert cli("visualize", "umap", runs / "arc", "--samples", 50, *options)[0] == 0
    assert (asked["n_neighbors"], asked["random_state"], asked["metric"]) == (9, 3, "euclidean")


def test_a_map_in_the_metric_that_is_named_against_scikit_learn(cli, runs, tmp_path):
    """The loss compares angles: unless a metric is named, the features are brought to length 1 first."""
    test = load("digits").test
    model, info = load_model(runs / "arc" / "last.safetensors")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (info.mean, info.std))
    with torch.no_grad():
        features = model.features((test.images.float() / 255 - mean) / std).double().numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for metric, points in (("euclidean", features), ("cosine", unit), ("auto", unit)):
        options = ["--method", "pca", "--metric", metric, "--samples", 0, "--data-out", f"{metric}.npz"]
        assert cli("visualize", "umap", runs / "arc", *options)[0] == 0
        expected = PCA(2, svd_solver="full").fit_transform(points)
        np.testing.assert_allclose(np.load(tmp_path / f"{metric}.npz")["points"], expected, atol=1e-3)


def test_sphere_of_any_model_by_projection(cli, runs):
    code, _, err = cli("visualize", "sphere", runs / "ce")
    assert code == 2 and err.endswith(  # below the line that says which model it is
        "\nerror: visualize sphere: the features have 64 dimensions; add --project, or train with --embed-dim 3\n"
    )
    code, _, err = cli("visualize", "sphere", runs / "ce", "--project", "--dims", 2)
    assert code == 0 and "leaves out" in err and "accuracy on these images" in err


@pytest.mark.parametrize("dims", [2, 3])
def test_a_projected_sphere_has_as_many_dimensions_as_asked(cli, runs, tmp_path, dims):
    """By Eckart and Young it leaves out the smaller singular values of the weights."""
    options = ["--project", "--dims", dims, "--samples", 50, "--data-out", "s.npz"]
    assert cli("visualize", "sphere", runs / "ce", *options)[0] == 0
    found = np.load(tmp_path / "s.npz")
    assert (found["features"].shape, found["prototypes"].shape) == ((50, dims), (10, dims))
    weight = load_model(runs / "ce" / "last.safetensors")[0].head.weight.detach().double().numpy()
    energy = np.linalg.svd(weight, compute_uv=False) ** 2
    assert float(found["lost"]) == pytest.approx(energy[dims:].sum() / energy.sum())


def test_samples(cli, tmp_path):
    assert cli("visualize", "samples", "--dataset", "digits", "--each", 3, "--data-out", "s.json")[:2] == (
        0,
        "samples.png\n",
    )
    indices = json.loads((tmp_path / "s.json").read_text())["indices"]
    labels = load("digits").train.labels
    assert [[int(labels[i]) for i in row] for row in indices] == [[c] * 3 for c in range(10)]


def test_samples_of_a_split_of_a_data_set(cli, tmp_path):
    options = ["--dataset", "digits", "--each", 3, "--split", "test", "--data-out", "s.json"]
    assert cli("visualize", "samples", *options)[0] == 0
    indices = json.loads((tmp_path / "s.json").read_text())["indices"]
    labels = load("digits").test.labels
    assert [[int(labels[i]) for i in row] for row in indices] == [[c] * 3 for c in range(10)]


@pytest.mark.parametrize("figure", ["umap --method pca", "sphere --project", "angles"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_figure_is_of_the_split_that_is_named(cli, runs, tmp_path, figure, split):
    options = ["--split", split, "--samples", 0, "--data-out", "f.json"]
    assert cli("visualize", *figure.split(), runs / "ce", *options)[0] == 0
    labels = json.loads((tmp_path / "f.json").read_text())["labels"]
    assert labels == getattr(load("digits"), split).labels.tolist()


def test_confusions_of_the_training_images(cli, runs, tmp_path):
    assert cli("visualize", "confusion", runs / "ce", "--split", "train", "--data-out", "c.json")[0] == 0
    counts = np.array(json.loads((tmp_path / "c.json").read_text())["counts"])
    assert counts.sum(axis=1).tolist() == np.bincount(load("digits").train.labels).tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_explorer_shows_the_split_and_numbers_its_images(cli, runs, split):
    options = ["--maps", "pca", "--samples", 40, "--split", split, "--out", "page.html"]
    assert cli("explore", runs / "ce", *options)[0] == 0
    page = json.loads(re.search(r'id="numbers">(.*?)</script>', Path("page.html").read_text())[1])
    labels, indices = (np.frombuffer(base64.b64decode(page[name]), "<i4").tolist() for name in ("labels", "indices"))
    assert labels == getattr(load("digits"), split).labels[indices].tolist() and len(set(indices)) == 40


def test_several_runs_in_panels(cli, runs, tmp_path):
    """The numbers of each panel are those that its run alone has; runs of different classes are refused."""
    code, out, _ = cli("visualize", "confusion", runs / "ce", runs / "arc", "--data-out", "both.json")
    assert (code, out) == (0, "confusion.png\n")
    both = json.loads((tmp_path / "both.json").read_text())
    assert list(both) == ["baseline · ce · digits", "baseline · arcface · digits"]
    assert cli("visualize", "confusion", runs / "arc", "--data-out", "one.json")[0] == 0
    assert both["baseline · arcface · digits"] == json.loads((tmp_path / "one.json").read_text())
    shown = (runs / "ce", runs / "arc", "--samples", 50)
    for command in (("umap", *shown, "--method", "pca"), ("angles", *shown), ("sphere", *shown, "--project")):
        assert cli("visualize", *command, "--out", f"{command[0]}.svg")[0] == 0
        assert "baseline · arcface · digits" in (tmp_path / f"{command[0]}.svg").read_text()
    assert "euclidean, cosine, each at its own scale" in (tmp_path / "umap.svg").read_text()
    code, _, err = cli("visualize", "confusion", runs / "ce", runs / "ce", "nope")
    assert code == 2 and "nope: there is no such run" in err


def test_runs_of_one_name_are_called_alike_in_every_figure(cli, runs, tmp_path, monkeypatch):
    """By what tells their folders apart, however the paths were typed."""
    for side in ("side1", "side2"):
        shutil.copytree(runs / "ce", tmp_path / side / "same")
    monkeypatch.chdir(tmp_path / "side1")
    typed = ("same", "../side2/./same/last.safetensors")
    commands = ("curves", "confusion", "calibration", "angles", "sphere --project", "umap --method pca")
    for command in commands:
        code, _, err = cli(
            "visualize", *command.split(), *typed, "--out", "x.png", "--data-out", "x.json", "--overwrite"
        )
        assert code == 0, err
        names = json.loads(Path("x.json").read_text())
        assert [name.split(" · ")[0] for name in names] == ["side1/same", "side2/same"], command


def test_samples_of_a_run(cli, runs, tmp_path):
    """A run's own images; what the run says is not said twice."""
    code, out, _ = cli("visualize", "samples", runs / "ce", "--each", 2, "--split", "test", "--data-out", "s.json")
    assert (code, out) == (0, f"{runs / 'ce' / 'samples-test.png'}\n")
    labels = load("digits").test.labels
    indices = json.loads((tmp_path / "s.json").read_text())["indices"]
    assert [[int(labels[i]) for i in row] for row in indices] == [[c] * 2 for c in range(10)]
    code, _, err = cli("visualize", "samples", runs / "ce", "--dataset", "digits")
    assert code == 2 and "RUN: says itself what the data is; drop --dataset and --image-size" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["umap", "RUN", "--method", "lda"], "--method: 'lda' is not known; choose from umap, tsne, pca"),
        (["umap", "RUN", "--samples", "6"], "--neighbors: 6 neighbours need 7 images or more, and there are 6"),
        (["umap", "RUN", "--metric", "l1"], "--metric: 'l1' is not known"),
        (
            ["grid", "RUN", "--out", "x.gif"],
            "x.gif: '.gif' is no format for a figure; end the name in .png, .svg, .pdf",
        ),
        (["grid", "RUN", "--data-out", "x.csv"], "--data-out: '.csv' is no format for numbers"),
        (["grid", "RUN", "--split", "val"], "--split: the run held no validation images out"),
        (["grid", "nope"], "nope: there is no such run or checkpoint"),
        (["grid"], "runs: there is no run yet"),
        (["curves"], "runs: there is no run yet"),
        (["curves", "nope"], "nope: there is no such run"),
        (["samples", "--dataset", "mnist"], "--dataset: "),
    ],
)
def test_refused(cli, runs, arguments, message):
    code, out, err = cli("visualize", *[runs / "ce" if word == "RUN" else word for word in arguments])
    assert code == 2 and out == "" and f"error: {message}" in err and err.count("error:") == 1


def test_train_animate(cli, runs, tmp_path):
    with Image.open(runs / "arc" / "sphere.gif") as film:
        assert film.n_frames == 2
    assert sorted(path.name for path in (runs / "arc" / "frames").iterdir()) == ["00001.png", "00002.png"]
    code, _, err = cli(*TRAIN, "--animate", "--out", tmp_path / "no")
    assert code == 2 and "add --embed-dim 3" in err and not (tmp_path / "no").exists()


@pytest.fixture
def picture(tmp_path):
    """A photo-like image, larger than the network's."""
    gradient = np.add.outer(np.arange(60), np.arange(80)) % 256
    Image.fromarray(np.stack([gradient, gradient[::-1], 255 - gradient], axis=2).astype(np.uint8)).save(
        tmp_path / "p.png"
    )
    return tmp_path / "p.png"


def test_featuremaps(cli, runs, picture):
    code, out, _ = cli("featuremaps", picture, "--checkpoint", runs / "ce", "--grad-cam")
    names = ["overview", "relu1", "max_pool1", "relu2", "max_pool2", "relu3", "grad-cam"]
    assert code == 0 and out.splitlines() == [f"featuremaps/p/{name}.png" for name in names]
    assert all(min(size_of(picture.parent / line)) > 300 for line in out.splitlines())


@pytest.fixture
def titles(monkeypatch):
    """The titles of the figures that are drawn."""
    drawn = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **style: drawn.append(text) or self.text(0, 0, text))
    return drawn


@pytest.mark.parametrize(
    "figure",
    [
        "curves",
        "confusion",
        "angles",
        "grid",
        "umap --method pca",
        "calibration",
        "det",
        "scores",
        "cmc",
        "samples",
        "quality",
    ],
)
def test_an_empty_title_is_none(cli, runs, titles, figure):
    name, *options = figure.split()
    for given in ([], ["--title", ""]):
        titles.append("|")
        out = ["--out", f"{len(titles)}.png"]
        assert cli("visualize", name, runs / "ce", *options, *given, *out)[0] == 0
    usual, none = "\n".join(titles)[2:].split("|")
    assert "digits" in usual and "digits" not in none


@pytest.mark.parametrize(("figure", "usual"), [("network", "parameters"), ("margins", "Margins")])
def test_a_diagram_without_a_title(cli, titles, figure, usual):
    assert cli("visualize", figure, "--out", "a.png")[0] == 0 and usual in titles.pop()
    assert cli("visualize", figure, "--title", "", "--out", "b.png")[0] == 0 and usual not in "".join(titles)


def test_feature_maps_without_a_title_have_the_files_name(cli, runs, picture, titles):
    code, _, _ = cli("featuremaps", picture, "--checkpoint", runs / "ce", "--grad-cam", "--title", "")
    assert code == 0 and titles[0].startswith("p.png\n") and titles[-1] == "Grad-CAM at relu3\np.png"


def test_featuremaps_of_a_layer_and_class(cli, runs, picture):
    arguments = ["featuremaps", picture, "--checkpoint", runs / "arc", "--layer", "conv2", "--channels", 9, "--json"]
    code, out, _ = cli(*arguments, "--grad-cam", "--class", "five", "--out", "maps")
    (image,) = json.loads(out)["images"]
    assert code == 0 and image["figures"] == [f"maps/p/{name}.png" for name in ("overview", "conv2", "grad-cam")]
    code, out, _ = cli(*arguments, "--grad-cam", "--layer-cam", "--deletion", "--class", "five", "--out", "scored")
    (image,) = json.loads(out)["images"]
    names = ("overview", "conv2", "grad-cam", "layer-cam", "deletion")
    assert code == 0 and image["figures"] == [f"scored/p/{name}.png" for name in names]
    assert [(found["map"], found["layer"], found["class"]) for found in image["deletion"]] == [
        ("grad-cam", "conv2", "five"), ("layer-cam", "conv2", "five"),
    ]  # fmt: skip
    for found in image["deletion"]:
        assert found["probabilities"][0] == pytest.approx(found["probability"], abs=1e-6)  # nothing removed
        assert found["area"] == pytest.approx(np.trapezoid(found["probabilities"], found["removed"]))
        assert found["random_area"] == pytest.approx(np.mean(found["random_areas"]))


def test_the_map_of_a_class_is_of_that_class(cli, runs, picture):
    """Not of the likeliest: its probability is that of `predict`, and removing nothing leaves it."""
    answer = cifarnet.load(runs / "ce").predict(picture)
    options = ["--layer", "conv2", "--channels", 1, "--grad-cam", "--deletion", "--class", answer.classes[1]]
    code, out, _ = cli("featuremaps", picture, "--checkpoint", runs / "ce", *options, "--json")
    [found] = json.loads(out)["images"][0]["deletion"]
    assert code == 0 and found["class"] == answer.classes[1]
    assert found["probability"] == pytest.approx(answer.probabilities[1], rel=1e-3) != answer.probabilities[0]
    assert found["probabilities"][0] == pytest.approx(answer.probabilities[1], rel=1e-3)


def test_bad_images_are_named_and_the_good_ones_done(cli, runs, picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(picture.read_bytes()[:100])
    (tmp_path / "empty.png").write_bytes(b"")
    files = ["bad.png", "empty.png", "missing.png", tmp_path, picture]
    code, out, err = cli("featuremaps", *files, "--checkpoint", runs / "ce", "--layer", "relu1")
    assert code == 1 and out.splitlines() == ["featuremaps/p/overview.png", "featuremaps/p/relu1.png"]
    lines = err.splitlines()[1:]
    assert len(lines) == 5 and [line.split(":")[1].strip() for line in lines[:3]] == [
        "bad.png",
        "empty.png",
        "missing.png",
    ]
    assert "--recursive" in lines[3] and lines[4].startswith("error: featuremaps: 4 of 5 files")


def test_featuremaps_refuses_what_is_not_there(cli, runs, picture):
    code, _, err = cli("featuremaps", picture, "--checkpoint", runs / "ce", "--layer", "conv7")
    assert code == 2 and "there is no layer 'conv7'; choose from conv1, relu1" in err
    code, _, err = cli("featuremaps", picture, "--checkpoint", runs / "ce", "--grad-cam", "--class", "dog")
    assert code == 2 and "the model has no class 'dog'; choose from zero, one" in err
    for alone in (["--class", "one"], ["--deletion"]):
        code, _, err = cli("featuremaps", picture, "--checkpoint", runs / "ce", *alone)
        assert code == 2 and "add --grad-cam or --layer-cam" in err


def test_complexity_json(cli):
    code, out, err = cli("complexity", "--all", "--batch", 2, "--json")
    models = {row["arch"]: row for row in json.loads(out)["models"]}
    assert code == 0 and err == "" and set(models) == set(ARCHS)
    found = [f"{models[arch]['macs'] / 1e9:.7f}" for arch in ("baseline", "resnet18", "resnet50")]
    assert found == ["0.0090972", "0.2803732", "0.6515999"]
    assert models["resnet50"]["flops_per_image"] == models["resnet50"]["macs"]
    assert round(models["resnet50"]["parameters_ratio"]) == 192


def test_complexity_table(cli, tmp_path):
    code, out, _ = cli(
        "complexity", "--arch", "baseline", "--batch", 2, "--layers", "--stages", "--figure", "c.png", "--csv", "c.csv"
    )
    assert "\nlayers  5" in out and "3×3, 32" in out
    assert code == 0 and "0.0090972" in out and "backbone.conv2" in out and "max_pool2d_with_indices (2)" in out
    assert (tmp_path / "c.png").exists() and (tmp_path / "c.csv").read_text().startswith("arch,stem,loss,")


def test_complexity_of_a_run(cli, runs):
    code, out, _ = cli("complexity", "--checkpoint", runs / "arc", "--json")
    (row,) = json.loads(out)["models"]
    assert code == 0 and row["parameters"] == sum(
        p.numel() for p in load_model(runs / "arc" / "last.safetensors")[0].parameters()
    )
    code, _, err = cli("complexity", "--checkpoint", runs / "arc", "--arch", "resnet18")
    assert code == 2 and "says itself what the model is" in err
    code, _, err = cli("complexity", "--arch", "vgg")
    assert code == 2 and "choose from baseline, resnet18" in err


def test_complexity_of_other_sizes(cli):
    code, out, err = cli("complexity", "--all", "--image-size", 64, "--json")
    names = {row["arch"] for row in json.loads(out)["models"]}
    assert code == 0 and names == set(ARCHS) - {"baseline"} and "baseline takes 32x32 images" in err


@pytest.mark.parametrize("suffix", ["md", "html", "tex"])
def test_report(cli, runs, tmp_path, suffix):
    out = tmp_path / f"r.{suffix}"
    code, printed, err = cli("report", runs / "ce", runs / "arc", "--out", out, "--note", "scikit-learn's digits")
    assert (code, printed.splitlines()[-1]) == (0, str(out)) and "2 runs of 2 configurations" in printed
    assert [line.partition(":")[0] for line in err.splitlines()] == [str(runs / "ce"), str(runs / "arc")]
    text = out.read_text()
    accuracy = json.loads((runs / "ce" / "summary.json").read_text())["test"]["accuracy"]
    assert f"{100 * accuracy:.2f}" in text and "McNemar" in text and "digits" in text
    beside = {"md": ["r_files"], "html": [], "tex": ["r_tex_files"]}[suffix]  # HTML holds its pictures
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "cache"] == beside
    assert all(len(list((tmp_path / name).iterdir())) == 3 for name in beside)


def test_a_report_leaves_another_ones_pictures(cli, runs, tmp_path):
    assert cli("report", runs / "ce", "--out", "z.md")[0] == 0
    pictures = {path: path.read_bytes() for path in (tmp_path / "z_files").iterdir()}
    assert cli("report", runs / "arc", "--out", "z.tex")[0] == 0
    assert {path: path.read_bytes() for path in (tmp_path / "z_files").iterdir()} == pictures
    Path("z.md").rename("kept.md")
    code, _, err = cli("report", runs / "arc", "--out", "z.md")
    assert code == 2 and err.splitlines()[-1] == (
        "error: z_files: is there already; add --overwrite to replace its pictures, or name another file"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "z_files").iterdir()} == pictures
    assert cli("report", runs / "arc", "--out", "z.md", "--overwrite")[0] == 0


def test_runs_are_paired_image_by_image(cli, runs, tmp_path):
    """By the images, whatever their order: held-out training images and --canonical-order leave the test images what they are."""
    train = ["train", "--dataset", "digits", "--arch", "baseline", "--epochs", 1, "--device", "cpu", "-q"]
    assert cli(*train, "--canonical-order", "--seed", 5, "--out", "sorted")[0] == 0
    assert cli(*train, "--val-fraction", 0.2, "--seed", 6, "--out", "held")[0] == 0
    assert cli(*train, "--hold-out-classes", 2, "--out", "fewer")[0] == 0
    names = ["ce", "sorted", "held", "fewer"]
    results, left_out = read_results([runs / "ce", *(tmp_path / name for name in names[1:])])
    assert left_out == [] and [result.name for result in results] == names
    found = {(one, other): test for one, other, test in paired_tests(results, None, "cpu")}
    test = load("digits").test
    right = {}
    for result in results[:3]:
        images = embed_images(open_samples(result.path, None, "test", 0, 0, "cpu"))
        order = canonical_order(test) if result.name == "sorted" else torch.arange(len(test))
        right[result.name] = torch.zeros(len(test), dtype=torch.bool)
        right[result.name][order] = images.predictions == images.labels  # in the set's own order
    for one, other in (("ce", "sorted"), ("ce", "held"), ("sorted", "held")):
        assert found[one, other] == mcnemar(right[one], right[other])
    assert all(found[name, "fewer"] == "their test images differ" for name in names[:3])


def test_report_names_a_run_once(cli, runs, tmp_path):
    code, _, _ = cli("report", runs / "ce", runs / "ce", "--out", tmp_path / "r.md")
    assert code == 0 and "±" not in (tmp_path / "r.md").read_text().split("Where a row")[0]


def test_report_refuses(cli, runs):
    assert cli("report", "nope")[0] == 2
    code, _, err = cli("report", runs / "ce", "--out", "r.pdf")
    assert code == 2 and "end the name in .md, .html, .tex" in err


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    """The first threshold of a DET curve of few scores is infinity: json.dumps wrote `Infinity`, which is no JSON."""
    few = det_points(np.array([0.2, 0.9]), np.array([0.1, 0.3]))
    write_numbers(tmp_path / "few.json", {"threshold": few.thresholds})
    found = json.loads((tmp_path / "few.json").read_text(), parse_constant=pytest.fail)
    assert few.thresholds[0] == np.inf and found["threshold"] == [None, *few.thresholds[1:]]
