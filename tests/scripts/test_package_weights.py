"""The weights that ship: what the script writes is what it measured, in half the bytes, without local paths."""

import json

import pytest

import cifarnet
from cifarnet.core.errors import Refused
from cifarnet.models.checkpoint import load_model
from scripts.study.package_weights import facts, package


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A training leaves runs/latest where it is started."""
    monkeypatch.chdir(tmp_path)


def trained(folder, **values):
    return cifarnet.fit(cifarnet.TrainConfig(arch="baseline", dataset="digits", epochs=2, **values), folder)


def test_the_shipped_file_has_the_metrics_that_it_reaches(tmp_path):
    run, target = trained(tmp_path / "run", val_fraction=0.2), tmp_path / "shipped.safetensors"
    metrics = package(run, target, None)
    model, info = load_model(target)
    assert info.metrics == metrics and info.config.data_dir is None and info.calibration is not None
    assert cifarnet.evaluate(target, precision="fp32")["accuracy"] == metrics["accuracy"]
    told = json.loads(json.dumps(facts(run, target, metrics)))
    assert told["epochs"] == len(told["history"]) == 2 and told["config"]["data_dir"] is None and told["seconds"] > 0
    best = load_model(run / "best.safetensors")[0]
    assert target.stat().st_size < 0.6 * (run / "best.safetensors").stat().st_size
    assert (model.head.weight - best.head.weight).abs().max() < 2**-10 * best.head.weight.abs().max()


def test_a_run_without_a_model_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(Refused, match="no checkpoint"):
        package(tmp_path / "run", tmp_path / "shipped.safetensors", None)
