#!/usr/bin/env python3
"""How long a page of `cifarnet explore` takes: until it is ready, from the pointer to the card, from a key to the drawing.

    python scripts/bench/explorer.py PAGE.html [--times 5] [--browser /usr/bin/chromium] [--json FILE]

In headless chromium, which without a graphics card draws the sphere's WebGL by software (SwiftShader). Medians, and of ready the
best too, since other work on the machine only adds to it; ready is counted from the beginning of the navigation.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# The time from a pointer's event to the next frame in which the card is there.
HOVER = """
async (count) => {
  const map = panels[0].map, found = [];
  for (let k = 0; k < count; k++) {
    const i = shown[(k * 7919) % shown.length], at = placeOn(map, runs[0], state.view, i);
    if (!at) continue;
    const box = map.getBoundingClientRect();
    document.getElementById('card').replaceChildren();
    await new Promise((done) => setTimeout(done, 60));
    const from = performance.now();
    map.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: box.x + at[0], clientY: box.y + at[1], bubbles: true }));
    for (let frames = 0; frames < 60 && !document.querySelector('#card h2'); frames++) await new Promise(requestAnimationFrame);
    found.push(performance.now() - from);
  }
  return found;
}
"""
FILTER = """
async (name) => {
  const from = performance.now();
  document.getElementById('errors').value = name;
  await filter();
  await new Promise(requestAnimationFrame);
  return performance.now() - from;
}
"""
# The first time the sphere is asked for, when its library is read.
SPHERE = """
async () => {
  const from = performance.now();
  state.view = 'sphere';
  await redraw();
  await new Promise(requestAnimationFrame);
  return performance.now() - from;
}
"""


def measure(tab, page: Path) -> dict[str, float]:
    """Milliseconds of one visit; `work_ms` is what the page's thread computed until then, however busy the machine is."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(page.resolve().as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=120_000)
    ready = float(tab.evaluate("document.documentElement.dataset.ready"))
    work = {row["name"]: row["value"] for row in session.send("Performance.getMetrics")["metrics"]}
    tab.wait_for_timeout(1500)
    hovers = tab.evaluate(HOVER, 20)
    filters = [tab.evaluate(FILTER, name) for name in ("wrong", "all")]
    return {
        "ready_ms": ready,
        "work_ms": 1000 * work["TaskDuration"],
        "hover_ms": statistics.median(hovers),
        "hover_worst_ms": max(hovers),
        "filter_ms": max(filters),
        "sphere_ms": tab.evaluate(SPHERE),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.browser is None or not options.page.is_file():
        sys.exit("error: no chromium, or no such page; name one with --browser, make the other with `cifarnet explore`")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=options.browser, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        visits = [measure(tab, options.page) for _ in range(options.times)]
        version = browser.version
        browser.close()
    found = {name: round(statistics.median(visit[name] for visit in visits), 1) for name in visits[0]}
    found["ready_best_ms"] = round(min(visit["ready_ms"] for visit in visits), 1)
    found |= {"megabytes": round(options.page.stat().st_size / 1e6, 2), "chromium": version, "visits": options.times}
    found |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
