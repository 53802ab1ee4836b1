"""Galleries in files: what goes in comes back, and a broken one or one of another model is refused."""

import hashlib
import json
import math

import numpy as np
import pytest
from safetensors.numpy import load, save

from cifarnet.analysis.identification.gallery_file import Gallery, check_model, read_gallery, write_gallery
from cifarnet.analysis.identification.rates import Point
from cifarnet.analysis.identification.templates import make_templates
from cifarnet.analysis.verification.stored import read_threshold
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models.classifier import build_model
from cifarnet.models.digest import model_digest, model_digests


def test_a_gallery_goes_into_a_file_and_comes_back(tmp_path):
    random, path = np.random.default_rng(3), tmp_path / "g.safetensors"
    templates = make_templates(
        random.standard_normal((9, 8)), [0, 0, 1, 1, 1, 2, 2, 2, 2], ["a", "ü\udcff", "[/]"], "max"
    )
    points = (Point(0.1, 0.5, 0.09, 0.8, True), Point(0.01, math.inf, 0.0, 0.0, True))
    write_gallery(path, Gallery(templates, "d" * 64, True, 9, points, math.inf))
    found = read_gallery(path)
    assert found.threshold == math.inf
    assert np.array_equal(found.templates.vectors, templates.vectors) and found.templates.names == templates.names
    assert np.array_equal(found.templates.owners, templates.owners) and found.templates.kind == "max"
    assert (found.model, found.flip, found.images, found.points) == ("d" * 64, True, 9, points[:1])
    check_model(path, found, ("d" * 64, "f" * 64), flip=True)
    check_model(path, found, ("f" * 64, "d" * 64), flip=True)
    for digest, flip, why in (("e" * 64, True, "was made by another model"), ("d" * 64, False, "add `flip`")):
        with pytest.raises(Refused, match=why):
            check_model(path, found, (digest, "f" * 64), flip)


@pytest.mark.parametrize("loss", ["uniface", "sphereface2", "ce"])
def test_a_model_is_known_without_its_losss_name(tmp_path, loss):
    """As it was before these losses kept their name in the state dict: thresholds and galleries of then are the model's."""
    model = build_model(TrainConfig(arch="baseline", dataset="digits", loss=loss), 3)
    state = model.state_dict()
    assert ("head.loss" in state) is (loss != "ce")
    digest = hashlib.sha256()
    for name in sorted(state.keys() - {"head.loss"}):
        digest.update(
            f"{name} {state[name].dtype} {tuple(state[name].shape)} ".encode() + state[name].numpy().tobytes()
        )
    now, before = model_digests(model)
    assert before == digest.hexdigest() and now == model_digest(model) and (now == before) is (loss == "ce")
    point = {"far": 0.01, "threshold": 0.5, "fmr": 0.01}
    kept = tmp_path / "verification.json"
    kept.write_text(json.dumps({"model_digest": before, "operating_points": [point]}))
    assert read_threshold(kept, model_digests(model)).threshold == 0.5
    with pytest.raises(Refused, match="those of another model"):
        read_threshold(kept, ("e" * 64, "f" * 64))


def test_a_broken_gallery_is_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    write_gallery(path, Gallery(make_templates(np.eye(3), [0, 1, 2], ["a", "b", "c"]), "d", False, 3))
    data = path.read_bytes()
    tensors, length = load(data), int.from_bytes(data[:8], "little")
    facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["gallery"])
    point = {"asked": 0.1, "threshold": 0.5, "fpir": 0.1, "dir": 0.5, "few": True}

    def made(format_name="cifarnet-gallery-1", **changed):
        given = {**tensors, **{key: value for key, value in changed.items() if key in tensors}}
        texts = {**facts, **{key: value for key, value in changed.items() if key not in tensors}}
        return save(given, {"format": format_name, "gallery": json.dumps(texts)})

    vectors = tensors["templates"]
    wrong = [data[:-1], data + b"x", data[:100], b"", b"PK\x03\x04", made("other"), made(names=["a", "a", "b"])]
    wrong += [made(names=["a", "\u00e9", "e\u0301"])]  # one name in two forms of Unicode
    wrong += [made(names=["a"]), made(names=[1, 2, 3]), made(names=[]), made(template="median"), made(model=3)]
    wrong += [made(templates=vectors * np.nan), made(templates=vectors * 2), made(templates=vectors.astype(np.float64))]
    wrong += [made(owners=np.array([0, 2, 1])), made(owners=np.array([0, 1, 1])), made(owners=np.array([0, 1]))]
    wrong += [made(points=[{**point, "threshold": "x"}]), made(points=[{**point, "more": 1}]), made(points=3)]
    wrong += [made(points=[{**point, "threshold": math.nan}]), save(tensors, {"format": "cifarnet-gallery-1"})]
    wrong += [made(threshold=value) for value in (math.nan, -math.inf, 2, "0.5", [])]
    for number, content in enumerate(wrong):
        path.write_bytes(content)
        with pytest.raises(Refused) as error:
            read_gallery(path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value), number
    path.write_bytes(made(points=[point], threshold=0.75))
    found = read_gallery(path)
    assert found.points == (Point(0.1, 0.5, 0.1, 0.5, True),) and found.threshold == 0.75
    del facts["threshold"]  # as the first files: the threshold of the first rate
    path.write_bytes(made(points=[point]))
    assert read_gallery(path).threshold == 0.5
    with pytest.raises(Refused, match="there is no such file"):
        read_gallery(tmp_path / "gone")
