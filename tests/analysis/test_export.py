"""`cifarnet export`: what onnxruntime and torch.export compute of the file is what the model computes; and the card beside it."""

import io
import json
import logging
import re
import runpy
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cifarnet.analysis.card.facts import facts_of
from cifarnet.analysis.card.text import card
from cifarnet.analysis.export import formats, write
from cifarnet.analysis.export.deployed import Deployed, describe
from cifarnet.analysis.export.parity import compare, outputs_of, scale_of
from cifarnet.analysis.significance import wilson_interval
from cifarnet.cli.common import results
from cifarnet.cli.export_tables import print_export
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import load
from cifarnet.data.images.normalize import normalize
from cifarnet.losses.heads import build_head
from cifarnet.models.calibration import Calibration
from cifarnet.models.checkpoint import load_model, save_model
from cifarnet.models.classifier import Classifier, build_model, build_neck
from cifarnet.models.model_info import ModelInfo
from cifarnet.models.resnet import ResNet
from cifarnet.storage.find_checkpoint import PACKAGED_MODELS

EXAMPLES = Path(__file__).parents[2] / "examples"
CALIBRATION = Calibration(1.7, -3.0, 100, "validation images")


def info_of(config, classes=tuple("abcdefghij"), calibration=CALIBRATION):
    return ModelInfo(config, classes, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), calibration=calibration)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of the digits that is good without a training: random filters, and a head by least squares."""
    digits, config = load("digits"), TrainConfig(arch="baseline", dataset="digits")
    info = ModelInfo(config, digits.classes, digits.mean, digits.std, calibration=CALIBRATION)
    model = build_model(config, 10).eval()
    with torch.no_grad():
        features = model.features(normalize(digits.train.images, info.mean, info.std))
        wanted = 10.0 * F.one_hot(digits.train.labels, 10)
        solved = torch.linalg.lstsq(
            torch.cat([features, torch.ones(len(features), 1)], 1).double(), wanted.double()
        ).solution
        model.head.weight.copy_(solved[:-1].T)
        model.head.bias.copy_(solved[-1])
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    save_model(path, model, info)
    return path


class Heads(nn.Module):
    """All losses' logits of the same features."""

    def __init__(self, heads):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features):
        return tuple(head.logits(features) for head in self.heads)


# One of each way to logits; all losses: scripts/proof/export_parity.py.
KINDS = ("ce", "arcface", "sphereface", "sphereface2", "uniface", "subcenter-arcface", "adacos")


