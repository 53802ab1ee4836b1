"""The explorer in a real browser: it loads from the disk, asks for nothing, and hover, filter and selection do what they say."""

import csv
import hashlib
import importlib.util
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from cifarnet.analysis.explore.gather import Seen, check_same_images, gather, nearest_images
from cifarnet.analysis.explore.page import HERE, LIBRARY, render
from cifarnet.analysis.explore.thumbnails import sprite, thumbnails
from cifarnet.analysis.features import Embeddings
from cifarnet.cli.explore import check_images
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import Split
from cifarnet.models.calibration import Calibration
from cifarnet.models.model_info import ModelInfo

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# WebGL by software: a test machine has no graphics card.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "=1+1",
    'a, "b"',
    "<b>bold</b>",
    "$x$ & \udcff",
]
COUNT = 60
ANGULAR = ModelInfo(TrainConfig(loss="arcface"), ("a", "b", "c", "d"), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def made_up(name, shift):
    """A run that takes every fifth image, from `shift` on, for the next class."""
    generator = np.random.default_rng(shift)
    labels = np.arange(COUNT) % len(HOSTILE)
    predictions = np.where(np.arange(COUNT) % 5 == shift, (labels + 1) % len(HOSTILE), labels)
    directions = generator.normal(size=(COUNT, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    plane = generator.normal(size=(COUNT, 2))
    own = np.linspace(0, 90, COUNT)
    near = (np.arange(COUNT)[:, None] + np.arange(1, 6)) % COUNT
    return Seen(
        name, f"<i>{name}</i>", {"pca": plane}, {}, directions, directions[: len(HOSTILE)], 0.25, predictions,
        np.linspace(0.5, 1 - 1e-9, COUNT), own, own + 1, predictions, own + 2, near,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page():
    """The page of two runs whose names and classes are hostile, the runs, and the labels."""
    runs, labels = [made_up("<u>one</u>", 0), made_up("two", 1)], torch.arange(COUNT) % len(HOSTILE)
    pictures = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)
    shown = {"classes": HOSTILE, "labels": labels, "indices": torch.arange(COUNT) * 3, "small": pictures}
    return render(runs, title="</title><script>alert(3)</script>", split="test", **shown), runs, labels


def test_the_page_holds_no_markup_of_its_data_and_allows_no_source(page):
    text = page[0].decode()
    assert len(re.findall(r"<script\b", text.replace((HERE / LIBRARY).read_text(), ""))) == 3
    assert "<img" not in text.replace((HERE / LIBRARY).read_text(), "") and "<b>bold" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;") and "eval" not in policy and "http" not in policy
    numbers = json.loads(re.search(r'id="numbers">(.*?)</script>', text)[1])
    assert numbers["classes"] == HOSTILE


def test_the_library_is_the_published_one():
    # The file of the npm package plotly.js-strict-dist-min 4.1.1, with its licence beside it.
    assert b"(strict - minified) v4.1.1" in (HERE / LIBRARY).read_bytes()[:200]
    assert (
        hashlib.sha256((HERE / LIBRARY).read_bytes()).hexdigest()
        == "4ac841837b31c1bfd2ab140e3a248ddcc6c2106978fbf2c1c18a7aada930a37a"
    )
    assert "MIT" in (HERE / "plotly" / "LICENSE").read_text()


def test_numbers_are_those_of_sklearn_and_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 5, generator=generator), torch.arange(40) % 4
    weight = torch.randn(4, 5, generator=generator)
    head = type("Head", (), {"prototypes": lambda _: weight, "decision": lambda _: (weight, torch.zeros(4))})()
    model = type("Model", (), {"head": head})()
    found = Embeddings(features, features @ weight.T, labels)
    given = {"name": "a", "title": "b", "methods": ["pca"], "seed": 1}
    seen = gather(model, ANGULAR, found, **given)
    warm = gather(model, replace(ANGULAR, calibration=Calibration(2.0, 0.0, 9, "made")), found, **given)
    expected = softmax(found.logits.double().numpy() / 2, axis=1).max(axis=1)
    np.testing.assert_allclose(warm.probabilities, expected, rtol=1e-9)
    unit = [
        part.double().numpy() / np.linalg.norm(part.double().numpy(), axis=1, keepdims=True)
        for part in (features, weight)
    ]
    angles = np.degrees(np.arccos(unit[0] @ unit[1].T))
    np.testing.assert_allclose(seen.own, angles[np.arange(40), labels], atol=1e-6)
    angles[np.arange(40), labels] = 999
    np.testing.assert_allclose(seen.other, angles.min(axis=1), atol=1e-6)
    assert (seen.rival == angles.argmin(axis=1)).all()
    cosines = unit[0] @ unit[0].T - 9 * np.eye(40)
    assert (nearest_images(features, "cosine") == (-cosines).argsort(axis=1)[:, :5]).all()
    assert (seen.neighbors == (-cosines).argsort(axis=1)[:, :5]).all()
    flat = gather(model, replace(ANGULAR, config=TrainConfig(loss="ce")), found, **given)
    distances = np.linalg.norm(features.numpy()[:, None] - features.numpy(), axis=2) + 9 * np.eye(40)
    assert (flat.neighbors == distances.argsort(axis=1)[:, :5]).all() and (flat.neighbors != seen.neighbors).any()
    np.testing.assert_allclose(np.linalg.norm(seen.directions, axis=1), 1, atol=1e-6)
    with pytest.raises(Refused, match="too few"):
        gather(model, ANGULAR, Embeddings(features[:9], found.logits[:9], labels[:9]), **given)
    with pytest.raises(Refused, match="different images"):
        check_same_images(["a", "b"], [labels, labels.flip(0)], [np.zeros(1), np.zeros(1)])


def test_runs_on_other_images_are_told_before_a_split_that_is_too_small():
    """The second run has 4 test images: that they are other ones comes first, and of one run alone that they are few."""
    names, many, few = ["a", "b"], torch.arange(40) % 2, torch.arange(4) % 2
    pictures = [np.zeros((40, 2, 2, 3)), np.zeros((4, 2, 2, 3))]
    for labels, shown in (([many, few], pictures), ([few, many], pictures[::-1])):
        with pytest.raises(Refused, match=r"^a and b: see different images in this split"):
            check_images(names, [["x", "y"]] * 2, labels, shown, "test")
    with pytest.raises(Refused, match=r"^a and b: have different classes"):
        check_images(names, [["x", "y"], ["x", "z"]], [many, few], pictures, "test")
    with pytest.raises(Refused, match=r"^`split=test`: it has only 4 images, and a map needs 20 or more"):
        check_images(names[:1], [["x", "y"]], [few], pictures[1:], "test")


def test_a_thumbnail_is_its_image():
    images = torch.zeros(7, 3, 16, 16, dtype=torch.uint8)
    images[:, 0] = (torch.arange(7) * 30)[:, None, None]
    data, columns = sprite(thumbnails(Split(images, torch.zeros(7, dtype=torch.int64)), 16))
    sheet = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    for i in range(7):
        y, x = i // columns * 16, i % columns * 16
        assert abs(sheet[y : y + 16, x : x + 16, 0] - 30 * i).max() <= 3


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    """The page in a browser, and what it printed or asked for."""
    if importlib.util.find_spec("playwright") is None or BROWSER is None:
        pytest.skip("no playwright and chromium here: pip install playwright, apt install chromium")
    from playwright.sync_api import sync_playwright

    path = tmp_path_factory.mktemp("explore") / "page.html"
    path.write_bytes(page[0])
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="dark")
        said = []
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        tab.on(
            "request",
            lambda request: (
                said.append(request.url) if not request.url.startswith(("data:", "file:", "blob:")) else None
            ),
        )
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready]", timeout=60_000)
        yield tab, said
        browser.close()


