"""Figures of data unlike CIFAR-10: names that begin alike, hundreds of classes, a spike, a bin of one image, many runs."""

import colorsys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import binomtest

from cifarnet.analysis.embedding import Sphere
from cifarnet.analysis.plots import (
    calibration,
    complexity,
    confusion,
    curves,
    embedding,
    featuremaps,
    grid,
    sphere,
    style,
)
from cifarnet.analysis.plots.text import short_names
from cifarnet.analysis.plots.verification import draw_scores
from cifarnet.analysis.verification.rates import OperatingPoint
from cifarnet.cli.image_figures import Drawn, ImageFigures, Target
from cifarnet.models.calibration import Calibration

ALIKE = [f"Passeriformes Carduelis carduelis {index:02d}" for index in range(37)]


@pytest.mark.parametrize(
    "names",
    [
        ALIKE,
        ["Common Kingfisher", "Common Kestrel", "dog"],
        ["a" * 30 + "1" + "b" * 30, "a" * 30 + "2" + "b" * 30],
        ["a" * 30, "a" * 31, "a" * 32],
        ["…ub00", "Passeriformes sub00", "Passeriformes sub01"],
        ["one\x1b[0m" * 9 + "a", "one\x1b[0m" * 9 + "b"],
    ],
)
@pytest.mark.parametrize("length", [10, 14])
def test_names_that_differ_are_different_in_a_figure(names, length):
    found = short_names(names, length)
    assert len(set(found)) == len(names) and max(map(len, found)) <= length
    assert short_names(["cat", "dog", "cat"][:2], length) == ["cat", "dog"]


def inside(figure):
    """Are all texts of a figure within its edges?"""
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent() for text in texts]
    return all(box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 for box in boxes)


@pytest.mark.parametrize("count", [2, 37, 100, 300])
def test_a_confusion_matrix_of_any_size_is_whole_and_its_names_can_be_read(tmp_path, kept, count):
    names = [f"{index:03d} of a genus" for index in range(count)]
    confusion.draw({"": np.eye(count, dtype=int)}, names, tmp_path / "x.png", "a title")
    axes = kept[0].axes[0]
    labels = axes.get_yticklabels()
    each = -(-count // len(labels))
    assert inside(kept[0]) and f"of {count} images" in axes.get_title(loc="left")
    assert [label.get_text()[:3] for label in labels] == [name[:3] for name in names[::each]]
    height = abs(np.diff(axes.transData.transform([[0, 0], [0, each]])[:, 1]))[0] * 72 / kept[0].dpi
    assert 3 < labels[0].get_fontsize() <= height + 0.5
    assert (f"one of {each} named" in axes.get_ylabel()) == (each > 1)


def test_ink_in_a_cell_is_the_one_that_stands_out_more(tmp_path, kept):
    """WCAG's contrast, of white and of our ink, over the whole scale of colours."""

    def light(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(one, other):
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    percent = np.arange(10, 101)[None, :]
    with style.our_style():
        axes = Figure().subplots()
        confusion.write_cells(axes, percent, 20)
    for value, text in zip(percent[0], axes.texts, strict=True):
        cell = matplotlib.colormaps["Blues"](value / 100)
        inks = {ink: contrast(cell, ink) for ink in ("white", style.INK)}
        assert inks[text.get_color()] > 0.93 * max(inks.values()), value


def test_a_map_keeps_its_shape_and_says_where_classes_are_too_many_to_name(tmp_path, kept):
    """A cloud that is fifty times as wide as high is drawn so."""
    points = np.random.default_rng(0).normal(size=(300, 2)) * (50, 1)
    embedding.draw({"": (points, np.arange(300) % 37)}, ALIKE, tmp_path / "x.png", "t")
    figure = kept[0]
    axes = figure.axes[0]
    drawn = np.ptp(axes.transData.transform(points), axis=0)
    assert drawn[0] / drawn[1] == pytest.approx(np.ptp(points[:, 0]) / np.ptp(points[:, 1]), rel=0.01)
    assert figure.legends[0].get_title().get_text() == "37 classes: too many to name" and inside(figure)


def test_hues_of_more_classes_than_colours_have_shapes_on_the_sphere_too(tmp_path, kept):
    features = torch.randn(120, 3)
    whole = Sphere(features, torch.randn(12, 3), 0.0)
    sphere.draw({"": (whole, np.arange(120) % 12)}, ALIKE[:12], tmp_path / "x.png", "t")
    shapes = {handle.get_marker() for handle in kept[0].legends[0].legend_handles}
    assert len(shapes) == 10


def test_a_spike_leaves_the_rest_of_the_curve_to_be_seen(tmp_path, kept):
    records = [{"epoch": e, "train_loss": 1000.0 if e == 5 else 1 / e, "train_accuracy": 0.5} for e in range(1, 10)]
    curves.draw({"a": records}, tmp_path / "x.png")
    curves.draw({"a": [one for one in records if one["epoch"] != 5]}, tmp_path / "y.png")
    scales = [{axes.get_title(loc="left"): axes.get_yscale() for axes in figure.axes} for figure in kept]
    assert scales[0] == {"accuracy (%)": "linear", "loss (cross-entropy), logarithmic": "log"}
    assert scales[1] == {"accuracy (%)": "linear", "loss (cross-entropy)": "linear"}


def test_panels_of_a_loss_that_ends_have_the_same_epochs(tmp_path, kept):
    records = [{"epoch": e, "train_loss": 1 / e if e < 4 else None, "train_accuracy": 0.5} for e in range(1, 10)]
    curves.draw({"a": records}, tmp_path / "x.png")
    assert len({axes.get_xlim() for axes in kept[0].axes}) == 1


@pytest.mark.parametrize("count", [3, 6, 7, 10, 14])
def test_each_of_many_runs_has_a_colour_of_its_own(tmp_path, kept, count):
    runs = {f"run {k}": [{"epoch": e, "train_accuracy": k / 20} for e in (1, 2)] for k in range(count)}
    curves.draw(runs, tmp_path / "x.png")
    colours = [matplotlib.colors.to_hex(line.get_color()) for line in kept[0].axes[0].get_lines()]
    assert len(set(colours)) == count
    assert [matplotlib.colors.to_hex(one.get_color()) for one in kept[0].legends[0].legend_handles] == colours
    assert max(colorsys.rgb_to_hls(*matplotlib.colors.to_rgb(one))[1] for one in colours) < 0.9


@pytest.mark.parametrize("values", [(0.1185, 0.1195), (0.21, 0.28), (0.3, 0.4), (0.01, 50.0)])
def test_ticks_of_a_logarithmic_axis_are_told_apart(values):
    with style.our_style():
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 2], values)
        axes.set_yscale("log")
        style.plain_powers(axes.yaxis)
        figure.draw_without_rendering()
    low, high = axes.get_ylim()
    places = [*axes.get_yticks(), *axes.get_yticks(minor=True)]
    labels = [*axes.get_yticklabels(), *axes.get_yticklabels(minor=True)]
    shown = [label.get_text() for place, label in zip(places, labels, strict=True) if low <= place <= high]
    shown = [text for text in shown if text]
    assert shown and len(set(shown)) == len(shown) and not any("e" in text for text in shown)


