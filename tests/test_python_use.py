"""What a caller in Python meets beside the command line: own arrays, threads, pools of processes, tensors that were cast."""

import contextlib
import dataclasses
import inspect
import logging
import os
import pickle
import pkgutil
import pydoc
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import nn

import cifarnet
from cifarnet.analysis.cam import class_map
from cifarnet.analysis.export.formats import quiet
from cifarnet.analysis.export.write import export_model
from cifarnet.core import errors
from cifarnet.core.process_wide import ProcessWide
from cifarnet.core.signals import StopRequest
from cifarnet.core.torch_settings import determinism
from cifarnet.data import Split, known_folders, make_dataset
from cifarnet.data import load as load_data
from cifarnet.data.given import check_place
from cifarnet.data.images.open import ImageError
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.engine.rehearsal import rehearse
from cifarnet.losses import LOSSES
from cifarnet.losses.heads import MarginHead, build_head
from cifarnet.models.classifier import build_model
from cifarnet.storage.runs import next_name

PLAIN = {"arch": "baseline", "epochs": 1, "batch_size": 16, "device": "cpu", "augment": "none"}


def of_noise(classes=("a", "b"), images=24):
    """Noise of two classes, 32 x 32."""
    pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(pixels, torch.arange(images) % 2)
    return make_dataset("noise", classes, split, split)


