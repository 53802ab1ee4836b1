"""The live page in a real browser, from the disk: it draws, asks for its own file alone, and a second version shows by itself."""

import importlib.util
import json
import re
import shutil
import time
from dataclasses import replace

import pytest

from cifarnet.analysis.live.page import MARK, Watched, render

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "<b>bold</b>", "$x$ & \udcff"]


def record(epoch):
    losses = {f"{split}_loss": 2.0 / epoch for split in ("train", "val", "test")}
    return {"epoch": epoch, "lr": 1e-3, "train_accuracy": 0.5, "test_accuracy": 0.4, "seconds": 2.5, **losses}


HERE = Watched(
    name=HOSTILE[0],
    title=HOSTILE[1],
    facts=[("data", text) for text in HOSTILE],
    options=[("--lr", HOSTILE[2])],
    loss="",
    tta=False,
    epochs=4,
    steps=10,
    step=3,
    records=[record(1), record(2)],
    state="running",
    why="",
    started="2026-01-01T00:00:00+00:00",
    written=0.0,
    left=60.0,
    patience=180.0,
)


def test_the_page_holds_no_markup_of_its_data():
    text = render(replace(HERE, records=[record(1) | {"test_loss": float("nan")}])).decode()
    assert len(re.findall(r"<script\b", text)) == 2 and "<img" not in text and "<b>bold" not in text
    assert MARK in text.encode()[:1000]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none';") and "eval" not in policy and "http" not in policy
    numbers = json.loads(re.search(r'id="numbers">(.*?)</script>', text)[1])
    assert numbers["records"][0]["test_loss"] is None and [text for _, text in numbers["facts"]] == HOSTILE


def test_in_a_browser(tmp_path):
    if importlib.util.find_spec("playwright") is None or BROWSER is None:
        pytest.skip("no playwright and chromium here: pip install playwright, apt install chromium")
    from playwright.sync_api import sync_playwright

    page = tmp_path / "page.html"

    def write(watched):
        (tmp_path / "next").write_bytes(render(watched))
        (tmp_path / "next").replace(page)

    write(replace(HERE, written=time.time(), records=[], left=None))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 700, "height": 400}, color_scheme="dark")
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        tab.on("request", lambda one: None if one.url.split("?")[0] == page.as_uri() else said.append(one.url))
        tab.goto(page.as_uri())
        assert tab.inner_text("#charts") == "Nothing is measured yet."
        write(replace(HERE, written=time.time()))
        tab.reload()
        assert tab.inner_text("#state") == "▶ running" and tab.inner_text("h1") == HOSTILE[0]
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        titles = ["loss", "accuracy", "learning rate", "training time of an epoch"]
        assert tab.locator("figure h2").all_inner_texts() == titles
        drawn = "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('.curve[d*=L]')].length)"
        lines = "[...document.querySelectorAll('figure > svg')].map(f => f.querySelectorAll('.curve').length)"
        assert tab.evaluate(lines) == [3, 2, 1, 1] and tab.evaluate(drawn)[0] == 3
        assert tab.inner_text("#now").startswith("epoch 3 of 4, step 3 of 10 · 2.5 s an epoch · about ")
        # the numbers of the epoch that is pointed at
        tab.locator("figure > svg").first.focus()
        tab.keyboard.press("ArrowLeft")
        assert "epoch 1" in tab.inner_text("figcaption >> nth=0") and "val 2" in tab.inner_text("figcaption >> nth=0")
        tab.keyboard.press("Escape")
        # another version of the file: it is not loaded anew, and what was chosen stays
        tab.check("#log")
        tab.click("#theme")
        tab.evaluate("scrollTo(0, 200)")
        tab.evaluate("window.mark = 1")
        write(replace(HERE, written=time.time(), records=[record(1), record(2), record(3)]))
        tab.wait_for_function("() => seen.records.length === 3 && document.querySelectorAll('figure .curve').length")
        assert tab.evaluate("[window.mark, scrollY, document.documentElement.dataset.theme]") == [1, 200, "light"]
        assert tab.is_checked("#log") and "epoch 3" in tab.inner_text("figcaption >> nth=0")
        # silent for longer than it should be; and stopped, with the reason
        write(replace(HERE, written=time.time() - 200))
        tab.evaluate("ask()")
        tab.wait_for_function("() => document.querySelector('#state').textContent.startsWith('? no news since ')")
        write(replace(HERE, written=time.time(), state="interrupted", why="stopped by <b>Ctrl-C</b>"))
        tab.evaluate("ask()")
        tab.wait_for_function("() => document.querySelector('#state').textContent === '■ interrupted'")
        assert tab.inner_text("#why") == "stopped by <b>Ctrl-C</b>"
        for views, word in ((6, "six"), (None, "several")):  # of a run that began before it was six
            records = [one | {"views": views} for one in HERE.records]
            write(replace(HERE, written=time.time(), tta=True, records=records))
            tab.reload()
            assert f"accuracy (val, test: {word} views of each image)" in tab.locator("figure h2").all_inner_texts()
        # one notation on an axis, and a loss that hides the others is drawn on a logarithmic one, until someone chooses
        assert not tab.is_checked("#log")
        format = "values => values.map(tickFormat({ format: real }, values))"
        for values, texts in (
            ([0.0008, 0.001, 0.0012], ["0.0008", "0.001", "0.0012"]),
            ([0, 5e-5, 1e-4], ["0", "5e-5", "1e-4"]),
            ([5e4, 1e5, 1.5e5], ["5e+4", "1e+5", "1.5e+5"]),
        ):
            assert tab.evaluate(format, values) == texts
        shares = tab.evaluate("[0.99998, 1, 0.00002, 0, 0.5].map((value) => percent(value, true))")
        assert shares == [">99.99%", "100.00%", "<0.01%", "0.00%", "50.00%"]
        assert tab.evaluate("[0, 0.25, 0.125, 1].map((value) => percent(value))") == ["0%", "25%", "12.5%", "100%"]
        spike = [record(epoch) | {"lr": lr} for epoch, lr in enumerate((8e-4, 1e-3, 1.2e-3), start=1)]
        spike[1] |= {"test_loss": 1000.0}
        write(replace(HERE, written=time.time(), records=spike))
        tab.evaluate("ask()")
        tab.wait_for_function("() => document.querySelector('#log').checked")
        ticks = tab.locator("figure:nth-child(3) text").all_text_contents()
        assert {"0.0008", "0.001", "0.0012"} <= set(ticks) and not any("e" in text for text in ticks)
        tab.uncheck("#log")
        write(replace(HERE, written=time.time() + 1, records=spike))
        tab.evaluate("ask()")
        tab.wait_for_function("written => seen.written > written", arg=time.time())
        assert not tab.is_checked("#log")
        assert said == []
        browser.close()