def test_the_logits_of_each_kind_of_head():
    """One graph holds all heads. Of arcface also by hand: s cos(theta)."""
    heads = [build_head(16, 10, loss).eval() for loss in KINDS]
    features = torch.cat([3 * torch.randn(50, 16), torch.zeros(1, 16), 1e-30 * torch.ones(1, 16)])
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.export.export(Heads(heads), (features[:2],), dynamic_shapes=shapes, strict=False)
    with formats.quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=["x"], output_names=KINDS, opset_version=formats.OPSET, verbose=False
        )
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    for head, found in zip(heads, session.run(KINDS, {"x": features.numpy()}), strict=True):
        with torch.no_grad():
            own = head.logits(features)
        limit = 1e-4 * max(1.0, float(own.abs().max()))
        assert np.abs(own.numpy() - found).max() <= limit, head
        if head.options and head.options.loss == "arcface":
            z, w = features[:50].double().numpy(), head.weight.detach().double().numpy()
            cosine = (z @ w.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(w, axis=1)
            assert np.abs(64.0 * cosine - found[:50]).max() <= limit


def test_a_resnet_in_half_precision():
    """A small one, with a neck; all networks and stems: scripts/proof/export_parity.py."""
    config = TrainConfig(arch="resnet18", loss="arcface", embed_dim=16, neck="bn")
    backbone = ResNet("basic", (1, 1))
    model = Classifier(backbone, build_neck("bn", backbone.num_features, 16), build_head(16, 10, "arcface")).eval()
    info, images = info_of(config), load("digits").test.images[:40].permute(0, 2, 3, 1).contiguous().numpy()
    own, about = outputs_of(model, info, images), describe(model, info, "fp16")
    scale = scale_of(model, own.logits)
    program = formats.traced(Deployed(model, info, half=True).eval(), 32)
    run = formats.run_onnx(formats.finished(formats.to_onnx(program), about))
    found = compare(own, run, images, None, info.classes, scale, "fp16")
    assert scale == 64 and 1e-5 < found.logit_difference < 0.5 and found.cosine > 1 - 1e-4, found
    assert [output.shape for output in run(images[:0])] == [(0, 10), (0, 10), (0, 16)]


@pytest.fixture(scope="module")
def exported(checkpoint):
    """That model as an ONNX file; and the graphs behind it, which are made once for all tests."""
    made, path = {}, checkpoint.with_name("digits.onnx")

    def keep(name):
        real = getattr(write, name)
        return lambda *given: made.setdefault(name, real(*given))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("traced", "to_onnx"):
            patch.setattr(write, name, keep(name))
        patch.setattr(write, "finished", lambda proto, about: formats.finished(deepcopy(proto), about))
        done = write.export_model(checkpoint, *load_model(checkpoint), path, "onnx")
    return done.to_dict(), made


@pytest.fixture
def remembered(exported, monkeypatch):
    """Exports take the graphs of `exported`."""
    monkeypatch.setattr(write, "traced", lambda *_: exported[1]["traced"])
    monkeypatch.setattr(write, "to_onnx", lambda *_: deepcopy(exported[1]["to_onnx"]))


def test_the_file_and_what_it_says(checkpoint, exported):
    done, _ = exported
    assert done["checked_on"] == "355 test images of digits" and done["opset"] == 18
    assert done["parity"]["changes"] == 0 and done["parity"]["accuracy"][0] > 0.8
    model = onnx.load(done["file"])
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about == done["metadata"] and json.loads(about["classes"])[3] == "three" and about["temperature"] == "1.7"
    assert [value.name for value in model.graph.output] == ["probabilities", "logits", "embedding"]
    data = Path(done["file"]).read_bytes()
    assert str(Path(write.__file__).parents[3]).encode() not in data  # no folder of this machine

    network, info = load_model(checkpoint)
    images = load("digits").test.images[:7]
    given = {"images": images.permute(0, 2, 3, 1).contiguous().numpy()}
    p, logits, unit = onnxruntime.InferenceSession(data).run(None, given)
    with torch.no_grad():
        features = network.features(normalize(images, info.mean, info.std))
        scores = network.head.logits(features).double().numpy()
    raised = np.exp(scores / 1.7)
    assert np.abs(logits - scores).max() < 1e-4 and np.abs(p - raised / raised.sum(1, keepdims=True)).max() < 1e-5
    assert np.abs(np.linalg.norm(unit, axis=1) - 1).max() < 1e-6
    assert np.abs(unit - (features / features.norm(dim=1, keepdim=True)).numpy()).max() < 1e-6


def test_the_command(cli, checkpoint, remembered, capfd):
    code, out, err = cli("export", checkpoint, "--out", "m8.onnx", "--int8", "--json")
    assert code == 0, err
    done = json.loads(out)
    done["parity"]["changes"] += 12  # more than are listed
    print_export(results(), done)
    assert f"and {done['parity']['changes'] - len(done['parity']['changed'])} images more" in capfd.readouterr().out
    assert done["bytes"] < 200_000 and done["parity"]["agreement"] >= 0.95 and done["metadata"]["precision"] == "int8"
    graph = onnx.load("m8.onnx").graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    weights = [
        onnx.numpy_helper.to_array(one)
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) > 1
    ]
    # 8 bits saturate where there is no VNNI.
    assert weights and max(int(np.abs(one.astype(int)).max()) for one in weights) <= 64
    assert "m8.onnx: ONNX, opset 18, int8" in Path("m8.onnx.md").read_text() and done["card"] == "m8.onnx.md"
    code, out, err = cli("export", checkpoint, "--out", "m8.onnx")
    why = "m8.onnx: is there already; add --overwrite to replace it, or name another file"
    assert code == 2 and err == f"error: {why}\n"

    code, out, err = cli("export", checkpoint, "--format", "torch", "--out", "m.pt2", "--json")
    assert code == 0 and json.loads(out)["parity"]["problems"] == [], err
    extra = {formats.EXTRA_FILE: ""}
    program = torch.export.load("m.pt2", extra_files=extra)
    assert json.loads(extra[formats.EXTRA_FILE]) == json.loads(out)["metadata"]
    assert program.module()(torch.zeros(7, 32, 32, 3, dtype=torch.uint8))[1].shape == (7, 10)
    assert str(Path(write.__file__).parents[3]).encode() not in Path("m.pt2").read_bytes()