@pytest.mark.parametrize(
    "error",
    [
        cifarnet.Refused("a", "b", "c"),
        cifarnet.Failed("a", "b"),
        errors.Diverged("a", "b"),
        errors.Interrupted(15, Path("runs/x"), 2, 3),
        ImageError("a.png", "b"),
    ],
)
def test_an_error_comes_back_from_another_process_as_it_was(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and (str(back), vars(back)) == (str(error), vars(error))
    assert back.exit_code == error.exit_code


def test_every_error_has_a_text_and_survives_pickling():
    """Those with arguments of their own too; a pool of processes would hang on one that does not."""
    kinds = [cifarnet.CifarnetError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        made = kind.__new__(kind)
        made.args, made.what = ("text",), "thing"
        back = pickle.loads(pickle.dumps(made))
        assert type(back) is kind and (str(back), back.what) == ("text", "thing")


def test_a_notebook_completes_and_shows_what_a_configuration_takes():
    """As Jupyter's completion and its `?` ask for it; each option has its help there, as on the command line."""
    parameters = inspect.signature(cifarnet.TrainConfig).parameters
    items = dataclasses.fields(cifarnet.TrainConfig)
    assert list(parameters) == [item.name for item in items]
    assert parameters["lr"].default == cifarnet.TrainConfig().lr and parameters["epochs"].annotation is int
    text = pydoc.plain(pydoc.render_doc(cifarnet.TrainConfig))
    for item in items:
        assert f"{item.name}: {item.metadata['help']}" in text


def test_everything_that_is_called_names_what_it_takes():
    """`**constants` of the head alone is open: each loss has its own."""
    for name in cifarnet.__all__:
        found = getattr(cifarnet, name)
        if callable(found) and not (isinstance(found, type) and issubclass(found, Exception)):
            open_ones = {one.name for one in inspect.signature(found).parameters.values() if "VAR" in one.kind.name}
            assert open_ones == ({"constants"} if name == "MarginHead" else set()), name


def test_what_a_cell_of_a_notebook_shows_is_one_line_with_its_sizes():
    """Tensors of pixels filled the screen, and a linear head said nothing of itself."""
    found, heads = of_noise(), {loss: repr(build_head(16, 10, loss)) for loss in LOSSES}
    assert repr(found) == "Dataset(noise, 2 classes, 24 train, 24 test)"
    assert repr(found.train) == "Split(24 images, 3 x 32 x 32)"
    assert repr(StreamedSplit(range(1200), torch.arange(1200), 64)) == "StreamedSplit(1,200 images, 3 x 64 x 64)"
    identities = load_data("synthetic-identities", classes=200, dim=8, spread=45.0, seed=17)
    assert repr(identities.train) == "FeatureSplit(2,000 samples of 8 features)"
    assert all("in_features=16, num_classes=10, " in text and "\n" not in text for text in heads.values())
    assert heads["ce"].endswith("label_smoothing=0.0)") and heads["focal"].endswith("gamma=2.0)")
    assert heads["vs"] != heads["la"] and heads["la"].endswith("tau=1.0)")
    assert repr(cifarnet.load("packaged", device="cpu")).startswith("Model(speednet, loss ce, 10 classes, ")


def test_a_prediction_shows_what_a_reader_wants_and_keeps_the_exact_values():
    exact = [0.99999123456789, 7.1e-06, 1.1e-06, 5.6e-07]
    names = ["cat", "dog", "a\nb", "owl"]
    one = cifarnet.Prediction("x.png", names, exact, ["turned upright"], unknown=True, unknown_score=-1.25)
    assert repr(one) == "Prediction(x.png: cat >99.99%, dog <0.01%, a\\nb <0.01%, 1 more, none of these, 1 warning)"
    assert one.probabilities == exact and dataclasses.replace(one) == one
    assert repr(cifarnet.Prediction("", names[:2], [0.3345481973, 0.2788])) == "Prediction(cat 33.45%, dog 27.88%)"
    broken = cifarnet.Prediction("y.png", error="y.png: is empty; give an image")
    assert repr(broken) == "Prediction(y.png: is empty; give an image)"


def test_a_data_set_of_arrays_is_trained_on_measured_and_named_as_python_has_it():
    """numpy's names and numbers too; the run can be loaded, and measured on the same data again."""
    found = of_noise(np.array(["a", "b"]))
    mean, std = np.float32(found.mean), torch.tensor(found.std)
    run = cifarnet.fit(
        cifarnet.TrainConfig(dataset="noise", **PLAIN),
        out="run",
        dataset=dataclasses.replace(found, mean=mean, std=std),
    )
    assert cifarnet.load(run, device="cpu").classes == ("a", "b")
    scores = cifarnet.evaluate(run, dataset=found, device="cpu")
    assert scores["as_in_training"] is True and scores["dataset"] == "noise"
    with pytest.raises(
        cifarnet.Refused, match=r"'noise' is none that cifarnet reads: Python code gave it to the training"
    ):
        cifarnet.evaluate(run)
    numbers = cifarnet.fit(
        cifarnet.TrainConfig(dataset="noise", **PLAIN), out="other", dataset=of_noise(np.array([3, 8]))
    )
    assert cifarnet.load(numbers, device="cpu").classes == ("3", "8")
    with pytest.raises(cifarnet.Refused, match="class 0 is a here and 3 in the model"):
        cifarnet.evaluate(numbers, dataset=found)
    for wrong, words in (
        ({"data_dir": "photos"}, "data_dir: stands beside a data set"),
        ({"dataset": ["a"]}, "dataset: is of"),
    ):
        with pytest.raises(cifarnet.Refused, match=words):
            cifarnet.evaluate(run, **{"dataset": found} | wrong)
    other = dataclasses.replace(found, name="elsewhere", test=of_noise(images=20).test)
    scores = cifarnet.evaluate(run, dataset=other, device="cpu")
    assert scores["as_in_training"] is False and scores["dataset"] == "elsewhere"
    with pytest.raises(TypeError, match="images must be a tensor, not ndarray"):
        Split(np.zeros((2, 3, 32, 32), np.uint8), torch.arange(2))
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    nothing = Split(pixels.to("meta"), torch.arange(2))
    with pytest.raises(ValueError, match="test is on the meta device, which holds no numbers"):
        make_dataset("noise", ("a", "b"), found.train, nothing)
    with pytest.raises(cifarnet.Refused, match="its test split is on the meta device, which holds no numbers"):
        cifarnet.evaluate(run, dataset=dataclasses.replace(found, test=nothing))
    with pytest.raises(
        TypeError, match=r"train must be a cifarnet\.data\.Split, not TensorDataset; .*makes one of uint8"
    ):
        make_dataset("noise", ("a", "b"), torch.utils.data.TensorDataset(pixels, torch.arange(2)), found.test)


def test_a_run_of_arrays_goes_on_with_the_arrays_alone(cli):
    found, config = of_noise(), cifarnet.TrainConfig(dataset="noise", **PLAIN)
    cifarnet.fit(config, out="run", dataset=found)
    more = dataclasses.replace(config, epochs=2)
    with pytest.raises(cifarnet.Refused, match=r"Python code gave it to the training; give it to cifarnet\.fit in Py"):
        cifarnet.fit(more, out="run", resume=True)
    code, _, err = cli("train", "--resume", "--out", "run", "--epochs", "2")
    assert code == 2 and "give it to cifarnet.fit in Python" in err
    cifarnet.fit(more, out="run", resume=True, dataset=found)
    assert cifarnet.load("run", device="cpu").info.epoch == 2


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        (("a/cat/1.png", "a/dog/1.png"), "a", "set `dataset=folder`"),
        (("a/1.png", "a/2.png"), "a", "name the `dataset` that it is"),
        (("a/val/cat/1.png",), "a", "name the `dataset` that it is"),
        (("a.csv",), "a.csv", "set `dataset=csv`"),
        (("train.parquet",), "train.parquet", "set `dataset=parquet`"),
        (("s-00.tar",), "s-00.tar", "set `dataset=webdataset`"),
    ],
)
def test_own_images_are_not_passed_over_for_cifar(tmp_path, files, place, words):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    config = cifarnet.TrainConfig(data_dir=str(tmp_path / place), **PLAIN)
    with pytest.raises(cifarnet.Refused, match=f"other images lie there than CIFAR-10's, and .*{words}, or leave"):
        cifarnet.fit(config, out="run")
    assert not Path("run/config.json").exists()


