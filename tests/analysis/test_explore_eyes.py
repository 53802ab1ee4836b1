"""The explorer's page as it is seen, touched and heard: on a phone, by keys, in either theme. Contrasts by the formula of WCAG 2."""

import importlib.util
import re
import shutil

import numpy as np
import pytest
import torch

from cifarnet.analysis.explore.gather import Seen
from cifarnet.analysis.explore.page import render

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COUNT = 60
BIRDS = [
    f"Common {bird}, adult {sex}" for bird in ("Kingfisher (Alcedo atthis)", "Blackbird") for sex in ("male", "female")
]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def made_up(name, classes, errors=True):
    """A run whose cloud of points is 50 times as wide as high, and whose lengths of features go from 1 to 2."""
    generator, labels = np.random.default_rng(0), np.arange(COUNT) % classes
    predictions = np.where((np.arange(COUNT) % 5 == 0) & errors, (labels + 1) % classes, labels)
    directions = generator.normal(size=(COUNT, 3))
    plane = generator.uniform(size=(COUNT, 2)) * (50, 1)
    plane[:4] = (0, 0), (50, 1), (0, 1), (50, 0)
    own, near = np.linspace(0, 90, COUNT), (np.arange(COUNT)[:, None] + np.arange(1, 6)) % COUNT
    return Seen(
        name, "made up", {"pca": plane}, {}, directions, directions[:classes], 0.25, predictions,
        np.linspace(0.5, 1, COUNT), own, own + 1, predictions, np.linspace(1, 2, COUNT), near,
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if importlib.util.find_spec("playwright") is None or BROWSER is None:
        pytest.skip("no playwright and chromium here: pip install playwright, apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens the page of runs of some classes, in a window of its own."""
    opened = []

    def call(classes=BIRDS, runs=("one",), errors=True, **window):
        seen = [made_up(name, len(classes), errors) for name in runs]
        labels, small = torch.arange(COUNT) % len(classes), np.zeros((COUNT, 8, 8, 3), np.uint8)
        shown = {"classes": classes, "labels": labels, "indices": torch.arange(COUNT), "small": small}
        (tmp_path / "page.html").write_bytes(render(seen, title="t", split="test", **shown))
        opened.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **window}))
        tab = opened[-1].new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_selector("html[data-ready]", timeout=60_000)
        return tab

    yield call
    for context in opened:
        context.close()


def contrast(one, two):
    """Of two colours, [red, green, blue] from 0 to 255: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    light = []
    for colour in (one, two):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        light.append(0.05 + 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return max(light) / min(light)


def rgb(text):
    """The parts of #rrggbb or rgb(r, g, b)."""
    return (
        [int(text[at : at + 2], 16) for at in (1, 3, 5)] if text[0] == "#" else [int(n) for n in text[4:-1].split(",")]
    )


def test_one_unit_across_and_down(show):
    places = show().evaluate("[0, 1, 2].map(i => placeOn(panels[0].map, runs[0], 'pca', i))")
    (left, bottom), (right, top), (_, above) = places
    assert (right - left) / (bottom - top) == pytest.approx(50) and above == pytest.approx(top)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cat", "dog"], "(cat|dog)"),
        (["a name that is rather too long", "b name that is rather too long"], r"[ab] name.*…"),
        (BIRDS[:2], "Com.*….*male"),
        (BIRDS, "[0123] Com.*…"),
        (["Passeriformes_Fringillidae_sub01_carduelis", "Passeriformes_Fringillidae_sub02_carduelis"], "[01] Pass.*…"),
        (["猫と犬の写真です猫と犬の写真です" + end for end in "一二"], "猫.*…*[一二]"),
    ],
)
def test_names_that_differ_are_shortened_to_names_that_differ(show, names, shown):
    tab = show(names)
    found = tab.evaluate("NAMES")
    assert len(set(found)) == len(names) and all(re.fullmatch(shown, name) for name in found), found
    assert tab.evaluate("Math.max(...NAMES.map(widthOf)) <= LONGEST")


