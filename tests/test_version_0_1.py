"""Files of version 0.1 (commit 52f8419), whose losses' constants were fields of the configuration, load for ever."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cifarnet
from cifarnet.data import load

KEPT = Path(__file__).parent / "kept" / "v0.1"


def test_a_checkpoint_gives_the_logits_of_version_0_1():
    """The first four test digits; a torch of the day may differ in the last digits."""
    model = cifarnet.load(KEPT / "digits.safetensors", device="cpu")
    expected = torch.tensor(json.loads((KEPT / "digits.json").read_text())["logits"])
    torch.testing.assert_close(model.logits(load("digits").test.images[:4]), expected, rtol=1e-5, atol=1e-5)
    assert model.config.loss_options == {"scale": "auto", "margin": 0.2, "easy_margin": True}
    options = model.classifier.head.options
    assert (options.scale, options.margin, options["easy_margin"]) == (12.2, 0.2, True)


def test_a_run_folder_is_resumed_and_measured(cli, tmp_path):
    """Two epochs of AdaFace on made-up identities: one more is trained, from the optimizer and the norms as they were."""
    folder = Path(shutil.copytree(KEPT / "run", tmp_path / "run"))
    code, out, err = cli("eval", folder, "--json")
    assert code == 0, err
    assert json.loads(out)["accuracy"] == json.loads((folder / "summary.json").read_text())["test"]["accuracy"]
    code, _, err = cli("train", "--resume", "--out", folder, "--epochs", 3, "--t-alpha", 0.02)
    assert code == 0 and "does not say what data it began with" in err, err
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    config = json.loads((folder / "config.json").read_text())
    assert config["loss_options"] == {"scale": 20.0, "t_alpha": 0.02} and "t_alpha" not in config


def test_its_configuration_is_one(cli, tmp_path):
    code, _, err = cli("train", "--config", KEPT / "run" / "config.json", "--epochs", 1, "--out", tmp_path / "again")
    assert code == 0, err
    assert json.loads((tmp_path / "again" / "config.json").read_text())["loss_options"] == {
        "scale": 20.0,
        "t_alpha": 0.02,
    }


def test_another_constant_is_another_run(cli, tmp_path):
    folder = Path(shutil.copytree(KEPT / "run", tmp_path / "run"))
    code, _, err = cli("train", "--resume", "--out", folder, "--scale", 30)
    assert code == 2 and "--scale 20.0 -> 30.0" in err


@pytest.mark.parametrize("name", ["digits.safetensors", "run/last.safetensors", "run/state.safetensors"])
def test_the_kept_files_are_as_they_were(name):
    """Nothing here writes to them."""
    assert b"loss_options" not in (KEPT / name).read_bytes()