@pytest.mark.parametrize(
    "name", ["empty/.x", "data/cifar-10-python.tar.gz", "cifar-10-python.tar", "hub/a/b/plain_text/train-0.parquet"]
)
def test_a_place_where_cifar_may_lie_is_looked_at(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    place = tmp_path / name.partition("/")[0]
    check_place(cifarnet.TrainConfig(data_dir=str(place)))
    check_place(cifarnet.TrainConfig(dataset="folder", data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("dataset", "name"), [("uoft-cs/mine", "uoft-cs-mine"), ("../a b", "a-b"), ("", "data"), ("digits", "digits")]
)
def test_a_run_is_named_without_a_folder_in_its_name(dataset, name):
    assert next_name(cifarnet.TrainConfig(dataset=dataset)).as_posix() == f"runs/resnet18-ce-{name}-1"


def test_a_folder_read_by_this_process_is_known_where_nothing_can_be_noted(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(known_folders, "cache_folder", lambda: tmp_path / "file")
    monkeypatch.setattr(known_folders, "_of_this_process", set())
    assert not known_folders.is_known(tmp_path)
    known_folders.remember_folder(tmp_path)
    assert known_folders.is_known(tmp_path) and not known_folders.is_known(tmp_path / "file")


def test_constants_that_cannot_be_met_are_warned_of():
    config = cifarnet.TrainConfig(dataset="noise", loss="cosface", loss_options={"scale": 0.1}, **PLAIN)
    with pytest.warns(UserWarning, match=r"s = 0\.1 is below \d\.\d, the least at which 2 classes"):
        cifarnet.fit(config, out="run", dataset=of_noise())


def test_layers_are_looked_at_beside_other_threads():
    """torch.fx patches every module of the process while it traces."""
    model, image = cifarnet.load("packaged:baseline", device="cpu"), np.zeros((32, 32, 3), np.uint8)
    truth, over, failures, calls = model.features(image), threading.Event(), [], 0
    other = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def meanwhile():
        nonlocal calls
        while not over.is_set():
            try:
                other(torch.zeros(3, 4))
                calls += 1
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: model.features(image), range(20)))
    finally:
        over.set()
        thread.join()
    assert not failures and calls and all(torch.equal(one[name], truth[name]) for one in found for name in truth)


def test_logits_may_be_what_another_network_learns_from():
    model = cifarnet.load("packaged:baseline", device=torch.device("cpu"))
    weight = torch.zeros(2, 10, requires_grad=True)
    (model.logits(np.zeros((2, 32, 32, 3), np.uint8)) * weight).sum().backward()
    assert weight.grad.any()
    for layers in ("conv1", []):
        with pytest.raises(cifarnet.Refused, match=r"layers: (is text, and no list|names none); give a list of names"):
            model.features(np.zeros((32, 32, 3), np.uint8), layers=layers)
    with pytest.raises(cifarnet.Refused, match="run: is empty"):
        cifarnet.load("")


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.angular])
def test_a_cast_or_averaged_state_dict_is_still_that_losss(loss):
    head, same = MarginHead(8, 4, loss), MarginHead(8, 4, loss)
    state = head.state_dict()
    for changed in (
        {name: value.half() for name, value in state.items()},
        {name: 0.9 * value + 0.1 * value for name, value in state.items()},
    ):
        same.load_state_dict(changed)
    other = MarginHead(8, 4, "adaface" if loss != "adaface" else "curricularface")
    if "loss" in state and "loss" in other.state_dict():
        with pytest.raises(RuntimeError, match=f"state is that of {loss}"):
            other.load_state_dict({name: value.double() for name, value in state.items()})