@pytest.mark.parametrize("name", PACKAGED_MODELS)
def test_a_packaged_model_becomes_a_pt2_file(name):
    """Its tensors come from a file, and an empty one points behind that file's end."""
    model, info = load_model(PACKAGED_MODELS[name])
    data = formats.to_pt2(formats.traced(Deployed(model, info), 32), {"a": "b"})
    program, images = (
        torch.export.load(io.BytesIO(data)).module(),
        torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8),
    )
    for ours, theirs in zip(program(images), Deployed(model, info)(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_examples_are_predict_and_verify(cli, checkpoint, exported, monkeypatch, capfd):
    """Pictures of other sizes, one transparent, one turned by its EXIF note, one grey of 16 bits. What Pillow does to them is the same."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(noise).resize((170, 90)).save("a.png")
    Image.fromarray(noise[..., :3]).resize((61, 140)).save("b.jpg", exif=turned)
    deep = np.add.outer(np.arange(90) * 400, np.arange(60) * 500).astype(np.uint16)  # 0 to 65,100
    Image.fromarray(deep).save("c.png")
    files = ["c.png", "a.png", "b.jpg"]
    _, out, _ = cli("predict", *files, "--run", checkpoint, "--json")
    own = json.loads(out)["predictions"]
    _, out, _ = cli("verify", *files[:2], "--run", checkpoint, "--json")
    score = json.loads(out)["score"]

    def example(name, model=exported[0]["file"]):
        monkeypatch.setattr(sys, "argv", [name, model, *files])
        capfd.readouterr()
        runpy.run_path(str(EXAMPLES / name))
        return capfd.readouterr().out

    for line, prediction in zip(example("onnx_predict.py").splitlines(), own, strict=True):
        words = line.split()
        assert words[0] == prediction["file"] and words[1::2] == prediction["classes"]
        assert np.abs(np.array(words[2::2], float) - prediction["probabilities"]).max() < 1e-5
    assert abs(float(example("onnx_verify.py")) - score) < 1e-5
    scores = [prediction["unknown_score"] for prediction in own]
    proto = onnx.load(exported[0]["file"])  # with a threshold between the two
    next(entry for entry in proto.metadata_props if entry.key == "unknown_at").value = str(sum(sorted(scores)[:2]) / 2)
    onnx.save(proto, "between.onnx")
    lines = example("onnx_predict.py", "between.onnx").splitlines()
    for line, one, path in zip(lines, scores, files, strict=True):
        strange = line.startswith(f"{path} none of these (score ")
        assert strange == (one == min(scores))
        assert not strange or abs(float(line.split()[-1].rstrip(")")) - one) < 1e-5


def test_a_file_that_computes_something_else_is_not_written(cli, checkpoint, monkeypatch, tmp_path):
    """A wrong mean goes into the file."""
    (tmp_path / "old.pt2").write_bytes(b"mine")
    monkeypatch.setattr(
        write, "Deployed", lambda model, info, half: Deployed(model, replace(info, mean=(0.9, 0.9, 0.9)), half)
    )
    code, out, err = cli("export", checkpoint, "--format", "torch", "--out", "old.pt2", "--overwrite")
    why = "error: old.pt2: is not written: on 355 test images of digits its logits differ by"
    assert code == 1 and out == "" and err.splitlines()[-1].startswith(why)
    assert (tmp_path / "old.pt2").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["old.pt2"]


def test_what_cannot_be_exported(cli, checkpoint, tmp_path, monkeypatch):
    for line, words in (
        (["--int8", "--format", "torch"], "--int8: only ONNX files are quantised; use --format onnx, or --fp16"),
        (
            ["--out", "m.PT2"],
            "m.PT2: is the name of another format than onnx; add --format torch, or name a .onnx file",
        ),
        (["--int8", "--fp16"], "--fp16 and --int8: a file has one precision; choose one"),
        (["--format", "tflite"], "--format: 'tflite' is not known; choose from onnx, torch"),
        (["--data-dir", "nowhere"], "--data-dir: digits is read from no files"),
    ):
        code, out, err = cli("export", checkpoint, *line)
        assert code == 2 and out == "" and err.splitlines()[-1].startswith(f"error: {words}"), err
    config = TrainConfig(arch="identity", dataset="synthetic-identities", loss="arcface", classes=5, dim=8)
    save_model(tmp_path / "f.safetensors", build_model(config, 5), info_of(config))
    code, _, err = cli("export", "f.safetensors")
    assert code == 2 and "takes features, not images" in err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, err = cli("export", checkpoint)
    assert code == 2 and 'pip install "cifarnet[onnx]"' in err and err.count("\n") == 1


def test_a_near_tie_is_told_from_an_error():
    """Two classes within rounding may change places; with a gap they may not."""
    images, labels = np.zeros((3, 2, 2, 3), np.uint8), torch.tensor([0, 0, 1])
    logits = np.array([[1.0, 1.0 - 1e-5], [1.0, 0.0], [0.0, 1.0]])
    unit = np.eye(3)
    own = type("Own", (), {"logits": logits, "probabilities": logits, "embedding": unit})
    turned = logits.copy()
    turned[0] = [1.0 - 1e-5, 1.0]
    found = compare(own, lambda _: (turned, turned, unit), images, labels, ("x", "y"), 1.0, "fp32")
    assert (found.changes, found.near_ties, found.problems) == (1, 1, []) and found.changed[0]["file"] == "y"
    assert found.accuracy == (1.0, 2 / 3)
    turned[1] = [0.0, 1.0]
    found = compare(own, lambda _: (turned, turned, unit), images, labels, ("x", "y"), 1.0, "fp32")
    assert any("1 image for another class" in text for text in found.problems)
    rough = compare(own, lambda _: (turned, turned, unit), images, labels, ("x", "y"), 1.0, "int8")
    assert ["agrees" in rough.problems[0], "its accuracy is 33.33%" in rough.problems[1]] == [True, True]
    broken = compare(own, lambda _: (turned, np.full_like(turned, np.nan), unit), images, None, ("x", "y"), 1.0, "fp32")
    assert broken.problems


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "a|b",
    "[x](javascript:y)",
    "```",
    "---",
    "- a: b",
    '"quote',
    "colon: #no",
    "\u202eevil",
    "ten",
)


def test_the_card_is_one_for_the_hub_and_no_name_is_markup(tmp_path):
    """Read by huggingface_hub's parser; a name reaches neither its YAML nor the Markdown as a mark."""
    from huggingface_hub import ModelCard

    config = TrainConfig(arch="baseline", dataset="cifar10", loss="arcface")
    config = replace(config, loss_options={"scale": "auto", "margin": "auto"}, precision="bf16")
    info = replace(
        info_of(config, HOSTILE),
        metrics={"test_accuracy": 0.5, "data": 'x: "y"\n# z <b> training images from a JPEG copy)'},
        epoch=3,
    )
    facts = replace(
        facts_of(tmp_path / 'a: "b".safetensors', info), command="cifarnet train --out '```\n# x'", images=263
    )
    facts = replace(facts, scores={"accuracy": 81 / 263}, confusion=[[1, 7], [0, 2]])
    text = card(facts)
    read = ModelCard(text)
    data = read.data.to_dict()
    assert (data["license"], data["library_name"], data["datasets"]) == ("unknown", "cifarnet", ["uoft-cs/cifar10"])
    [result] = read.data.eval_results
    assert (result.metric_type, result.dataset_type, round(result.metric_value, 6)) == (
        "accuracy",
        "uoft-cs/cifar10",
        0.307985,
    )
    assert read.data.model_name == 'a: "b"'
    body = read.text
    assert not re.search(r"(?<!\\)<", body) and not re.search(r"(?<!\\)[]]\(", body) and "\u202e" not in body
    assert "| \\<img src=x onerror=alert(1)\\> → a\\|b | 7 | 8 |" in body and "25.53 to 36.62" in body
    assert "263 test images, computed in bf16; " in body and "(scale 12.2, margin 0.1" in body and "at most 1%" in body
    assert body.count("\n````bash\n") == 1 and body.rstrip().endswith("````")  # the name's own fence ends nothing


def test_the_scores_of_other_classes_are_not_said_to_be_of_the_data_set(tmp_path):
    """The hub lists what a card says of a data set beside all others: an accuracy on six classes is none on CIFAR-10, nor is
    one on superclasses an accuracy on CIFAR-100."""
    from huggingface_hub import ModelCard

    for dataset, given, name, kind in (
        ("cifar10", {"hold_out_classes": "cat,frog"}, "cifar10 without cat, frog", "cifar10-6-classes"),
        ("cifar10", {}, "cifar10", "uoft-cs/cifar10"),
        ("cifar100", {"coarse": True}, "superclasses of cifar100", "cifar100-6-classes"),
        (
            "cifar100",
            {"coarse": True, "hold_out_classes": "2"},
            "superclasses of cifar100 without the last 2 classes",
            "cifar100-6-classes",
        ),
        ("cifar100", {}, "cifar100", "uoft-cs/cifar100"),
    ):
        config = TrainConfig(arch="baseline", dataset=dataset, imbalance=10.0, **given)
        said = {"data": "exact"} if dataset == "cifar10" else {}
        info = replace(info_of(config, list("abcdef")), metrics={"test_accuracy": 0.9, **said})
        read = ModelCard(card(facts_of(tmp_path / "alone.safetensors", info))).data
        [result] = read.eval_results
        assert (result.dataset_name, result.dataset_type, read.datasets) == (name, kind, [f"uoft-cs/{dataset}"])


EXACT_STD, COPYS_STD = (0.24703223, 0.24348513, 0.26158784), (0.24523, 0.24278, 0.26063)


@pytest.mark.parametrize(
    ("said", "std", "normalize", "named"),
    [
        ("exact", None, False, True),
        ("CIFAR-10 (21 of 10,000 test and 82 training images from a JPEG copy)", None, False, True),
        ("JPEG copy (not pixel-exact)", EXACT_STD, True, False),
        ("CIFAR-10 (not the published files)", EXACT_STD, True, False),
        (None, EXACT_STD, True, True),  # as a run of the command line keeps it
        (None, (0.24702914, 0.24348440, 0.26158707), True, True),  # 82 of 50,000 from a JPEG copy
        (None, COPYS_STD, True, False),
        (None, EXACT_STD, False, False),  # nothing tells
    ],
)
def test_the_card_names_the_hubs_data_set_of_its_own_pixels_alone(tmp_path, said, std, normalize, named):
    from huggingface_hub import ModelCard

    config = TrainConfig(arch="baseline", dataset="cifar10", normalize=normalize)
    metrics = {"test_accuracy": 0.9} | ({"data": said} if said else {})
    info = replace(info_of(config), metrics=metrics, std=std or (1.0, 1.0, 1.0))
    text = card(facts_of(tmp_path / "alone.safetensors", info))
    read = ModelCard(text).data
    [result] = read.eval_results
    assert (result.dataset_type == "uoft-cs/cifar10") is named and (read.datasets == ["uoft-cs/cifar10"]) is named
    assert ("uoft-cs" in text) is named and ("not known to be the published ones" in text) is not named


@pytest.mark.parametrize("arch", ["resnet18", "plainnet18"])
def test_the_card_names_the_stem_of_every_network_that_has_one(tmp_path, arch):
    info = info_of(TrainConfig(arch=arch, stem="imagenet"), list("0123456789"))
    assert ", stem imagenet; loss ce" in card(facts_of(tmp_path / "alone.safetensors", info))


def test_the_card_says_which_epoch_of_how_many_the_model_is(tmp_path):
    """The best on held-out images, of last.safetensors how far the run came, of a whole run their number."""
    info = info_of(TrainConfig(arch="baseline", dataset="digits", val_fraction=0.1, epochs=3), list("0123456789"))
    (tmp_path / "config.json").write_text(json.dumps({**info.config.to_dict(), "run": {}}))
    for name, epoch, words in (
        ("best.safetensors", 2, "; epoch 2 of 3, the best on held-out images; seed 17."),
        ("best.safetensors.index.json", 3, "; epoch 3 of 3, the best on held-out images; seed 17."),
        ("last.safetensors", 2, "; 2 of 3 epochs; seed 17."),
        ("last.safetensors", 3, "; 3 epochs; seed 17."),
    ):
        assert words in card(facts_of(tmp_path / name, replace(info, epoch=epoch))), name
    # In no run: of what, is not known.
    alone = facts_of(tmp_path / "elsewhere" / "best.safetensors", replace(info, epoch=2))
    assert "; 2 of 3 epochs; seed 17." in card(alone)


def test_wilsons_interval():
    """Newcombe 1998 (Statistics in Medicine 17), table I, method 3."""
    for right, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson_interval(right, count)
        assert abs(found[0] - low) < 5e-5 and abs(found[1] - high) < 5e-5


def test_the_card_of_the_packaged_model(cli, tmp_path):
    from huggingface_hub import ModelCard

    code, out, _ = cli("card")
    read = ModelCard(Path("README.md").read_text())
    assert code == 0 and out == "README.md\n" and read.data.license == "mit"
    assert {one.metric_type: one.metric_value for one in read.data.eval_results}["accuracy"] == 0.941
    code, _, err = cli("card")
    assert code == 2 and "is there already" in err


def test_what_the_exporters_log_is_not_shown(caplog):
    """A Ctrl-C within them is an error that they log at length."""
    with formats.quiet():
        logging.getLogger("torch").error("of its insides")
    logging.getLogger("torch").error("shown")
    assert [record.message for record in caplog.records] == ["shown"]


def test_no_onnx_is_loaded_for_the_other_format():
    formats.check_packages("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(Refused, match="onnxruntime package is not installed"):
            formats.check_packages("onnx")