def test_a_card_is_in_sight_of_the_finger(show):
    tab = show(runs=("one", "two"), **PHONE)
    tab.evaluate("scrollTo(0, document.querySelector('.plot').getBoundingClientRect().bottom - innerHeight)")
    box = tab.locator("#map-0").bounding_box()
    x, y = tab.evaluate("placeOn(panels[0].map, runs[0], 'pca', 3)")
    tab.touchscreen.tap(box["x"] + x, box["y"] + y)
    tab.wait_for_selector("#card h2")
    card, plot = tab.locator("#card").bounding_box(), tab.locator(".plot").first.bounding_box()
    assert card["y"] + card["height"] <= 844.5 and card["height"] > 100
    assert plot["y"] > -1 and plot["y"] + plot["height"] <= card["y"] + 0.5
    tab.click("#card .close")
    assert tab.inner_text("#card").startswith("Point at an image") and tab.evaluate("state.focus") is None
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_two_fingers_zoom_and_move(show):
    tab = show(**PHONE)
    tab.evaluate("document.querySelector('#map-0').scrollIntoView()")
    box, half = tab.locator("#map-0").bounding_box(), tab.evaluate("panels[0].map.chart.half[0]")
    middle, before = box["x"] + box["width"] / 2, tab.evaluate("panels[0].map.chart.middle")
    touch = tab.context.new_cdp_session(tab)
    y = box["y"] + 100
    for kind, reach, down in (("touchStart", 40, 0), ("touchMove", 60, 0), ("touchMove", 80, 0), ("touchMove", 80, 50)):
        points = [{"x": middle + side * reach, "y": y + down, "id": k} for k, side in enumerate((-1, 1))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tab.wait_for_function(f"Math.abs(panels[0].map.chart.half[0] / {half} - 0.5) < 0.01")
    x, _ = tab.evaluate("panels[0].map.chart.middle")
    assert x == pytest.approx(before[0], abs=0.01 * half)  # what lay between the fingers stays there
    lay = before[1] + (box["height"] / 2 - 100) * 2 * half / box["width"]
    now = tab.evaluate(
        "y => panels[0].map.clientHeight / 2 - unitOf(panels[0].map) * (y - panels[0].map.chart.middle[1])", lay
    )
    assert now == pytest.approx(150, abs=2) and tab.evaluate("state.selected") is None


def test_a_finger_scrolls_the_page_and_draws_once_it_has_rested(show):
    tab = show(**PHONE)
    tab.evaluate("document.querySelector('#map-0').scrollIntoView()")
    box, before = tab.locator("#map-0").bounding_box(), tab.evaluate("scrollY")
    touch = tab.context.new_cdp_session(tab)

    def send(kind, *place):
        points = [{"x": box["x"] + x, "y": box["y"] + y, "id": 0} for x, y in place]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drag(places, rest):
        send("touchStart", places[0])
        if rest:
            tab.wait_for_timeout(700)  # longer than a long press
        for place in places[1:]:
            send("touchMove", place)
        tab.wait_for_timeout(200)  # the page would roll on after a finger that leaves in motion
        send("touchMove", places[-1])
        send("touchEnd")

    for sideways in (0, 5):  # straight up, and as a thumb goes
        drag([(200 + sideways * k, 300 - 20 * k) for k in range(11)], rest=False)
        tab.wait_for_function(f"scrollY > {before} + 100")
        assert tab.evaluate("state.selected") is None and tab.evaluate("state.focus") is None
        tab.evaluate(f"scrollTo(0, {before})")
    drag([(200 - 15 * k, 200) for k in range(11)], rest=False)  # the page has nothing more at its side
    assert tab.evaluate("state.selected") is None and tab.evaluate("scrollY") == before
    wide, high = box["width"] - 4, box["height"] - 4
    drag(
        [(4, 4), (wide / 2, 5), (wide, 4), (wide, high / 2), (wide, high), (4, high), (4, high / 2), (4, 4)], rest=True
    )
    tab.wait_for_function(f"state.selected !== null && state.selected.size === {COUNT}")
    assert tab.evaluate("scrollY") == before


def test_every_picture_says_what_it_is(show):
    tab = show(runs=("one", "two"))
    names = "c => c.role ?? c.getAttribute('role')"
    pictures = tab.locator("canvas:not([aria-hidden])")
    assert pictures.count() == 4 and tab.locator("canvas[aria-hidden]").count() == 2
    for picture in pictures.all():
        assert picture.evaluate(names) == "img" and len(picture.get_attribute("aria-label")) > 20
    label = tab.locator("#map-1 canvas").first.get_attribute("aria-label")
    assert label.startswith("PCA of two: 60 images")


def test_a_matrix_is_walked_by_keys(show):
    tab = show()
    tab.focus("#confusion-0")
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight"):
        tab.keyboard.press(key)
    assert tab.inner_text(".cell") == f"true {BIRDS[0]}, predicted {BIRDS[1]}: 3 of 15, 20.0%"
    assert tab.evaluate("state.focus") is None  # the arrows went through no images
    tab.keyboard.press("Enter")
    assert tab.evaluate("[...state.selected]") == [0, 20, 40]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrasts(show, theme):
    tab = show(color_scheme=theme)
    back, soft, edge = (rgb(tab.evaluate(f"ink('--{name}')")) for name in ("back", "soft", "edge"))
    assert min(contrast(edge, back), contrast(edge, soft)) >= 3
    assert rgb(tab.evaluate("getComputedStyle(document.querySelector('#view')).borderColor")) == edge
    inks = tab.evaluate(
        "[...Array(101).keys()].map(k => mixed(ink('--soft'), ink('--much'), k / 100)).map(c => [c, inkOn(c)])"
    )
    assert min(contrast(cell, rgb(letters)) for cell, letters in inks) >= 4.5
    # the mark of an image at either end of the scale of numbers, somewhere in it, differs from the page
    tab.select_option("#colour", "norm")
    for i in (0, COUNT - 1):
        seen = tab.evaluate(
            "i => { const [x, y] = placeOn(panels[0].map, runs[0], 'pca', i);"
            "return [...panels[0].map.chart.canvas.getContext('2d').getImageData(x - 6, y - 6, 12, 12).data]; }",
            i,
        )
        pixels = np.array(seen, dtype=float).reshape(-1, 4)
        covered = pixels[:, 3:] / 255
        drawn = covered * pixels[:, :3] + (1 - covered) * back
        assert max(contrast(pixel, back) for pixel in drawn) >= 3


def test_a_share_that_is_not_all_is_not_100_percent(show):
    tab = show()
    assert tab.evaluate("[0.9999, 1, 0.0001, 0, 0.5].map((value) => percent(value, 1))") == [
        ">99.9%", "100.0%", "<0.1%", "0.0%", "50.0%",
    ]  # fmt: skip
    assert tab.evaluate("percent(0.001, 0)") == "<1%"


def test_a_matrix_without_errors_says_so(show):
    assert show(errors=False).inner_text(".cell") == "no errors"
    assert show().inner_text(".cell").startswith("errors: from 0 to 3 in a cell")