def test_numbers_out_of_arrays_are_constants_and_other_things_are_named():
    head = MarginHead(8, 4, "cosface", scale=np.float32(3), margin=np.float64(0.25))
    assert (head.options.scale, head.options.margin) == (3.0, 0.25) and type(head.options.scale) is float
    for classes in (4.0, "4"):
        with pytest.raises(cifarnet.Refused, match=r"num_classes: .* is no whole number"):
            MarginHead(8, classes)
    with pytest.raises(cifarnet.Refused, match="num_classes: a margin needs at least 2 classes, not 1"):
        build_head(8, 1, "arcface", {"scale": "auto"})
    with pytest.raises(cifarnet.Refused, match="la has no margin head; build_head makes its head"):
        MarginHead(8, 4, "la")
    with pytest.raises(IndexError, match="label 4 of sample 1 is out of range"):
        MarginHead(8, 4, "ldam").count(torch.tensor([0, 4]))


def test_labels_that_are_missing_are_no_identity():
    """NaN of a table's empty cell would pair with every other one as the same person."""
    generator = np.random.default_rng(0)
    vectors, labels = generator.normal(size=(60, 8)), np.arange(60) % 6
    gaps = np.where(np.arange(60) == 7, np.nan, labels)
    named = [one if np.isnan(one) else f"n{one}" for one in gaps.tolist()]  # which numpy makes text of, "nan" too
    dates = np.where(np.isnan(gaps), np.datetime64("NaT"), np.datetime64("2026-01-01") + labels)
    for missing in (gaps, [None if np.isnan(one) else str(one) for one in gaps], named, dates):
        with pytest.raises(cifarnet.Refused, match="labels: 1 label missing, the first in row 7"):
            cifarnet.verification(vectors, missing)
        with pytest.raises(cifarnet.Refused, match="the labels of the gallery: 1 label missing"):
            cifarnet.identification(vectors, missing, vectors, missing)
    found = cifarnet.verification(vectors, labels, far=0.1)
    # Labels as people have them.
    for same in (list(torch.as_tensor(labels)), labels.astype(object), [f"n{one}" for one in labels]):
        assert cifarnet.verification(vectors, same, far=0.1).to_dict() == found.to_dict()
    for factor in (1e300, 1e-300):  # whose squares leave a float's range
        other = cifarnet.verification(vectors * factor, labels, far=0.1)
        assert (other.auc, other.eer) == pytest.approx((found.auc, found.eer))
        wide = cifarnet.identification(vectors * factor, labels, vectors, labels, fpir=())
        assert (wide.cmc == cifarnet.identification(vectors, labels, vectors, labels, fpir=()).cmc).all()
    whole = np.array([[-128, 0], [-128, 1], [0, 127], [1, 127]], dtype=np.int8)  # -128 has no absolute value there
    assert cifarnet.verification(whole, [0, 0, 1, 1], far=0.5).auc == 1
    with pytest.raises(cifarnet.Refused, match="give labels of one kind"):
        cifarnet.identification(vectors, labels.astype(str), vectors, labels.astype(object), fpir=())
    half = slice(None, None, 2)
    one, two = (
        cifarnet.identification(vectors[half], kind(labels[half]), vectors, labels, fpir=()).cmc
        for kind in (lambda values: values, lambda values: values.astype(np.uint8))
    )
    assert (one == two).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"far": None}, "far: None is no rate"),
        ({"far": "0.1"}, r"far: '0\.1' is no rate"),
        ({"bootstrap": 100.0}, r"bootstrap: 100\.0 is no whole number"),
        ({"bootstrap": True}, "bootstrap: True is no whole number"),
    ],
)
def test_what_is_no_rate_or_number_is_named(options, words):
    with pytest.raises(cifarnet.Refused, match=words):
        cifarnet.verification(np.eye(6), [0, 0, 1, 1, 2, 2], **options)
    with pytest.raises(cifarnet.Refused, match="top: 0 is no whole number"):
        cifarnet.identification(np.eye(6), range(6), np.eye(6), range(6), top=0)


