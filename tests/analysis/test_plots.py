"""The arrays behind the figures against scikit-learn and NumPy, and the files that come out."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends import backend_agg
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from cifarnet.analysis.embedding import Sphere, measure_angles, project
from cifarnet.analysis.features import FeatureMap
from cifarnet.analysis.plots import (
    angles,
    animation,
    calibration,
    confusion,
    curves,
    embedding,
    featuremaps,
    grid,
    sphere,
    style,
)
from cifarnet.analysis.plots.titles import panel_names, title_of
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
    confusion.draw({"": torch.eye(5).long()}, names, tmp_path / f"c{suffix}", "$\\bad$")
    assert (tmp_path / f"c{suffix}").stat().st_size > 1000


def test_a_model_has_the_name_that_options_take():
    assert title_of(TrainConfig(arch="resnet50", loss="arcface")) == "resnet50 · arcface · cifar10"
    assert title_of(TrainConfig(arch="plainnet18", dataset="cifar100"), "val") == "plainnet18 · ce · cifar100 val"
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
    confusion.draw({"": np.eye(3)}, "abc", tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before


def test_figures_are_light_and_of_column_width(tmp_path):
    path = confusion.draw({"": np.eye(10) * 9 + 1}, CLASSES, tmp_path / "x.png", "title")
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
    text = sphere.draw({"": (drawn, np.arange(40) % 10)}, CLASSES, tmp_path / "x.svg", "title").read_text()
    assert "leaves out 25% of the weights" in text


def test_angles_figure_states_the_medians(tmp_path):
    features, prototypes = torch.randn(50, 4), torch.randn(5, 4)
    measured = measure_angles(features, torch.arange(50) % 5, prototypes)
    text = angles.draw({"": measured}, tmp_path / "x.svg", "title").read_text()
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
    assert (
        "7 of 12 right" in text
        and text.count("✗ class 9") == 5
        and all(f"(class {index})" in text for index in range(5))
    )
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


def test_confusion_colours_are_linear_and_shared(tmp_path, kept):
    """The colour of a cell is that of its percent on the bar's scale from 0 to 100, in each panel."""
    matrices = {"a": np.array([[3, 1], [0, 4]]), "b": np.array([[1, 1], [1, 1]])}
    confusion.draw(matrices, "xy", tmp_path / "x.png", "t")
    axes = [one for one in kept[0].axes if one.images]
    assert [one.get_title(loc="left") for one in axes] == [
        "a\naccuracy 87.50% of 8 images",
        "b\naccuracy 50.00% of 4 images",
    ]
    for one, matrix in zip(axes, matrices.values(), strict=True):
        expected = matplotlib.colormaps["Blues"](np.array(matrix) / matrix.sum(axis=1, keepdims=True))
        image = one.images[0]
        np.testing.assert_allclose(image.cmap(image.norm(image.get_array())), expected, atol=1e-9)
    assert "% of the images of the true class" in [label.get_ylabel() for one in axes for label in one.child_axes]