def point(tab, i):
    """Where image `i` is drawn on the first map, in the window."""
    return tab.evaluate(
        "i => { const box = panels[0].map.getBoundingClientRect(), at = placeOn(panels[0].map, runs[0], 'pca', i); return [box.x + at[0], box.y + at[1]]; }",
        i,
    )


def test_in_a_browser(page, opened):
    (tab, said), (_, runs, labels) = opened, page
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    # hover: the card of the image under the pointer, with the numbers of both runs
    tab.mouse.move(*point(tab, 12))
    tab.wait_for_function("document.querySelector('#card h2')")
    i = tab.evaluate("indices.indexOf(parseInt(document.querySelector('#card h2').textContent))")
    card = tab.inner_text("#card")
    assert f"{3 * i}: {HOSTILE[labels[i]]}" in card and f"{runs[0].own[i]:.1f}°" in card
    assert tab.locator("#card canvas").count() == 11
    # probabilities are the model's own, and what is not all of it is never 100%
    assert tab.evaluate("runs.map((run) => [...run.probabilities])") == [run.probabilities.tolist() for run in runs]
    tab.evaluate("focusOn(count - 1)")
    assert ">99.9%" in tab.inner_text("#card") and "100.0%" not in tab.inner_text("#card")
    tab.evaluate("forget()")
    # filters: the errors of a run, a range of angles
    tab.select_option("#errors", "wrong")
    assert tab.inner_text("#count").startswith("12 of 60 images, 12 errors")
    tab.fill("#low", "45")
    tab.locator("#low").press("Tab")
    wrong = (runs[0].predictions != labels.numpy()) & (runs[0].own >= 45)
    assert tab.evaluate("shown") == np.flatnonzero(wrong).tolist()
    tab.keyboard.press("Escape")
    # the confusion matrix: that of scikit-learn; a cell selects in both runs
    expected = confusion_matrix(labels, runs[1].predictions)
    assert tab.evaluate("confusion(runs[1])") == expected.tolist()
    place = tab.evaluate(
        "(() => { const t = panels[1].table, b = t.getBoundingClientRect(), at = cellAt(t, 0, 1);"
        "return [b.x + at[0], b.y + at[1]]; })()"
    )
    tab.mouse.move(*place)
    hits, all_of_it = expected[0, 1], expected[0].sum()
    said_of_cell = f"true {HOSTILE[0]}, predicted {HOSTILE[1]}: {hits} of {all_of_it}, {100 * hits / all_of_it:.1f}%"
    assert tab.inner_text(".panel:nth-child(2) .cell") == said_of_cell
    tab.mouse.click(*place)
    cell = np.flatnonzero((labels.numpy() == 0) & (runs[1].predictions == 1)).tolist()
    tab.wait_for_function("state.selected")
    assert len(cell) == expected[0, 1] and tab.evaluate("[...state.selected]") == cell
    tab.wait_for_function("n => panels.every(p => p.map.chart.selected?.size === n)", arg=len(cell))
    # drawing around images, zooming: what lies left of the widest gap is selected
    tab.keyboard.press("Escape")
    x = np.sort(runs[0].maps["pca"][:, 0])
    widest = int(np.diff(x)[10:-10].argmax()) + 10
    left = np.flatnonzero(runs[0].maps["pca"][:, 0] <= x[widest]).tolist()
    ends = [int(np.flatnonzero(runs[0].maps["pca"][:, 0] == value)[0]) for value in x[widest : widest + 2]]
    edge = sum(point(tab, i)[0] for i in ends) / 2
    box = tab.locator("#map-0").bounding_box()
    low, high, first = box["y"] + 2, box["y"] + box["height"] - 2, box["x"] + 2
    tab.mouse.move(first, low)
    tab.mouse.down()
    for place in ((edge, low), (edge, high), (first, high)):
        tab.mouse.move(*place)
    tab.mouse.up()
    assert tab.evaluate("[...state.selected].sort((a, b) => a - b)") == left
    before = [point(tab, i) for i in ends]
    tab.mouse.move(*before[0])
    tab.mouse.wheel(0, -400)
    tab.wait_for_function(
        "y => placeOn(panels[0].map, runs[0], 'pca', y) === null", arg=int(np.argmin(runs[0].maps["pca"][:, 0]))
    )
    np.testing.assert_allclose(point(tab, ends[0]), before[0], atol=1)  # the place under the pointer stays
    tab.mouse.dblclick(first, low)
    np.testing.assert_allclose(point(tab, ends[1]), before[1], atol=1e-3)
    tab.keyboard.press("Escape")
    tab.evaluate("pick(runs[1], 0, 1)")
    # the selection as CSV, safe in a spreadsheet
    with tab.expect_download() as download:
        tab.keyboard.press("s")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode(), newline="")))
    assert [int(row["index"]) for row in rows] == [3 * k for k in cell]
    assert tab.evaluate("cell(classes[2])") == "'=1+1" and tab.evaluate("cell(classes[3])") == '"a, ""b"""'
    # the keyboard: search, next, view, theme
    tab.keyboard.press("Escape")
    tab.keyboard.press("/")
    tab.keyboard.type("30")
    tab.keyboard.press("Enter")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#card h2").startswith("33: ")
    tab.keyboard.press("v")
    tab.wait_for_function("panels.every(p => p.sphere.data && !p.sphere.hidden && p.sphere.data[0].x.length === 60)")
    tab.keyboard.press("d")
    tab.wait_for_function("document.documentElement.dataset.theme === 'light'")
    for _ in range(5):
        tab.keyboard.press("c")
    tab.wait_for_timeout(300)
    assert said == []