def test_rooms_are_found_without_an_import_of_their_own():
    assert cifarnet.losses.LOSSES is LOSSES and cifarnet.data.make_dataset is make_dataset
    assert len(cifarnet.data.load("synthetic-identities", classes=20, dim=8).classes) == 20


@pytest.mark.parametrize(
    "around", [torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)], ids=type
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_python_calls_computes_the_same_within_a_context_of_its_caller(around, precision):
    """Gradients are there in spite of a no_grad, fp32 is fp32 in an autocast, and bf16 has the weights of its own step."""
    data = of_noise()
    config = cifarnet.TrainConfig(dataset="noise", precision=precision, **PLAIN | {"epochs": 2})
    pixels, seen = data.test.images[:8], torch.arange(8) % 2

    def results(name):
        run = cifarnet.fit(config, out=name, dataset=data)
        model = cifarnet.load(run, device="cpu")
        embeddings = model.embed(pixels)
        measured = cifarnet.evaluate(run, dataset=data, device="cpu")
        found = cifarnet.identification(embeddings[:4], seen[:4], embeddings[4:], seen[4:], fpir=())
        models.append(model)
        image = pixels[0] / 255
        return {
            "class map": [class_map(model.classifier, image, 1, "conv1")],
            "costs": [torch.tensor(cifarnet.complexity(config, 2).activation_bytes)],
            "weights": list(model.classifier.state_dict().values()),
            "maps": list(model.features(pixels).values()),
            "embeddings": [embeddings, model.logits(pixels)],
            "probabilities": [torch.tensor(one.probabilities) for one in model.predict(pixels)],
            "scores": [torch.tensor([measured["loss"], measured["auroc"]])],
            "verification": [torch.tensor(cifarnet.verification(embeddings, seen, far=0.1).genuine)],
            "identification": [torch.tensor(found.open_set.mated)],
        }

    models = []
    outside = results("outside")
    with around:
        within = results("within")
    models[1].classifier(pixels / 255).sum().backward()  # what was loaded there may be learned from here
    for name, wanted in outside.items():
        for one, other in zip(wanted, within[name], strict=True):
            assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": {"epochs": 1}}, "config: is of type dict; give a cifarnet.TrainConfig"),
        ({"out": 3}, "out: is of type int; give a path, as text or pathlib.Path"),
        ({"out": ""}, "out: is empty; name a folder, or leave it out"),
        ({"init_from": 3}, "init_from: is of type int; give a path"),
        ({"init_from": ""}, "init_from: is empty; name a"),
        ({"about": "mine"}, "about: is of type str; give a mapping"),
        ({"watcher": print}, "watcher: is of type builtin_function_or_method; give an object of a class that inherits"),
        ({"stop": 15}, "stop: is of type int; give a StopRequest"),
        ({"overwrite": "no"}, "overwrite: is of type str; give True or False"),
    ],
)
def test_an_argument_of_another_type_is_refused_before_anything_is_begun(arguments, said):
    with pytest.raises(cifarnet.Refused) as refused:
        cifarnet.fit(**{"config": cifarnet.TrainConfig(dataset="noise", **PLAIN), "dataset": of_noise(), **arguments})
    assert said in str(refused.value)
    assert not list(Path().iterdir())