def test_a_bin_of_one_image_is_not_sure(tmp_path, kept):
    logits, labels = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 1, 1])
    calibration.draw({"": calibration.numbers((logits, labels, None))}, tmp_path / "x.png")
    bars = kept[0].axes[0].containers[0].lines[2][0].get_segments()
    right, wrong = (100 * np.array(binomtest(hit, 1).proportion_ci(method="wilson")) for hit in (1, 0))
    for bar, expected in zip(bars, (right, wrong, right), strict=True):
        np.testing.assert_allclose(np.sort(bar[:, 1]), expected, atol=1e-6)
    assert "3 images" in kept[0].axes[0].get_title(loc="left")


def test_a_circle_alone_says_all_of_its_marks(tmp_path, kept):
    """It is half as wide as a page, and the lengths of short features have many digits."""
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    drawn = Sphere(1e-5 * points, points[:3], 0.25)
    sphere.draw({"": (drawn, np.arange(20) % 3)}, ["a", "b", "c"], tmp_path / "x.png", "a title")
    said = kept[0]._suptitle.get_text()
    assert "prototypes" in said and "leaves out 25% of the weights" in said and "…" not in said


def box_of(text):
    """Left, lower, right, upper end of a text in a figure that was saved, in points."""
    dots = style.STYLE["savefig.dpi"]
    return text.get_window_extent(dpi=dots).extents * 72 / dots


@pytest.mark.parametrize("runs", [("",), ("one", "two")])
def test_title_panels_and_legend_of_a_calibration_stand_apart(tmp_path, kept, runs):
    fitted = Calibration(2.0, 0.0, 2, "made up")
    found = calibration.numbers((torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), fitted))
    calibration.draw(dict.fromkeys(runs, found), tmp_path / "x.png", "a title")
    (figure,) = kept
    above, below = box_of(figure._suptitle), box_of(figure.legends[0].texts[0])
    for axes in figure.axes:
        assert above[1] - box_of(axes._left_title)[3] > 3
        assert box_of(axes.xaxis.label)[1] - below[3] > 3