def test_the_reliability_diagram_is_sklearns_and_each_lowest_panel_has_its_scale(tmp_path, kept):
    logits, labels = 2 * torch.randn(600, 3), torch.randint(3, (600,))
    found = calibration.numbers((logits, labels, None))
    calibration.draw({name: found for name in "abcd"}, tmp_path / "x.png")
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    right, said = calibration_curve(predicted == labels, confidence, n_bins=15, strategy="quantile")
    axes = kept[0].axes
    for one in axes:
        line = one.containers[0].lines[0]
        np.testing.assert_allclose(line.get_xydata(), 100 * np.stack([said, right], axis=1), rtol=1e-6)
    scales = [any(label.get_visible() for label in one.get_xticklabels()) for one in axes]
    assert scales == [bool(one.get_xlabel()) for one in axes] == [False, True, True, True]


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_leaves_a_panel_of_the_sphere(tmp_path, kept, dims):
    """Features of heavy tails, in three runs of one scale; no name stands in a panel."""
    rng = np.random.default_rng(0)
    panels = {}
    for name, size in (("ce", 1.0), ("arcface", 9.0), ("adaface", 3.0)):
        features = torch.tensor(size * rng.standard_t(2, (60, dims)), dtype=torch.float32)
        panels[name] = (Sphere(features, torch.randn(10, dims)), np.arange(60) % 10)
    sphere.draw(panels, CLASSES, tmp_path / "x.png", "t")
    longest = max(float(one.features.norm(dim=1).max()) for one, _ in panels.values())
    assert f"length ÷ {longest / sphere.LONGEST:.3g} " in kept[0]._suptitle.get_text()
    assert len(kept[0].axes) == 3 * (dims - 1)
    for axes in kept[0].axes:
        (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        points = np.concatenate(
            [np.asarray(group.get_offsets()) for group in axes.collections if len(group.get_offsets())]
        )
        assert (points > [low, bottom]).all() and (points < [high, top]).all()
        assert [text.get_text() for text in axes.texts if text.get_text()] == []


def test_umap_panels_have_one_scale_and_names_that_hide_no_point(tmp_path, kept):
    """A unit is as long in each panel, each cloud is within its own, and the legend is outside of all."""
    rng = np.random.default_rng(0)
    panels = {name: (5 + size * rng.normal(size=(50, 2)), np.arange(50) % 10) for name, size in (("a", 1), ("b", 7))}
    embedding.draw(panels, CLASSES, tmp_path / "x.png", "t")
    first, second = kept[0].axes
    assert np.ptp(first.get_xlim()) == pytest.approx(np.ptp(second.get_xlim()))
    (legend,) = kept[0].legends
    assert [text.get_text() for text in legend.get_texts()] == CLASSES
    box, page = legend.get_window_extent(), kept[0].bbox
    assert page.y0 <= box.y0 and box.x1 <= page.x1
    for axes, (points, _) in zip((first, second), panels.values(), strict=True):
        drawn = np.concatenate([np.asarray(group.get_offsets()) for group in axes.collections])
        assert sorted(map(tuple, drawn)) == sorted(map(tuple, points)) and not axes.texts
        assert box.y1 <= axes.get_window_extent().y0 + 1
        assert (
            (drawn > [axes.get_xlim()[0], axes.get_ylim()[0]]) & (drawn < [axes.get_xlim()[1], axes.get_ylim()[1]])
        ).all()


def test_angles_of_two_runs_share_their_scales(tmp_path, kept):
    generator = torch.Generator().manual_seed(0)
    both = {
        name: measure_angles(size * torch.randn(50, 4, generator=generator), torch.arange(50) % 5, torch.randn(5, 4))
        for name, size in (("a", 1), ("b", 20))
    }
    angles.draw(both, tmp_path / "x.png", "t")
    grid_ = np.array(kept[0].axes).reshape(2, 3)
    assert [row[0].get_title(loc="left") for row in grid_] == ["a", "b"]
    for above, below in grid_.T:
        assert above.get_xlim() == below.get_xlim() and above.get_ylim() == below.get_ylim()
    assert "dashed, as far apart as can be: −1/4" in grid_[1, 1].get_xlabel()


def test_a_loss_with_a_margin_has_an_axis_of_its_own(tmp_path, kept):
    """Its training loss stands in no panel with a loss that has none, and its test loss stays with the others'."""
    runs = {"ce": records(3, test_loss=0.5), "arc": [{**one, "train_loss": 30} for one in records(3, test_loss=0.7)]}
    curves.draw(runs, tmp_path / "x.png", own_loss=["arc"])
    panels = {axes.get_title(loc="left"): axes for axes in kept[0].axes}
    levels = {name: sorted({y for line in axes.lines for y in line.get_ydata()}) for name, axes in panels.items()}
    assert levels["training loss, own formula"] == [30]
    assert levels["loss (cross-entropy)"] == pytest.approx([1 / 3, 0.5, 0.7, 1])


@pytest.mark.parametrize(
    ("rate", "title", "label"),
    [(0.15, "learning rate", "0.05"), (1.0, "learning rate", "0.2"), (3e-3, "learning rate (×1e-3)", "1")],
)
def test_learning_rates_are_as_they_are_or_in_units_of_a_small_power(tmp_path, kept, rate, title, label):
    lines = [{"epoch": epoch, "lr": rate * epoch / 4, "train_loss": 1.0} for epoch in range(5)]
    curves.draw({"a": lines}, tmp_path / "x.png")
    (axes,) = (axes for axes in kept[0].axes if axes.get_title(loc="left") == title)
    assert label in [tick.get_text() for tick in axes.get_yticklabels()]


def of_panel(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return axes


def test_one_epoch_is_points_that_tell_test_from_train(tmp_path, kept):
    """The key shows what is drawn, no line; equal values are both seen; the axis has its one epoch."""
    curves.draw({"run": records(1, test_accuracy=0.5, val_accuracy=0.4)}, tmp_path / "x.png")
    axes = of_panel(kept[0], "accuracy (%)")
    drawn = {line.get_marker(): (line.get_ydata()[0], line.get_fillstyle()) for line in axes.lines}
    assert drawn == {"o": (50, "full"), "^": (40, "none"), "s": (50, "none")}
    (key,) = kept[0].legends
    shown = [
        (handle.get_marker(), handle.get_linestyle(), text.get_text())
        for handle, text in zip(key.legend_handles, key.get_texts(), strict=True)
    ]
    assert shown == [("o", "None", "test"), ("^", "None", "validation"), ("s", "None", "train")]
    for axes in kept[0].axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_the_key_has_lines_and_points_where_both_are_drawn(tmp_path, kept):
    logged = {"grad_norm_first": 0.1, "grad_norm_last": 0.2}
    curves.draw({"a": records(1), "b": records(3, test_accuracy=0.5, **logged)}, tmp_path / "x.png")
    _, key = kept[0].legends
    shown = [
        (handle.get_marker(), handle.get_linestyle(), text.get_text())
        for handle, text in zip(key.legend_handles, key.get_texts(), strict=True)
    ]
    assert shown == [("None", "-", "test; first layer"), ("s", "--", "train; last layer")]
    points = [line for axes in kept[0].axes for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(points) == 3 and all(line.get_zorder() > 2 for line in points)  # accuracy, loss, rate; above all lines


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], [f"{index}" + "n" * 60 for index in range(7)]])
def test_keys_of_curves_are_below_all_panels_and_beside_each_other(tmp_path, kept, names):
    more = {"test_accuracy": 0.5, "val_accuracy": 0.4, "grad_norm_first": 0.1, "grad_norm_last": 0.2}
    curves.draw({name: records(3, **more) for name in names}, tmp_path / "x.png", "title", own_loss=names[:1])
    figure = kept[0]
    assert not any(axes.get_legend() for axes in figure.axes)
    boxes = [legend.get_window_extent() for legend in figure.legends]
    assert len(boxes) == 1 + (len(names) > 1)
    for box in boxes:
        assert box.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    assert len(boxes) == 1 or boxes[0].x1 <= boxes[1].x0


