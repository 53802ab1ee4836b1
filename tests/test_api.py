"""The public API: what goes in, what comes out, and that it is what the command line gives."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cifarnet
from cifarnet.core import devices
from cifarnet.data.dataset import Split, make_dataset
from cifarnet.data.images.decode import ImageError
from cifarnet.data.sources.synthetic import Identities, make_identities
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    return cifarnet.load("packaged:baseline", device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A picture that has to be resized and turned: 60 x 40, EXIF orientation 6."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[274] = 6
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image.save(path, exif=exif)
    return path


def forms(path):
    """The same picture as people may have it."""
    upright = np.array(Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_270))
    tensor = torch.from_numpy(upright).permute(2, 0, 1)
    return {
        "text": str(path),
        "Path": path,
        "PIL": Image.open(path),
        "array": upright,
        "uint8": tensor,
        "float": tensor.float() / 255,
        "float64": tensor.double() / 255,
    }


@pytest.mark.parametrize("form", ["text", "Path", "PIL", "array", "uint8", "float", "float64"])
def test_every_form_gives_what_the_command_gives(model, photo, cli, form):
    code, out, err = cli("predict", photo, "--checkpoint", model.path, "--device", "cpu", "--top", "10", "--json")
    assert code == 0, err
    (expected,) = json.loads(out)["predictions"]
    found = model.predict(forms(photo)[form])
    assert found.classes == expected["classes"] and found.probabilities == expected["probabilities"]
    assert sum(found.probabilities) == pytest.approx(1) and found.probabilities == sorted(found.probabilities)[::-1]


def test_of_the_models_own_size_a_float_tensor_is_not_rounded(model):
    torch.manual_seed(0)
    images = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.info.mean, model.info.std))
    with torch.inference_mode():
        expected = model.classifier((images - mean) / std)
    torch.testing.assert_close(model.logits(images), expected, rtol=0, atol=0)


def test_several_images_give_a_list(model, photo, tmp_path):
    one = model.predict(photo, top=2)
    assert isinstance(one, cifarnet.Prediction) and len(one.classes) == 2
    shown = forms(photo)
    for batch in ([photo, str(photo)], (shown["array"], shown["uint8"]), shown["uint8"][None], shown["array"][None]):
        found = model.predict(batch, top=2)
        assert [prediction.classes for prediction in found] == [one.classes] * len(batch)
    Image.open(photo).save(tmp_path / "a.png")
    assert [prediction.file for prediction in model.predict(tmp_path)] == [str(tmp_path / "a.png")]
    assert model.predict([]) == [] and model.embed([]).shape == (0, 64) and model.logits([]).shape == (0, 10)
    with pytest.raises(cifarnet.Refused, match="images: there are none"):
        model.features([])


def test_embeddings_logits_and_features(model, photo):
    shown = [photo, photo]
    embeddings, logits, maps = model.embed(shown), model.logits(shown), model.features(photo)
    assert embeddings.shape == (2, 64) and logits.shape == (2, 10)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    assert {values.dtype for values in (embeddings, logits, *maps.values())} == {torch.float32}
    probabilities = model.logits([photo])[0].double().softmax(0)  # a batch of one, as predict's: others round otherwise
    torch.testing.assert_close(logits[0].double().softmax(0), probabilities, atol=1e-5, rtol=0)
    assert model.predict(photo, top=1).probabilities[0] == pytest.approx(probabilities.max().item())
    assert maps["conv1"].shape == (32, 30, 30) and model.features(shown, ["conv1"])["conv1"].shape == (2, 32, 30, 30)
    with pytest.raises(cifarnet.Refused, match="there is no layer 'conv9'; choose from conv1, relu1"):
        model.features(photo, ["conv9"])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.randn(3, 32, 32), r"a float tensor with values from -.* give pixels in \[0, 1\]"),
        (torch.full((3, 32, 32), torch.nan), "values from nan to nan"),
        (255 * torch.rand(3, 32, 32), r"give pixels in \[0, 1\] \(normalisation lives inside\), or uint8"),
        (torch.zeros(3, 32, 32, dtype=torch.int64), "a tensor of torch.int64; give uint8, or float"),
        (torch.zeros(1, 32, 32), r"a tensor \[1, 32, 32\]; give \[3, H, W\]"),
        (np.zeros((3, 32, 32), np.uint8), r"an array of uint8 \[3, 32, 32\]; give uint8 \[H, W, 3\], or a tensor"),
        (np.zeros((32, 32, 3)), "an array of float64"),
        (np.zeros((0, 32, 3), np.uint8), "an image of 0 x 32 pixels; give one that has some"),
        (torch.zeros(3, 4, 0), "an image of 4 x 0 pixels"),
        ([torch.zeros(2, 3, 32, 32)], "a batch stands within a list"),
        (7, "an object of type int is no image; give a path, a PIL image"),
        (None, "an object of type NoneType is no image"),
    ],
)
def test_what_is_no_image_is_told_what_to_give(model, wrong, words):
    for call in (model.predict, model.embed, model.logits, model.features):
        with pytest.raises(cifarnet.Refused, match=words):
            call(wrong)


def test_a_file_that_cannot_be_read(model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"nowhere\.png: there is no such file"):
        model.predict("nowhere.png")
    with pytest.raises(ImageError, match=r"broken\.png: is not an image"):
        model.embed([tmp_path / "broken.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(cifarnet.Refused, match="no image files in it"):
        model.predict(tmp_path / "empty")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:6000])
    with pytest.raises(ImageError, match="the image: is truncated or damaged"):
        model.predict(Image.open(tmp_path / "cut.png"))


def test_fit_evaluate_load(tmp_path, monkeypatch):
    """The three calls, with text for paths, and load() as the command line: runs/latest, else the packaged model."""
    monkeypatch.chdir(tmp_path)
    assert cifarnet.load(device="cpu").config.dataset == "cifar10"
    config = cifarnet.TrainConfig(arch="baseline", loss="adaface", dataset="digits", epochs=1, augment="none")
    run = cifarnet.fit(config, out="runs/x")
    assert run == Path("runs/x") and not list(run.glob("*.png"))
    model = cifarnet.load(device="cpu")
    assert model.config.dataset == "digits" and model.path.resolve() == (tmp_path / "runs/x/last.safetensors")
    scores = cifarnet.evaluate("runs/x")
    assert scores["accuracy"] == json.loads((run / "summary.json").read_text())["test"]["accuracy"]
    with pytest.raises(cifarnet.Refused, match=r"already holds a run; add `resume` .* `overwrite`"):
        cifarnet.fit(config, out="runs/x")
    with pytest.raises(cifarnet.Refused, match=r"config: is of type dict; give a cifarnet.TrainConfig"):
        cifarnet.fit({"arch": "baseline"})
    with pytest.raises(cifarnet.Refused, match="epochs: cannot be '3'; expected int"):
        cifarnet.fit(cifarnet.TrainConfig(epochs="3"))


def small(images=32, train=4, label=1):
    """A data set of noise: 4 images of two classes in each split."""
    generator = torch.Generator().manual_seed(0)
    sides = (3, images, images) if isinstance(images, int) else (3, *images)
    pixels = torch.randint(256, (4, *sides), dtype=torch.uint8, generator=generator)
    split = Split(pixels, torch.tensor([0, 1, 0, label]))
    return make_dataset("noise", ("a", "b"), split.subset(torch.arange(train)), split)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (lambda: (small().train, small().test), "is of type tuple; give a cifarnet.data.Dataset"),
        (tuple, "is of type tuple"),
        (lambda: dataclasses.replace(small(), train="images"), "its train split is of type str"),
        (lambda: small(train=0), "its train split is empty"),
        (lambda: small(label=2), "labels from 0 to 2, and there are 2 classes; give labels from 0 to 1"),
        (lambda: small(label=-1), "labels from -1 to 1"),
        (lambda: small(64), "images are 64 x 64 pixels, and `image_size` is 32; set `image_size`"),
        (lambda: small((32, 40)), "images are 40 x 32 pixels"),
        (lambda: dataclasses.replace(small(), std=(1.0, 0.0, 1.0)), "normalises no image"),
        (lambda: dataclasses.replace(small(), std=(60.0, 61.0, 62.0)), "is not of pixels in"),
        (lambda: dataclasses.replace(small(), mean=(0.5, 0.5)), "is not of pixels in"),
        (lambda: dataclasses.replace(small(), mean=None), "is not of pixels in"),
        (lambda: dataclasses.replace(small(), mean=(0.5, float("nan"), 0.5)), "is not of pixels in"),
        (lambda: dataclasses.replace(small(), classes="ab"), "not two names or more"),
        (lambda: dataclasses.replace(small(), classes=("a", None)), "not two names or more"),
        (lambda: dataclasses.replace(small(), classes=("a", "b\n")), "not two names or more"),
        (lambda: dataclasses.replace(small(), classes=("a",)), "not two names or more"),
        (lambda: dataclasses.replace(small(), classes=("a", "a")), "two of its classes are called a"),
        (lambda: make_identities(Identities(2, 8, 45.0, 0)), "is of features, and the configuration names digits"),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused_before_anything_is_begun(tmp_path, dataset, words):
    config = cifarnet.TrainConfig(arch="baseline", dataset="digits", epochs=1, batch_size=4, device="cpu")
    with pytest.raises(cifarnet.Refused, match=words):
        cifarnet.fit(config, out="run", dataset=dataset())
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_the_configurations_side_is_trained_on():
    config = cifarnet.TrainConfig(arch="resnet18", dataset="digits", epochs=1, batch_size=4, image_size=48)
    run = cifarnet.fit(config, out="run", dataset=small(48))
    assert cifarnet.load(run, device="cpu").classes == ("a", "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp8"}, "precision: 'fp8' is not known; .*choose from auto, fp32, bf16"),
        ({"precision": ""}, "precision: '' is not known"),
        ({"batch_size": 0}, "batch_size: 0 is no whole number of 1 or more; give 1 or more"),
        ({"batch_size": -1}, "batch_size: -1 is no"),
        ({"batch_size": 2.5}, r"batch_size: 2\.5 is no"),
        ({"data_dir": 5}, "data_dir: is of type int; give a path"),
        ({"run": 5}, "run: is of type int; give a path"),
    ],
)
def test_evaluate_refuses_what_it_cannot_compute_by(options, words):
    with pytest.raises(cifarnet.Refused, match=words):
        cifarnet.evaluate(**{"run": "packaged:baseline", "device": "cpu", "dataset": "digits"} | options)


@pytest.mark.parametrize("top", [-1, 0, 1.5, True, "2"])
def test_predict_names_one_class_or_more(model, photo, top):
    with pytest.raises(cifarnet.Refused, match=r"top: .* is no whole number of 1 or more; give 1 or more, or None"):
        model.predict(photo, top=top)
    assert len(model.predict(photo, top=np.int64(2)).classes) == 2


def test_another_default_dtype_of_torch_is_refused_or_changes_nothing(model, photo, tmp_path):
    expected, said = (
        model.predict(photo),
        r"torch's default dtype: is float64, and models are float32; call torch.set_default",
    )
    config = cifarnet.TrainConfig(dataset="digits", arch="baseline", epochs=1, device="cpu")
    torch.set_default_dtype(torch.float64)
    try:
        assert model.predict(photo) == expected
        for begin in (lambda: cifarnet.load("packaged"), lambda: cifarnet.fit(config, out=tmp_path / "run")):
            with pytest.raises(cifarnet.Refused, match=f"^{said}"):
                begin()
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()


def test_one_rate_and_floats_that_numpy_lacks_will_do():
    """Of bfloat16 the numbers are those of the same values in float32; what is printed holds no array."""
    embeddings = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(40) % 10
    one, other = (cifarnet.verification(values, labels, far=0.1) for values in (embeddings, embeddings.float()))
    listed = cifarnet.verification(embeddings, labels, far=[0.1])
    assert one.to_dict() == other.to_dict() == listed.to_dict() and len(one.points) == 1
    half, strangers = labels < 5, labels.numpy()
    first, second = (
        cifarnet.identification(values[half][::2], labels[half][::2], values[1:], strangers[1:], fpir=0.1)
        for values in (embeddings, embeddings.float())
    )
    assert first.to_dict() == second.to_dict() and len(first.points) == 1
    assert "array" not in repr(one) + repr(first) and len(repr(one)) < 600 and len(repr(first)) < 400


def test_heads_and_counts_of_what_is_not_there_are_refused():
    parts = {"class_parallel": ClassParallelOptions()}
    for head, more in ((cifarnet.MarginHead, {}), (ShardedMarginHead, parts)):
        with pytest.raises(cifarnet.Refused, match="backend: 'gpu' is not known; choose from auto, torch, cpu, cuda"):
            head(8, 5, backend="gpu", **more)
        for size in (0, -1, 2.5):
            with pytest.raises(cifarnet.Refused, match=r"in_features: .* is no whole number of 1 or more"):
                head(size, 5, **more)
    with pytest.raises(cifarnet.Refused, match="num_classes: 0 is no whole number of 1 or more"):
        cifarnet.complexity(cifarnet.TrainConfig(), 0)
    with pytest.raises(cifarnet.Refused, match="batch: 0 is no whole number of 1 or more"):
        cifarnet.complexity(cifarnet.TrainConfig(), 10, batch=0)


def test_a_run_is_resumed_under_its_own_configuration(tmp_path, monkeypatch):
    """Also from Python, where no command line reads it from the run."""
    monkeypatch.chdir(tmp_path)
    config = cifarnet.TrainConfig(arch="baseline", loss="arcface", dataset="digits", epochs=1, augment="none")
    run = cifarnet.fit(config, out="run")
    begun = json.loads((run / "config.json").read_text())["precision"]
    with pytest.raises(
        cifarnet.Refused, match=r"resume: the run was started otherwise: `lr` 0.001 -> 0.5, `scale` None -> 30"
    ):
        cifarnet.fit(dataclasses.replace(config, lr=0.5, loss_options={"scale": 30}), out=run, resume=True)
    with pytest.raises(cifarnet.Refused, match="resume: needs the run's folder; name it with `out`"):
        cifarnet.fit(config, resume=True)
    assert not (tmp_path / "runs" / "baseline-arcface-digits-1").exists()
    monkeypatch.setattr(devices, "has_bf16", lambda device: begun != "bf16")
    cifarnet.fit(dataclasses.replace(config, epochs=2), out=run, resume=True)
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2
    assert json.loads((run / "config.json").read_text())["precision"] == begun


def test_importing_is_quick_and_lazy():
    """Without torch; every name is there, and one that is not is answered with those that are."""
    code = "import sys, cifarnet; print('torch' in sys.modules, 'numpy' in sys.modules, cifarnet.__version__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split()[:2] == ["False", "False"]
    assert all(getattr(cifarnet, name) is not None for name in cifarnet.__all__)
    assert dir(cifarnet) == sorted(cifarnet.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'train'; it has .*evaluate, fit, identification, load"):
        cifarnet.train  # noqa: B018


def test_the_page_runs_and_names_everything(tmp_path, monkeypatch):
    """The code of docs/api.md, one block after the other."""
    page = (ROOT / "docs" / "api.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert names["probabilities"].shape == (8, 10) and 0 <= names["scores"]["accuracy"] <= 1
    assert [name for name in cifarnet.__all__ if name not in page] == ["__version__"]


def test_the_notebook_runs(tmp_path):
    """docs/tour.ipynb from top to bottom; the numbers that it shows are those of the machine it was made on."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    client.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == 2 and not [output for output in shown if output["output_type"] == "error"]
    accuracy = next(o["data"]["text/plain"] for o in shown if "accuracy" in o.get("data", {}).get("text/plain", ""))
    assert ast.literal_eval(accuracy)["accuracy"] > 0.7


def test_an_empty_path_is_no_folder(model):
    """As a blank cell of a table is: Path("") is the current folder."""
    for method in (model.predict, model.embed, model.logits, model.features):
        with pytest.raises(cifarnet.Refused, match="images: the path is empty"):
            method("")


def test_a_predictions_file_is_called_as_the_file_is(model, tmp_path):
    """Escaped for a screen, two files would have one name."""
    names = [tmp_path / name for name in ("new\nline.png", "new\\nline.png", os.fsdecode(b"bad\xff.png"))]
    for name in names:
        Image.new("RGB", (32, 32)).save(name)
    assert [found.file for found in model.predict(names)] == [str(name) for name in names]


def test_a_warning_points_at_the_users_line(model, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "notes.py").write_text("")
    with pytest.warns(UserWarning, match=r"left out: 1 \.py") as caught:
        model.predict(tmp_path)
    assert caught[0].filename == __file__
    theirs = str(Path(cifarnet.__file__).parent) + "_study.py"  # a neighbour whose name begins as the package's
    with pytest.warns(UserWarning, match="left out") as caught:
        exec(compile("model.predict(folder)", theirs, "exec"), {"model": model, "folder": tmp_path})
    assert caught[0].filename == theirs