def test_a_collapsed_run_of_many_classes(opened, tmp_path):
    """All features are one point: no map can be made, which the page says, and all else works."""
    (tab, said), classes = opened, [f"class {k}" for k in range(13)]
    labels, weight = torch.arange(52) % 13, torch.randn(13, 4, generator=torch.Generator().manual_seed(0))
    head = type("Head", (), {"prototypes": lambda _: weight, "decision": lambda _: (weight, torch.zeros(13))})()
    features = torch.ones(52, 4)
    found = Embeddings(features, features @ weight.T, labels)
    given = {"name": "one point", "title": "t", "methods": ["umap", "pca"], "seed": 1}
    seen = gather(type("Model", (), {"head": head})(), ANGULAR, found, **given)
    assert seen.maps == {} and "52 images are 1 point in all, UMAP" in seen.missing["umap"] and "pca" in seen.missing
    shown = {"classes": classes, "labels": labels, "indices": labels, "small": np.zeros((52, 8, 8, 3), np.uint8)}
    (tmp_path / "page.html").write_bytes(render([seen], title="t", split="test", **shown))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    assert tab.inner_text(".lacking").startswith("no UMAP: the features of 52 images are 1 point in all")
    assert tab.evaluate("state.view") == "sphere" and tab.evaluate("panels[0].sphere.data[0].x.length") == 52
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#card h2") == "0: class 0"
    # a cell without its number says it: true class, predicted class, count and rate
    row, taken = 5, int(found.predictions[0])
    tab.locator("#confusion-0").scroll_into_view_if_needed()
    box, at = tab.locator("#confusion-0").bounding_box(), tab.evaluate(f"cellAt(panels[0].table, {row}, {taken})")
    tab.mouse.move(box["x"] + at[0], box["y"] + at[1])
    assert tab.inner_text(".cell") == f"true class {row}, predicted class {taken}: 4 of 4, 100.0%"
    tab.mouse.click(box["x"] + at[0], box["y"] + at[1])
    assert tab.evaluate("[...state.selected]") == [row, row + 13, row + 26, row + 39]
    assert said == []


