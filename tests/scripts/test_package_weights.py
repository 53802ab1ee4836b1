"""The weights that ship: what the script writes is what it measured, in half the bytes, without local paths."""

import pytest

import cifarnet
from cifarnet.core.errors import Refused
from cifarnet.models.checkpoint import load_model
from scripts.study.package_weights import package


def trained(folder, **values):
    return cifarnet.fit(cifarnet.TrainConfig(arch="baseline", dataset="digits", epochs=2, **values), folder)


def test_the_shipped_file_has_the_metrics_that_it_reaches(tmp_path):
    run, target = trained(tmp_path / "run", val_fraction=0.2), tmp_path / "shipped.safetensors"
    metrics = package(run, target, None)
    model, info = load_model(target)
    assert info.metrics == metrics and info.config.data_dir is None and info.calibration is not None
    assert cifarnet.evaluate(target, precision="fp32")["accuracy"] == metrics["accuracy"]
    best = load_model(run / "best.safetensors")[0]
    assert target.stat().st_size < 0.6 * (run / "best.safetensors").stat().st_size
    assert (model.head.weight - best.head.weight).abs().max() < 2**-10 * best.head.weight.abs().max()


def test_a_model_without_calibration_does_not_ship(tmp_path):
    run = trained(tmp_path / "run")
    with pytest.raises(Refused, match="not calibrated"):
        package(run, tmp_path / "shipped.safetensors", None)
    assert not (tmp_path / "shipped.safetensors").exists()
