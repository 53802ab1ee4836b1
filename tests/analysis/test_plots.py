"""The arrays behind the figures against scikit-learn and NumPy, and the files that come out."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from cifarnet.analysis.embedding import Sphere, measure_angles
from cifarnet.analysis.features import FeatureMap
from cifarnet.analysis.plots import angles, animation, confusion, curves, embedding, featuremaps, grid, sphere, style
from cifarnet.analysis.plots.titles import title_of
from cifarnet.analysis.receptive_field import ReceptiveField
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.data import Split

CLASSES = [f"class {index}" for index in range(10)]


def records(epochs, **extra):
    return [
        {"epoch": e, "lr": 0.1 / e, "train_accuracy": 1 - 0.5 / e, "train_loss": 1 / e, **extra}
        for e in range(1, epochs + 1)
    ]


def test_confusion_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 9, 500), rng.integers(0, 10, 500)  # class 9 has no image
    counts = confusion_matrix(labels, predictions, labels=range(10))
    expected = 100 * confusion_matrix(labels, predictions, labels=range(10), normalize="true")
    np.testing.assert_allclose(confusion.numbers(counts), expected, rtol=1e-12)


def test_curves_are_the_records():
    runs = {
        "a": records(3, test_accuracy=0.25),
        "b": [*records(2), {"epoch": 3, "lr": float("nan"), "train_loss": None}],
    }
    numbers = curves.numbers(runs)
    assert numbers["a"]["train_accuracy"] == {"epoch": [1, 2, 3], "value": [50, 75, pytest.approx(100 - 50 / 3)]}
    assert numbers["a"]["test_accuracy"]["value"] == [25, 25, 25]
    assert numbers["b"]["lr"] == {"epoch": [1, 2], "value": [0.1, 0.05]}
    assert "test_accuracy" not in numbers["b"]


def test_curves_without_epochs_are_refused(tmp_path):
    with pytest.raises(Refused, match="no epoch is finished"):
        curves.draw({"a": []}, tmp_path / "x.png")


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_formats(tmp_path, suffix, start):
    path = curves.draw({"run": records(3)}, tmp_path / f"new/curves{suffix}", "title")
    first = path.read_bytes()
    assert first.startswith(start)
    curves.draw({"run": records(3)}, path, "title")
    assert path.read_bytes() == first  # the same numbers give the same file
    if suffix == ".svg":
        assert "learning rate" in path.read_text()  # text stays text


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_names_that_look_like_markup(tmp_path, suffix):
    """Not a formula, not a tag, not a format: a name."""
    names = ("$\\frac$", "[red]x[/]", "</text>", "{}%s", "x" * 300)
    confusion.draw(torch.eye(5).long(), names, tmp_path / f"c{suffix}", "$\\bad$")
    assert (tmp_path / f"c{suffix}").stat().st_size > 1000


def test_titles_are_as_people_write_them():
    assert title_of(TrainConfig(arch="resnet50", loss="arcface")) == "ResNet-50 · arcface · CIFAR-10"
    assert title_of(TrainConfig(arch="plainnet18", dataset="cifar100"), "val") == "PlainNet-18 · ce · CIFAR-100 val"
    assert title_of(TrainConfig(arch="speednet", dataset="digits"), "test") == "speednet · ce · digits test"


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"\.png, \.svg, \.pdf"):
        style.check_path(tmp_path / "x.gif")
    with pytest.raises(Refused, match="is a folder"):
        style.check_path(tmp_path.with_suffix(".png")) if tmp_path.rename(tmp_path.with_suffix(".png")) else None


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match="cannot be written"):
        curves.draw({"run": records(2)}, tmp_path / "file/curves.png")


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    confusion.draw(np.eye(3), "abc", tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before


def test_figures_are_light_and_of_column_width(tmp_path):
    path = confusion.draw(np.eye(10) * 9 + 1, CLASSES, tmp_path / "x.png", "title")
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert image.width <= style.PAGE * 200
        assert image.mode == "RGB" or image.convert("RGBA").getextrema()[3] == (255, 255)


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_of_right_and_wrong_can_be_read_on_white():
    """WCAG 2.1: a contrast of 4.5 for text."""
    for colour in (style.RIGHT, style.WRONG, style.INK):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_each_class_has_its_own_look():
    assert len(set(style.class_colours(10))) == 10 and len(set(style.class_markers(10))) == 10
    assert len(set(style.class_colours(100))) == 100 and len(style.class_markers(100)) == 100


def test_names_are_pushed_apart():
    rng = np.random.default_rng(0)
    half = rng.uniform([10, 4], [40, 8], (10, 2))
    moved = embedding.push_apart(rng.uniform(0, 60, (10, 2)), half)
    for i in range(10):
        for j in range(i):
            assert (np.abs(moved[i] - moved[j]) >= half[i] + half[j]).any()


def test_names_that_do_not_meet_stay():
    centres = np.array([[0.0, 0.0], [100.0, 0.0]])
    np.testing.assert_array_equal(embedding.push_apart(centres, np.full((2, 2), 10.0)), centres)


def test_names_stand_above_packed_classes_and_amid_wide_ones():
    wide = np.random.default_rng(0).normal(size=(100, 2))
    place, side = embedding.place_of_name(wide, height=np.ptp(wide[:, 1]))
    assert side == (0, 0) and np.linalg.norm(place) < 1
    two = np.vstack([wide[:60], wide[60:] + 50])  # of two clusters the larger is named
    assert np.linalg.norm(embedding.place_of_name(two, height=50)[0]) < 2
    packed = np.vstack([wide * 0.01, [[0.0, 5.0]]])  # and one straggler
    (_, y), side = embedding.place_of_name(packed, height=10)
    assert side == (0, 1) and 0 < y < 0.05


def test_camera_is_a_rotation():
    for eye in sphere.SIDES.values():
        view = sphere.camera(np.array(eye))
        np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(1)
        np.testing.assert_allclose(view @ (np.array(eye) / np.linalg.norm(eye)), [0, 0, 1], atol=1e-12)


def test_front_and_back_show_every_point_once():
    points = np.random.default_rng(0).normal(size=(200, 3))
    front, back = (sphere.near(points @ sphere.camera(np.array(eye)).T) for eye in sphere.SIDES.values())
    assert (front ^ back).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_sphere_says_what_a_projection_leaves_out(tmp_path, dims):
    generator = torch.Generator().manual_seed(0)
    drawn = Sphere(torch.randn(40, dims, generator=generator), torch.randn(10, dims, generator=generator), lost=0.25)
    text = sphere.draw(drawn, np.arange(40) % 10, CLASSES, tmp_path / "x.svg", "title").read_text()
    assert "leaves out 25% of the weights" in text


def test_angles_figure_states_the_medians(tmp_path):
    features, prototypes = torch.randn(50, 4), torch.randn(5, 4)
    measured = measure_angles(features, torch.arange(50) % 5, prototypes)
    text = angles.draw(measured, tmp_path / "x.svg", "title").read_text()
    assert f"median {np.median(measured.own):.0f}°" in text and "−1/4" in text


def test_samples_are_of_their_class():
    labels = torch.arange(30) % 3
    images = labels.to(torch.uint8)[:, None, None, None].expand(30, 3, 4, 4).clone()
    chosen = grid.choose_samples(Split(images, labels), 3, 4, seed=0)
    assert chosen.images.shape == (3, 4, 3, 4, 4)
    for index in range(3):
        assert (chosen.images[index] == index).all() and len(set(chosen.indices[index].tolist())) == 4
    assert grid.choose_samples(Split(images, labels), 3, 99, seed=0).images.shape[1] == 10


def test_grid_counts_what_is_right(tmp_path):
    images, labels = torch.zeros(12, 3, 8, 8, dtype=torch.uint8), torch.arange(12) % 10
    predictions = labels.clone()
    predictions[:5] = 9
    text = grid.draw(images, labels, predictions, CLASSES, tmp_path / "x.svg", "title").read_text()
    assert "7 of 12 right" in text and text.count("✗ class") == 5
    assert text.lower().count(style.RIGHT) >= 7 and text.lower().count(style.WRONG) >= 5


def test_channel_grid_is_square(tmp_path):
    layer = FeatureMap("relu1", "relu", torch.rand(32, 30, 30), ReceptiveField(3, 1, 1.0))
    text = featuremaps.draw_channels(layer, 25, tmp_path / "x.svg", "t").read_text()
    assert text.count("<image ") == 25 and "32×30×30" in text and "sees 3 px" in text
    few = FeatureMap("x", "relu", torch.rand(3, 4, 4), ReceptiveField())
    assert featuremaps.draw_channels(few, 25, tmp_path / "y.svg").read_text().count("<image ") == 3


def test_overview_shows_every_layer(tmp_path):
    layers = [FeatureMap(f"stages.{i}.0", "Block", torch.rand(8, 4, 4), ReceptiveField(i)) for i in range(12)]
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    text = featuremaps.draw_overview(image, layers, tmp_path / "x.svg", "t").read_text()
    assert all(layer.name in text for layer in layers)
    assert text.count("<image ") == 1 + 12 * featuremaps.OVERVIEW_CHANNELS


def test_film_has_its_frames(tmp_path):
    frames = []
    for index in range(4):
        frames.append(tmp_path / f"{index}.png")
        Image.new("RGB", (1420, 700), (60 * index, 0, 0)).save(frames[-1])
    with Image.open(animation.write_gif(frames, tmp_path / "x.gif")) as film:
        assert film.n_frames == 4 and film.size == (640, 315)
        film.seek(3)
        assert film.info["duration"] == animation.LAST
