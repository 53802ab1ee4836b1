"""Checkpoints: what goes in comes out, and nothing hostile or half written gets in."""

import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from cifarnet import __version__
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Failed, Refused
from cifarnet.models.calibration import Calibration
from cifarnet.models.checkpoint import load_model, save_halved, save_model
from cifarnet.models.classifier import build_model
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.atomic import sweep_temporaries, write_file
from cifarnet.storage.safetensors_header import read_header

CLASSES = tuple("abcdefghij")


def info(**config):
    return ModelInfo(TrainConfig(arch="baseline", **config), CLASSES, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), epoch=3)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, build_model(info().config, 10), info())
    return path


def header_of(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path, header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


@pytest.mark.parametrize("loss", ["ce", "adaface", "sphereface"])
def test_round_trip_of_a_channels_last_model(tmp_path, loss):
    config = TrainConfig(arch="resnet18", loss=loss)
    model = build_model(config, 10).to(memory_format=torch.channels_last).train()
    model.head(model.features(torch.randn(4, 3, 32, 32)), torch.arange(4))
    path = tmp_path / "m.safetensors"
    save_model(
        path, model, ModelInfo(config, CLASSES, (0.5,) * 3, (0.2,) * 3, metrics={"accuracy": 0.5}, backend="torch")
    )
    loaded, found = load_model(path)
    assert found.config == config and found.classes == CLASSES and found.metrics == {"accuracy": 0.5}
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(images), loaded(images))


def test_what_a_checkpoint_says_comes_back(tmp_path):
    said = ModelInfo(
        TrainConfig(arch="baseline"), CLASSES, (0.5, 0.4, 0.3), (0.2, 0.25, 0.1), epoch=3,
        metrics={"accuracy": 0.5}, data="{}", versions={"torch": "2"},
        calibration=Calibration(1.5, -2.0, 100, "held out"),
    )  # fmt: skip
    save_model(tmp_path / "model.safetensors", build_model(said.config, 10), said)
    assert load_model(tmp_path / "model.safetensors")[1] == said


def test_other_tools_read_it(saved):
    assert load_file(saved)["head.weight"].shape == (10, 64)


def refused(path, words):
    with pytest.raises(Refused, match=words) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 2000, -1])