def test_the_command_writes_a_page_of_two_runs(cli, tmp_path):
    line = "train --dataset digits --arch baseline --epochs 1 --device cpu --precision fp32 -q --loss ce --embed-dim 3 --out run"
    assert cli(*line.split())[0] == 0
    code, out, err = cli(
        "explore", "run", "run/last.safetensors", "--maps", "PCA", "--samples", "40", "--out", "a.html"
    )
    assert code == 0 and out == "a.html\n", err
    numbers = json.loads(re.search(r'id="numbers">(.*?)</script>', Path("a.html").read_text())[1])
    assert len(numbers["runs"]) == 2 and list(numbers["runs"][0]["maps"]) == ["pca"]
    for words, message in (
        ("run run run", "error: explore: 3 runs are named; name one or two"),
        ("run --maps umpa", "--maps: 'umpa' is not known; did you mean umap?"),
        ("run --maps ,", "--maps: none is named"),
        ("run --samples 3", "--samples: 3 images cannot make a map; take 20 or more"),
        ("run --out a.png", "a.png: '.png' is no suffix of a page; end the name in .html"),
        ("run --out a.html", "a.html: is there already; add --overwrite to replace it, or name another file"),
    ):
        code, out, err = cli("explore", *words.split())
        assert code == 2 and out == "" and message in err and err.count("\n") == 1, err
