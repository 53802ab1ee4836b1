"""Names and titles that look like markup, formulas or control codes, through every figure."""

import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from hostile import HOSTILE
from PIL import Image

from cifarnet.analysis.embedding import Sphere, measure_angles
from cifarnet.analysis.features import FeatureMap
from cifarnet.analysis.plots import angles, confusion, curves, embedding, featuremaps, grid, sphere
from cifarnet.analysis.plots import text as plot_text
from cifarnet.analysis.receptive_field import ReceptiveField
from cifarnet.core.errors import printable

COUNT = 10
TABLES = [HOSTILE[start : start + COUNT] for start in range(0, len(HOSTILE) - COUNT + 1, COUNT)]
TABLES += [HOSTILE[-COUNT:]]
LABELS = torch.arange(40) % COUNT
PICTURE = torch.zeros(3, 8, 8, dtype=torch.uint8)


def draw_sphere(dims):
    generator = torch.Generator().manual_seed(0)
    drawn = Sphere(torch.randn(40, dims, generator=generator), torch.randn(COUNT, dims, generator=generator), 0.25)
    return lambda names, path, title: sphere.draw({"": (drawn, LABELS.numpy())}, names, path, title)


def draw_embedding(names, path, title):
    points = np.random.default_rng(0).normal(size=(40, 2))
    return embedding.draw({"": (points, LABELS.numpy())}, names, path, title)


def draw_grid(names, path, title):
    images = PICTURE.expand(40, 3, 8, 8)
    return grid.draw(images, LABELS, LABELS.roll(1), names, path, title)


def draw_samples(names, path, title):
    samples = grid.Samples(PICTURE.expand(COUNT, 3, 3, 8, 8), torch.zeros(COUNT, 3).long())
    return grid.draw_samples(samples, names, path, title)


def draw_curves(names, path, title):
    records = [{"epoch": epoch, "lr": 0.1, "train_loss": 1 / epoch} for epoch in (1, 2)]
    return curves.draw(dict.fromkeys(names, records), path, title)


def draw_angles(_, path, title):
    generator = torch.Generator().manual_seed(0)
    features, prototypes = (torch.randn(count, 4, generator=generator) for count in (40, COUNT))
    return angles.draw({"": measure_angles(features, LABELS, prototypes)}, path, title)


MAPS = [FeatureMap("relu1", "relu", torch.rand(9, 8, 8), ReceptiveField(3, 1, 1.0))]
# A figure of the names of classes or runs, and of a title; and whether the names stand in it.
FIGURES = {
    "confusion": (lambda names, path, title: confusion.draw({"": np.eye(COUNT) + 1}, names, path, title), True),
    "curves": (draw_curves, True),
    "embedding": (draw_embedding, True),
    "circle": (draw_sphere(2), True),
    "globe": (draw_sphere(3), True),
    "grid": (draw_grid, True),
    "samples": (draw_samples, True),
    "angles": (draw_angles, False),
    "channels": (lambda _, path, title: featuremaps.draw_channels(MAPS[0], 9, path, title), False),
    "overview": (lambda _, path, title: featuremaps.draw_overview(PICTURE, MAPS * 4, path, title), False),
    "cam": (
        lambda names, path, title: featuremaps.draw_cam(
            PICTURE, [(name, torch.rand(8, 8)) for name in names[:4]], path, title
        ),
        False,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def strict(capfd):
    """Nothing of matplotlib's own on stderr or among the warnings."""
    plot_text.warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "figures: no font here has ")
        yield
    assert capfd.readouterr().err == ""


def texts_of(path):
    """The texts that stand in an SVG file, as an XML parser reads them."""
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def is_shown(name, texts):
    """Does the name stand there as a terminal shows it, or, where it is long, its beginning before an ellipsis?"""
    full = printable(name)
    begun = {text for text in texts if text.endswith("…") and len(text) > 4 and full.startswith(text[:-1])}
    return full in texts or (len(full) > 8 and bool(begun))


def titles_of(names):
    """Titles of the names, three lines each: as many as a title has."""
    lines = [name for name in names if "\n" not in name and name.strip()]
    return ["\n".join(lines[start : start + 3]) for start in range(0, len(lines), 3)]


@pytest.mark.parametrize("figure", [figure for figure, (_, named) in FIGURES.items() if named])
def test_a_name_in_a_figure_is_the_name_that_went_in(figure, tmp_path):
    draw, _ = FIGURES[figure]
    for names in TABLES:
        texts = texts_of(draw(names, tmp_path / "x.svg", ""))
        texts += [text.removeprefix("✗ ") for text in texts] + [text[1:-1] for text in texts if text[:1] == "("]
        assert [name for name in names if name.strip() and not is_shown(name, texts)] == []


@pytest.mark.parametrize("figure", FIGURES)
def test_a_title_is_the_title_that_went_in(figure, tmp_path):
    draw, _ = FIGURES[figure]
    titles = titles_of(HOSTILE)
    for title in titles if figure in ("channels", "embedding") else titles[-2:]:  # the two ways to write one
        path = draw([f"class {index}" for index in range(COUNT)], tmp_path / "x.svg", title)
        texts = [text.split(" · 40 images")[0] for text in texts_of(path)]
        assert [line for line in title.split("\n") if not is_shown(line, texts)] == []


@pytest.mark.parametrize("figure", FIGURES)
def test_what_a_figure_says_itself_is_whole(figure, tmp_path):
    draw, _ = FIGURES[figure]
    texts = texts_of(draw([f"c{index}" for index in range(COUNT)], tmp_path / "x.svg", "t"))
    assert "t" in [text.split(" · ")[0] for text in texts] and [text for text in texts if "…" in text] == []


@pytest.mark.parametrize("figure", FIGURES)
def test_no_name_ends_a_figure_or_leaves_its_panel(figure, tmp_path):
    draw, _ = FIGURES[figure]
    names = [
        "a" * 300,
        "W" * 300,
        "中" * 300,
        "😀🦀👩\u200d👧",
        "مرحبا بالعالم",
        "$\\frac",
        "l\nm",
        "\x00",
        "w\udc80",
        "\ufeffy",
    ]
    assert draw(names, tmp_path / "x.pdf", names[2]).read_bytes().rstrip().endswith(b"%%EOF")
    with Image.open(draw(names, tmp_path / "x.png", "\n".join(names))) as image:
        pixels = np.asarray(image.convert("L"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 255).all(), "something stands on the edge of the figure"
