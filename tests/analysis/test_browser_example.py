"""examples/browser: what its page reads, resizes and computes in a real browser is what onnx, Pillow and onnx_predict.py have."""

import functools
import http.server
import importlib.util
import json
import runpy
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from cifarnet.analysis.export.deployed import FORMAT

ROOT = Path(__file__).parents[2]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIBRARY = ROOT / "node_modules" / "onnxruntime-web"
SIZE, TEMPERATURE = 32, 0.7
CLASSES = ["<img src=x onerror=alert(1)>", "猫", 'a "b" \\ {c}', "four"]


def write_model(path, unknown_at):
    """A linear classifier of the pixels in the form of an export."""
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(0, 0.1, (SIZE * SIZE * 3, 4)).astype(np.float32),
        "b": generator.normal(size=4).astype(np.float32),
        "scale": np.float32(255),
        "t": np.float32(TEMPERATURE),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["pixels"]),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Div", ["logits", "t"], ["cooled"]),
        helper.make_node("Softmax", ["cooled"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("probabilities", "logits")]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [images], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    about = {"classes": CLASSES, "image_size": SIZE, "temperature": TEMPERATURE, "unknown_at": unknown_at}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}
    texts |= {"format": FORMAT, "arch": "linear", "loss": "ce", "precision": "fp32", "empty": ""}
    helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page, a model and pictures, as a user puts them together."""
    path = tmp_path_factory.mktemp("browser")
    shutil.copy(ROOT / "examples" / "browser" / "index.html", path)
    (path / "texts.json").write_text(json.dumps(write_model(path / "model.onnx", None)))
    write_model(path / "strict.onnx", 1e3)
    generator = np.random.default_rng(1)
    for name, shape in (("own", (32, 32, 3)), ("long", (211, 40, 3)), ("small", (7, 9, 3)), ("grey", (50, 64))):
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path / f"{name}.png")
    (path / "broken.png").write_bytes((path / "own.png").read_bytes()[:200])
    if LIBRARY.is_dir():
        (path / "node_modules").symlink_to(LIBRARY.parent)
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def tab(folder):
    """The page in a browser, from `python -m http.server`, and what it asked of others or ran."""
    if importlib.util.find_spec("playwright") is None or BROWSER is None:
        pytest.skip("no playwright and chromium here: pip install playwright, apt install chromium")
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home, said = f"http://127.0.0.1:{server.server_port}/", []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda one: None if one.url.startswith((home, "blob:")) else said.append(one.url))
        page.goto(home)
        page.wait_for_selector("html[data-ready]")
        yield page, said
        browser.close()
    server.shutdown()
    server.server_close()


def test_it_reads_a_files_metadata_and_resizes_as_pillow(tab, folder):
    """To one step of 255, for Pillow computes in integers; a picture of the model's size stays as it is."""
    page, said = tab
    read = "async name => metadata(new Uint8Array(await (await fetch(name)).arrayBuffer()))"
    assert page.evaluate(read, "model.onnx") == json.loads((folder / "texts.json").read_text())
    for name in ("own", "long", "small", "grey"):
        resized = f"async name => [...await squeezed(await (await fetch(name)).blob(), {SIZE})]"
        ours = np.array(page.evaluate(resized, f"{name}.png")).reshape(SIZE, SIZE, 3)
        image = Image.open(folder / f"{name}.png").convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours, np.asarray(image), atol=0 if name == "own" else 1, err_msg=name)
    if not LIBRARY.is_dir():
        assert "run `npm install onnxruntime-web` in this page's folder" in page.inner_text("#said")
    assert said == []


def test_its_probabilities_are_those_of_the_other_example(tab, folder, monkeypatch, capfd):
    if not LIBRARY.is_dir():
        pytest.skip("onnxruntime-web is not here: npm install --no-save onnxruntime-web in the repository's folder")
    page, said = tab
    assert page.inner_text("#model") == "model.onnx: linear, ce, fp32, 4 classes, temperature 0.700"
    for name, allowed in (("own.png", 1e-5), ("long.png", 0.02)):
        page.set_input_files("input", folder / name)
        page.wait_for_selector(f"html[data-ready] article:has-text('{name}')")
        rows = page.locator("article").first.locator(".row")
        shown = [(row.inner_text().split("\n")[0], float(row.get_attribute("title"))) for row in rows.all()]
        monkeypatch.setattr(sys, "argv", ["x", str(folder / "model.onnx"), name])
        monkeypatch.chdir(folder)
        runpy.run_path(str(ROOT / "examples" / "onnx_predict.py"))
        line = capfd.readouterr().out
        for label, probability in shown:
            found = float(line.split(f" {label} ")[1].split()[0])
            assert abs(found - probability) < allowed
    assert page.locator("main p").all_inner_texts() == ["long.png", "own.png"]  # no threshold
    page.set_input_files("input", [folder / "own.png", folder / "broken.png", folder / "strict.onnx"])
    page.wait_for_selector("html[data-ready] article:has-text('none of these (score ')")
    assert page.inner_text("#said").startswith("broken.png: ") and page.locator("article").count() == 1
    assert said == []
