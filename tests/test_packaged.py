"""The models that ship in the package."""

import pytest

import cifarnet


@pytest.mark.parametrize(
    ("name", "arch", "least"), [("packaged", "speednet", 0.935), ("packaged:baseline", "baseline", 0.85)]
)
def test_a_packaged_model_is_as_good_as_it_says(name, arch, least, cifar_data):
    """Measured on the test images: another processor may take one image in a thousand otherwise."""
    model = cifarnet.load(name)
    scores = cifarnet.evaluate(model.path, data_dir=cifar_data, device="cpu", precision="fp32")
    assert model.config.arch == arch and model.config.data_dir is None
    assert model.path.stat().st_size <= 4.5e6
    assert scores["accuracy"] >= least
    assert scores["accuracy"] == pytest.approx(model.info.metrics["accuracy"], abs=1e-3)
    assert scores["auroc"] == pytest.approx(model.info.metrics["auroc"], abs=1e-3)