def test_names_of_thresholds_that_lie_close_are_read(tmp_path, kept):
    scores = np.sort(np.random.default_rng(0).normal(0.8, 0.05, 400))
    points = [
        OperatingPoint(far, 0.9 + 0.001 * place, far, 0.5, False) for place, far in enumerate((0.1, 0.01, 1e-3, 1e-4))
    ]
    draw_scores(scores, scores, points, tmp_path / "x.png", "a title")
    boxes = sorted((box_of(text) for text in kept[0].axes[0].texts), key=lambda box: box[1])
    assert len(boxes) == 4 and all(lower[3] <= upper[1] for lower, upper in pairwise(boxes))


def test_clouds_without_a_unit_in_common_fill_a_panel_each(tmp_path, kept):
    labels = np.arange(30) % 3
    points = np.random.default_rng(0).normal(size=(30, 2))
    clouds = {"long": (30 * points, labels), "unit": (points, labels)}
    for one_scale, times in ((True, 1), (False, 30)):
        embedding.draw(clouds, ["a", "b", "c"], tmp_path / "x.png", one_scale=one_scale)
        wide, narrow = (np.ptp(axes.get_xlim()) for axes in kept[-1].axes)
        assert wide / narrow == pytest.approx(times)


def test_deletion_has_a_panel_for_each_class_whatever_their_names(tmp_path, kept):
    """Three classes of one beginning and one probability; improbable ones fill their panels all the same."""
    short = short_names(ALIKE, 14)
    targets = [Target(index, ALIKE[index], short[index], 0.027) for index in (0, 1, 2)]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 37))
    info = SimpleNamespace(calibration=None, mean=(0.5, 0.5, 0.5))
    figures = ImageFigures(model, info, ["conv"], 8, False, ["grad-cam"], True, None, "t")
    heats = [("grad-cam", target, torch.rand(4, 4)) for target in targets]
    figures.draw_deletion(torch.rand(3, 32, 32), heats, tmp_path, "x.png", Drawn())
    assert len(kept[0].axes) == 3 and kept[0].axes[0].get_ylim()[1] < 10


@pytest.mark.parametrize(("mean", "colour"), [((0.4, 0.5, 0.6), "the mean colour"), ((0.0, 0.0, 0.0), "black")])
def test_a_removed_pixel_has_the_colour_that_the_figure_names(tmp_path, kept, mean, colour):
    """Zero is what the network is shown; before normalisation that is the mean, or black where nothing is subtracted."""
    shown = []

    def model(images):
        shown.append(images[-1])  # of which all is removed
        return torch.rand(len(images), 2)

    network = torch.nn.Module()
    network.forward = model
    info = SimpleNamespace(calibration=None, mean=mean)
    figures = ImageFigures(network, info, ["conv"], 8, False, ["grad-cam"], True, None, "t")
    figures.draw_deletion(
        torch.rand(3, 8, 8), [("grad-cam", Target(0, "a", "a", 0.5), torch.rand(4, 4))], tmp_path, "x.png", Drawn()
    )
    removed = shown[0] * 0.25 + torch.tensor(mean)[:, None, None]
    assert torch.equal(removed, torch.tensor(mean)[:, None, None].expand(3, 8, 8))
    assert f"most marked pixels first; removed: {colour}" in kept[0].get_suptitle().split("\n")


def test_a_map_without_evidence_says_so(tmp_path, kept):
    heats = [("cat", torch.zeros(8, 8)), ("dog", torch.eye(8))]
    featuremaps.draw_cam(torch.zeros(3, 8, 8, dtype=torch.uint8), heats, tmp_path / "x.png")
    assert [axes.get_xlabel() for axes in kept[0].axes[1:3]] == ["no evidence: zero everywhere", ""]


def test_samples_leave_their_names_room(tmp_path, kept):
    samples = grid.Samples(torch.zeros(3, 1, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 1))
    grid.draw_samples(samples, ["W" * 20, "price $5 and more", "x"], tmp_path / "x.png", "t")
    assert inside(kept[0])


def test_rows_of_a_cost_figure_lie_within_it(tmp_path: Path, kept):
    row = {"image_size": 32, "classes": 10, "parameters": 1e6, "macs_per_image": 1e6}
    for count in (1, 2, 9):
        complexity.draw([{**row, "arch": f"resnet{k}"} for k in range(count)], tmp_path / "x.png")
        axes = kept[-1].axes[0]
        high, low = axes.get_ylim()  # the first row is at the top
        assert low < -0.3 and high > count - 0.7