def test_a_seed_of_the_callers_stays_on_every_device(monkeypatch):
    """A GPU's generators are not seeded by ours, and the CPU's is what it was."""
    seeded, config = [], cifarnet.TrainConfig(dataset="noise", **PLAIN)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1234)
    wanted, seeded[:] = torch.get_rng_state(), []
    run = cifarnet.fit(config, out="run", dataset=of_noise())
    cifarnet.evaluate(run, dataset=of_noise(), device="cpu")
    cifarnet.load(run, device="cpu")
    cifarnet.complexity(config, 10)
    assert seeded == [] and torch.equal(torch.get_rng_state(), wanted)


EVERY_CALL = """
import pickle, random
import numpy as np
import torch
import cifarnet
from cifarnet.analysis.embedding import METHODS, project
from cifarnet.data import load
from cifarnet.engine.series import fit_seeds

def states():
    return {"random": random.getstate(), "numpy": pickle.dumps(np.random.get_state()), "torch": torch.get_rng_state().tolist()}

def check(name, call):
    before, found, after = states(), call(), states()
    drawn = [kind for kind in before if before[kind] != after[kind]]
    assert not drawn, f"{name} draws from {drawn}"
    return found

units = torch.nn.functional.normalize(torch.eye(40) + 0.1, dim=1)
labels = torch.arange(40) // 4
config = cifarnet.TrainConfig(dataset="digits", arch="baseline", loss="arcface", epochs=1, device="cpu", subset=200)
images = check("load", lambda: load("digits")).test.images[:4]
check("fit", lambda: cifarnet.fit(config, "run"))
check("fit_seeds", lambda: fit_seeds(config, [0], "series"))
check("evaluate", lambda: cifarnet.evaluate("run"))
model = check("load", lambda: cifarnet.load("run"))
for name in ("predict", "embed", "logits", "features"):
    check(name, lambda: getattr(model, name)(images))
check("complexity", lambda: cifarnet.complexity(config, 10))
check("verification", lambda: cifarnet.verification(units, labels, far=(0.1,), bootstrap=100))
gallery, mated = (units[:36:2], labels[:36:2]), (units[1::2], labels[1::2])
check("identification", lambda: cifarnet.identification(*gallery, *mated, fpir=(0.5,)))
for method in METHODS:
    check(method, lambda: project(units, method, metric="cosine", neighbors=5))
head = cifarnet.MarginHead(40, 10, loss="elastic-arcface")  # its weights are the caller's draw, as those of torch.nn are
check("head", lambda: head(units, labels))
"""


def test_no_call_draws_from_a_generator_of_the_callers():
    """Python's, NumPy's and torch's, in a process of its own: the first use of a library is another thing than the second."""
    ended = subprocess.run([sys.executable, "-c", EVERY_CALL], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-1000:]


