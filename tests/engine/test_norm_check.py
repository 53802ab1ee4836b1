"""The warning after a training whose loss takes the norm for quality: against numpy, and without a trace in the run."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cifarnet.core.config import TrainConfig
from cifarnet.data import Loader
from cifarnet.engine import norm_check
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher

# On these images its norm works backwards.
BACKWARDS = TrainConfig(
    arch="baseline", dataset="digits", epochs=1, precision="fp32", device="cpu",
    loss="adaface", lr=1e-2, loss_options={"scale": 12.0, "margin": 0.2},
)  # fmt: skip


class Kept(Watcher):
    """Keeps the run and what is warned of."""

    def __init__(self):
        self.warned = []

    def warn(self, message):
        self.warned.append(message)

    def finish(self, run, folder, summary):
        self.run, self.states = run, [torch.get_rng_state(), *run.model.state_dict().values()]
        self.states = [state.clone() for state in self.states]


@pytest.fixture(scope="module")
def watcher(tmp_path_factory):
    watcher = Kept()
    fit(BACKWARDS, tmp_path_factory.mktemp("norms") / "run", watcher=watcher)
    return watcher


def test_the_warning_comes_where_the_correlation_is_negative(watcher):
    run, model = watcher.run, watcher.run.result
    after = [torch.get_rng_state(), *run.model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(watcher.states, after, strict=True))  # nothing has moved
    with torch.no_grad():
        images = (run.train.split.images.double() / 255 - torch.tensor(run.mean)[:, None, None].double()).float()
        features = model.features(images / torch.tensor(run.std)[:, None, None])
        hits = model.head.logits(features).argmax(dim=1) == run.train.split.labels
    expected = np.corrcoef(features.norm(dim=1).double(), hits.double())[0, 1]
    found, count = norm_check.norm_correctness(run)
    assert count == len(run.train.split) and found == pytest.approx(expected, abs=1e-3) and expected < -0.1
    (line,) = watcher.warned
    assert line.startswith("adaface: of 1,442 training images") and f"{expected:.2f}" in line and "`h=0`" in line


def test_no_warning_without_cause(watcher):
    model, split = watcher.run.model, watcher.run.train.split
    few = Loader(split.subset(torch.arange(400)), 400, "cpu", mean=watcher.run.mean, std=watcher.run.std)
    run = replace(watcher.run, train=few)
    kept = copy.deepcopy(model.state_dict())
    assert "`loss=arcface`" in norm_check.norm_warning(changed(run, "magface"))
    assert norm_check.norm_warning(changed(run, "arcface")) is None  # takes no norm for quality
    seen = set()
    for seed in range(4):  # other prototypes, of which other images are taken for their own class
        torch.manual_seed(seed)
        model.head.weight.data.normal_()
        correlation, count = norm_check.norm_correctness(run)
        warned = norm_check.norm_warning(run) is not None
        assert warned == (correlation < -2 / count**0.5), correlation
        seen.add(warned)
    assert seen == {True, False}
    for value in (0.0, torch.nan):  # all norms are the same, or none is a number
        for parameter in model.backbone.parameters():
            parameter.data[:] = value
        assert np.isnan(norm_check.norm_correctness(run)[0]) and norm_check.norm_warning(run) is None
    run.model = copy.deepcopy(model).to("meta")
    with pytest.raises(RuntimeError):  # as where memory runs out
        norm_check.norm_correctness(run)
    assert norm_check.norm_warning(run) is None  # a run that is finished stays so
    model.load_state_dict(kept)


def changed(run, loss):
    return replace(run, config=replace(run.config, loss=loss))