def test_the_most_active_channels_come_first(tmp_path, kept):
    values = torch.zeros(8, 4, 4)
    values[5], values[2], values[7] = torch.rand(4, 4) + 3, -(torch.rand(4, 4) + 1), torch.rand(4, 4) / 9
    layer = FeatureMap("conv1", "Conv2d", values, ReceptiveField(3, 1, 1.0))
    featuremaps.draw_channels(layer, 4, tmp_path / "x.png", "t")
    assert [axes.get_title() for axes in kept[0].axes[:3]] == ["5", "2", "7"]
    featuremaps.draw_overview(torch.zeros(3, 8, 8, dtype=torch.uint8), [layer], tmp_path / "y.png")
    columns = np.array(kept[1].axes).reshape(-1, 2)[:, 1]
    for axes, channel in zip(columns[:3], (5, 2, 7), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values[channel])


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_a_collapsed_model_is_refused(method):
    """Equal points, rounding apart: a projection of them would draw clusters that are not there."""
    noise = 1 + 1e-7 * torch.randn(60, 8)
    with pytest.raises(Refused, match="60 images are 1 point in all"):
        project(torch.full((60, 8), 3.0) * noise, method, metric="cosine", neighbors=6)
    with pytest.raises(Refused, match="may have collapsed"):  # lengths differ, angles do not
        project(torch.rand(60, 1) * torch.ones(60, 8), method, metric="cosine", neighbors=6)
    if method == "umap":
        with pytest.raises(Refused, match="60 images are 3 points in all"):
            project(torch.eye(3)[torch.arange(60) % 3] * noise[:, :3], method, metric="euclidean", neighbors=6)


def test_runs_of_one_title_are_told_apart():
    ce, arc = TrainConfig(dataset="digits"), TrainConfig(loss="arcface", dataset="digits")
    assert panel_names([ce, arc], ["a", "b"]) == [title_of(ce), title_of(arc)]
    names = panel_names([ce, ce, ce], ["a", "b", "b"])
    assert names == [f"a · {title_of(ce)}", f"(2) b · {title_of(ce)}", f"(3) b · {title_of(ce)}"]