def test_models_that_are_built_in_two_threads_are_those_of_their_seeds():
    def built(seed):
        return build_model(cifarnet.TrainConfig(arch="resnet18", seed=seed), 10).backbone.state_dict()

    wanted = [built(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            for one, other in zip(pool.map(built, range(2)), wanted, strict=True):
                assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("kind", "within"),
    [("jpg", "cifarnet.data.images.decode.open_picture"), ("tif", "PIL.TiffImagePlugin.TiffImageFile.load")],
)
def test_images_that_are_read_in_two_threads_leave_the_process_as_it_was(monkeypatch, kind, within):
    """Each while the other reads; the second one in is the last one out."""
    Image.effect_noise((40, 40), 90).save(f"a.{kind}")
    model, real = cifarnet.load("packaged:baseline", device="cpu"), pkgutil.resolve_name(within)
    both, first_out, met = threading.Barrier(2), threading.Event(), threading.local()

    def held(*arguments):
        if not hasattr(met, "place"):
            met.place = len(entered)
            entered.append(met.place)
            both.wait(20)
            if met.place:
                first_out.wait(20)
        return real(*arguments)

    entered: list[int] = []
    monkeypatch.setattr(within, held)
    filters, stderr = list(warnings.filters), os.fstat(2).st_ino
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(model.predict, f"a.{kind}")
        while not entered:
            time.sleep(0.001)
        other = pool.submit(model.predict, f"a.{kind}")
        one.result()
        first_out.set()
        other.result()
    assert list(warnings.filters) == filters and os.fstat(2).st_ino == stderr


def test_pillows_settings_of_the_caller_decide_nothing(monkeypatch):
    """With them half a picture would be an image, and a photo too large."""
    Image.effect_noise((300, 300), 90).save("whole.jpg")
    Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:9000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    model = cifarnet.load("packaged:baseline", device="cpu")
    assert model.predict("whole.jpg").probabilities
    with pytest.raises(ImageError, match="truncated"):
        model.predict("cut.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS == 1000


def test_a_setting_of_the_process_is_undone_by_the_last_one_out():
    done = []

    @contextlib.contextmanager
    def setting():
        done.append("made")
        try:
            yield
        finally:
            done.append("undone")

    wide = ProcessWide(setting)
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(wide)
        second.enter_context(wide)
        first.close()
        assert done == ["made"]
    assert done == ["made", "undone"]
    with pytest.raises(ValueError, match="within"), wide:
        raise ValueError("within")
    assert done == ["made", "undone"] * 2


def test_determinism_gives_back_what_the_caller_had():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
            first.enter_context(determinism(True))
            second.enter_context(determinism(True))
            first.close()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_maps_of_a_model_leave_the_choice_of_how_processes_start():
    program = """
import multiprocessing, threading, torch, cifarnet
cifarnet.load("packaged:baseline", device="cpu").features(torch.zeros(3, 32, 32))
multiprocessing.set_start_method("spawn")
print([thread.name for thread in threading.enumerate()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "['MainThread']", done.stderr


def test_another_default_device_of_torch_changes_nothing():
    config = cifarnet.TrainConfig(arch="baseline", dataset="digits", subset=64, epochs=1, device="cpu")
    wanted = cifarnet.evaluate(cifarnet.fit(config, out="one"), device="cpu")["loss"]
    costs = cifarnet.complexity(config, 10)
    with torch.device("meta"):
        assert cifarnet.evaluate(cifarnet.fit(config, out="two"), device="cpu")["loss"] == wanted
        assert cifarnet.complexity(config, 10) == costs


def test_an_export_and_a_rehearsal_within_a_context_of_the_caller():
    config = cifarnet.TrainConfig(arch="baseline", dataset="digits", subset=64, epochs=1, device="cpu")
    run = cifarnet.fit(config, out="run")
    model = cifarnet.load(run, device="cpu")

    def difference(name):
        return export_model(model.path, model.classifier, model.info, Path(name), "torch").parity.logit_difference

    wanted = difference("outside.pt2")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert difference("within.pt2") == wanted < 1e-4
    with torch.inference_mode():
        assert rehearse(config, lambda: load_data("digits")).train_seconds > 0


def test_a_warning_of_a_decorated_function_points_at_the_line_that_called_it(monkeypatch):
    monkeypatch.setattr("cifarnet.engine.fit.norm_warning", lambda run: "something is backwards")
    with pytest.warns(UserWarning, match="backwards") as seen:
        cifarnet.fit(cifarnet.TrainConfig(dataset="noise", **PLAIN), out="run", dataset=of_noise())
    assert [one.filename for one in seen if "backwards" in str(one.message)] == [__file__]


def test_what_exporters_set_is_given_back():
    logging.disable(logging.INFO)
    handlers, places = list(logging.root.handlers), list(sys.path)
    try:
        with quiet():
            logging.root.addHandler(logging.NullHandler())
            sys.path.append("elsewhere")
        assert logging.root.manager.disable == logging.INFO
        assert (logging.root.handlers, sys.path) == (handlers, places)
    finally:
        logging.disable(logging.NOTSET)


def test_a_signal_that_other_code_than_python_handles_is_left_to_it(monkeypatch):
    """Python names no handler then, and could not put it back."""
    real = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else real(number))
    before = real(signal.SIGTERM)
    with StopRequest():
        assert real(signal.SIGTERM) is before and real(signal.SIGINT) is not before