def test_truncated(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    refused(saved, "safetensors|broken")


def test_trailing_bytes(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    refused(saved, "is broken")


@pytest.mark.parametrize("length", [2**63, 10**8 - 1, 2**64 - 1])
def test_huge_header_length(saved, length):
    header, body = header_of(saved)
    with_header(saved, header, body, length)
    refused(saved, "is not a safetensors file")


def test_broken_headers(saved):
    header, body = header_of(saved)
    for text in (b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 50_000):
        with_header(saved, text, body)
        refused(saved, "header is broken")
    twice = json.dumps(header)[:-1].encode() + b', "head.bias": {"dtype":"F32","shape":[10],"data_offsets":[0,40]}}'
    with_header(saved, twice, body)
    refused(saved, "a key stands twice")


def test_overlapping_offsets(saved):
    header, body = header_of(saved)
    header["head.bias"]["data_offsets"] = header["backbone.conv1.bias"]["data_offsets"]
    with_header(saved, header, body)
    refused(saved, "is broken")


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pkl", "renamed.safetensors"])
def test_pickles_are_never_loaded(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = tmp_path / name
    for write in (lambda: torch.save({"x": Bomb()}, path), lambda: path.write_bytes(pickle.dumps(Bomb()))):
        write()
        refused(path, "pickle")


@pytest.mark.parametrize("length", [640, 1152, 65536 + 640])
def test_a_header_that_begins_as_a_pickle_is_read(tmp_path, length):
    """The header's length comes first in the file: of these the low bytes are a pickle's first two, 80 02 and 80 04."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"__metadata__": {"format": "ours"}}'.ljust(length))
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04") and read_header(path)["__metadata__"] == {
        "format": "ours"
    }


def rewrite(path, change_info=None, tensors=None):
    """The file again with other metadata or tensors, well-formed."""
    header, _ = header_of(path)
    metadata = header["__metadata__"]
    if change_info:
        values = json.loads(metadata["info"])
        change_info(values)
        metadata["info"] = json.dumps(values)
    path.write_bytes(save(tensors or load_file(path), metadata))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("mean"), "it needs"),
        (lambda v: v.update(std=[0.1, 0.1]), "three numbers"),
        (lambda v: v.update(std=[0.1, 0.1, 0.0]), "three numbers"),
        (lambda v: v.update(classes=["a"]), "2 names"),
        (lambda v: v.update(classes=[1, 2]), "2 names"),
        (lambda v: v["classes"].__setitem__(3, "\x1b[2J"), "without control characters"),
        (lambda v: v.update(classes=list("abc")), "head.bias is .10,. torch.float32, not .3,."),
        (lambda v: v["config"].update(arch="resnet18"), "lacks backbone.stem.0.weight.* has unknown"),
        (lambda v: v["config"].update(arch="../../etc"), "is not known"),
        (lambda v: v["config"].update(lr="x"), "lr cannot be"),
        (lambda v: v["config"].update(embed_dim=10**12), "out of range"),
        (lambda v: v.update(config=[]), "it needs"),
        (
            lambda v: (v["config"].update(new_option=1), v["versions"].update(cifarnet="9.1")),
            f"l.safetensors: was written by cifarnet 9.1 with the option 'new_option', which this version, {__version__}, "
            "does not know; update cifarnet$",
        ),
        (
            lambda v: (v["config"].update(new_option=1), v.update(versions={})),
            "was written by a later cifarnet with the",
        ),
    ],
)
def test_metadata_is_checked_before_use(saved, change, words):
    rewrite(saved, change)
    refused(saved, words)


def test_sizes_in_metadata_do_not_allocate(saved):
    """A file of 0.5 MB that claims 10^5 x 10^5 weights (40 GB) is refused within 2 GB of address space beyond today's."""

    def claim(values):
        values["config"]["embed_dim"] = 10**5
        values["classes"] = [str(i) for i in range(10**5)]

    rewrite(saved, claim)
    code = f"""
import resource, sys
from cifarnet.models.checkpoint import load_model
from cifarnet.core.errors import Refused
size = int(open('/proc/self/statm').read().split()[0]) * {resource.getpagesize()}
resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 10**9,) * 2)
from pathlib import Path
try:
    load_model(Path({str(saved)!r}))
except Refused:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 7


def test_no_metadata_is_never_guessed(saved):
    save_file(load_file(saved), saved)
    refused(saved, "no cifarnet metadata")


def test_weights_that_are_not_finite(saved):
    tensors = load_file(saved)
    tensors["head.bias"][3] = float("nan")
    rewrite(saved, tensors=tensors)
    refused(saved, "head.bias holds values that are not finite")


def test_missing_and_folder(tmp_path):
    refused(tmp_path / "none.safetensors", "no such file")
    refused(tmp_path, "it is a folder, not a plain file")


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A real limit on the file size, as a full disk: the write fails, the old content stays, no temporary is left."""
    path = tmp_path / "file"
    write_file(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(Failed, match="cannot be written"):
            write_file(path, bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_orphans_are_swept(tmp_path):
    (tmp_path / ".cifarnet-0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "mine.tmp").write_bytes(b"keep")
    sweep_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["mine.tmp"]


def test_halved_filters_come_back_in_fp32_and_norms_to_the_bit(tmp_path):
    config = TrainConfig(arch="speednet", loss="ce")
    model = build_model(config, 10).eval()
    path = tmp_path / "half.safetensors"
    save_halved(path, model, ModelInfo(config, CLASSES, (0.5,) * 3, (0.2,) * 3))
    assert path.stat().st_size < 2.02 * sum(parameter.numel() for parameter in model.parameters())
    loaded = load_model(path)[0].state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.dim() > 1 else tensor
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], expected), name


def test_fp16_is_taken_for_filters_alone(saved):
    tensors = load_file(saved)
    vector = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim() == 1)
    header, _ = header_of(saved)
    save_file(tensors | {vector: tensors[vector].half()}, saved, header["__metadata__"])
    with pytest.raises(Refused, match=r"torch\.float16, not"):
        load_model(saved)