def draw_panels(figure, names, path):
    """One of the figures that has a panel for each run, named by it."""
    labels = np.arange(60) % 10
    points = np.random.default_rng(0).normal(size=(60, 2))
    if figure == "confusion":
        return confusion.draw(dict.fromkeys(names, np.eye(10) + 1), CLASSES, path)
    if figure == "embedding":
        return embedding.draw(dict.fromkeys(names, (points, labels)), CLASSES, path)
    if figure == "sphere":
        one = Sphere(torch.randn(60, 3), torch.randn(10, 3))
        return sphere.draw(dict.fromkeys(names, (one, labels)), CLASSES, path)
    if figure == "angles":
        one = measure_angles(torch.randn(60, 4), torch.tensor(labels), torch.randn(10, 4))
        return angles.draw(dict.fromkeys(names, one), path)
    found = calibration.numbers((torch.randn(60, 10), torch.tensor(labels), None))
    return calibration.draw(dict.fromkeys(names, found), path)


@pytest.mark.parametrize("figure", ["confusion", "embedding", "sphere", "angles", "calibration"])
def test_panels_of_long_names_are_told_apart(figure, tmp_path, kept):
    """Seeds of one run end alike in the words that are cut; a panel keeps what tells it from the others."""
    runs = [f"resnet18-curricularface-cifar10-of-the-second-week-{seed}" for seed in (1, 2, 3)]
    draw_panels(figure, panel_names([TrainConfig(dataset="digits")] * 3, runs), tmp_path / "x.png")
    titles = [title.split("\n") for axes in kept[0].axes if (title := axes.get_title(loc="left"))]
    assert len(titles) == 3
    for seed, (name, *ours) in enumerate(titles, start=1):
        assert f"k-{seed} " in name, titles
        assert not any("…" in line for line in ours)  # the figure's own words are whole
    if figure in ("confusion", "calibration"):
        assert kept[0]._suptitle.get_text() in ("110 images", "60 images")


@pytest.mark.parametrize(("classes", "runs"), [(3, 1), (10, 1), (10, 4), (30, 2)])
def test_a_figure_that_is_saved_again_is_the_same_to_the_byte(tmp_path, monkeypatch, classes, runs):
    """Axes of one aspect beside long names are where they belong before they are drawn, in each format."""
    saved, save = [], style.save

    def save_again(figure, path):
        for number in range(2):
            saved.append(path.with_name(f"{number}{path.suffix}"))
            save(figure, saved[-1])

    monkeypatch.setattr(style, "save", save_again)
    panels = {f"run {number}": np.eye(classes) + 1 for number in range(runs)}
    names = [f"{number} with a long name" for number in range(classes)]
    for suffix in ("png", "svg"):
        confusion.draw(panels, names, tmp_path / f"matrix.{suffix}", "a title")
    first, second, *others = (path.read_bytes() for path in saved)
    assert first == second and others[0] == others[1]


def test_a_figure_is_laid_out_and_drawn_by_one_renderer_and_drawn_once(tmp_path, monkeypatch, kept):
    """A renderer forgets the sizes of texts when it goes; a figure that still has an engine is drawn twice when saved."""
    made, real = [], backend_agg.RendererAgg
    monkeypatch.setattr(backend_agg, "RendererAgg", lambda *size: made.append(size) or real(*size))
    confusion.draw({"": np.eye(3) + 1}, "abc", tmp_path / "x.png", "t")
    assert len(made) == 1
    assert kept[0].get_layout_engine() is None


@pytest.mark.parametrize(("classes", "runs"), [(3, 1), (10, 4), (30, 2)])
def test_axes_of_one_aspect_are_where_another_layout_leaves_them(classes, runs, tmp_path, kept):
    """They find their place in several passes: of too few the first is left, however still it is kept."""
    panels = {f"run {number}": np.eye(classes) + 1 for number in range(runs)}
    names = [f"{number} with a long name" for number in range(classes)]
    confusion.draw(panels, names, tmp_path / "matrix.png", "a title")
    (figure,) = kept
    before = np.array([axes.get_position(original=True).extents for axes in figure.axes])
    figure.set_layout_engine("constrained")
    figure.get_layout_engine().execute(figure)
    after = np.array([axes.get_position(original=True).extents for axes in figure.axes])
    assert np.abs(after - before).max() < 1e-3
