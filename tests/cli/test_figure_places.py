"""A run's folder holds the figures and thresholds of its own images: those of another split or another set do not replace them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifarnet.cli import run
from cifarnet.data import load

TRAIN = "train --dataset folder --arch baseline --epochs 1 --batch-size 20 --augment none --workers 0 --device cpu -q"
NAMES = {
    "eval": "confusion.png",
    "visualize confusion": "confusion.png",
    "visualize umap --method pca": "pca.png",
    "visualize scores --far 0.1": "scores.png",
    "visualize det": "det.png",
    "visualize quality --far 0.1 --scores norm --degrade none": "quality.png",
    "visualize cmc": "cmc.png",
    "explore --maps pca": "explore.html",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run on an image folder, `own`, and another folder of the same classes, `other`, its images as negatives."""
    home = tmp_path_factory.mktemp("places")
    for split, part in (("train", load("digits").train), ("test", load("digits").test)):
        for label in range(10):
            for number in (part.labels == label).nonzero().flatten()[:8].tolist():
                picture = part.images[number].permute(1, 2, 0)
                for name, pixels in (("own", picture), ("other", 255 - picture)):
                    file = home / name / split / f"d{label}" / f"{number}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        assert run([*TRAIN.split(), "--data-dir", "own", "--out", "run"]) == 0
    return home


@pytest.mark.parametrize("command", NAMES)
def test_each_split_has_its_figure_and_another_set_leaves_the_runs_own(cli, home, command):
    own = home / "run" / NAMES[command]
    line = [*command.split(), home / "run", "--data-dir"]
    assert cli(*line, home / "own")[0] == 0
    drawn = own.read_bytes()
    assert cli(*line, home / "own", "--split", "train")[0] == 0
    assert own.read_bytes() == drawn and own.with_stem(f"{own.stem}-train").read_bytes() != drawn
    code, out, _ = cli(*line, home / "other")
    assert code == 0 and own.name in out.split()  # in the current folder, which is not the run's
    assert own.read_bytes() == drawn and Path(own.name).read_bytes() != drawn


def test_another_set_leaves_the_runs_thresholds(cli, home):
    kept, line = home / "run" / "verification.json", ["verify", home / "run", "--bootstrap", "0", "--far", "0.1"]
    assert cli(*line, "--data-dir", home / "own")[0] == 0
    own = kept.read_bytes()
    code, _, err = cli(*line, "--data-dir", home / "other")
    assert code == 0 and kept.read_bytes() == own
    assert f"note: {kept} keeps the thresholds of folder test, 10 seen classes; --overwrite" in err
    assert cli(*line, "--data-dir", home / "other", "--overwrite")[0] == 0
    assert json.loads(kept.read_text())["measured_on"] == "folder test (not the run's images), 10 seen classes"
