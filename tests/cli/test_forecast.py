"""How long a training takes: in words, once, and only where it is hopeless."""

import json
import os

import pytest

from cifarnet.cli.forecast import Forecast, about
from cifarnet.core.config import TrainConfig

LINE = "train --dataset digits --arch baseline --epochs 3 --batch-size 128 --device cpu --dry-run"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.3, "less than a second"), (1, "about 1 second"), (41.4, "about 41 seconds"), (150, "about 2 minutes"),
        (7000, "about 117 minutes"), (7300, "about 2 hours"), (6.2 * 86400, "about 6 days"), (4e7, "about 463 days"),
    ],
)  # fmt: skip
def test_a_length_of_time_in_words(seconds, text):
    assert about(seconds) == text


class Run:
    """As much of a TrainState as a forecast looks at: 100,000 steps on a CPU."""

    def __init__(self, device="cpu", **options):
        import torch

        self.device, self.step = torch.device(device), 0
        self.config = TrainConfig(arch="resnet50", loss="adaface", epochs=250, **options)

    @property
    def work(self):
        return self.step, 100_000


def said(run, seconds_a_step):
    forecast, lines = Forecast(), []
    for step in range(1, 60):
        run.step = step
        lines.append(forecast.line(run, 1000 + step * seconds_a_step))
    return [line for line in lines if line]


def test_a_hopeless_training_is_said_once_with_what_takes_less():
    """5.2 s a step are 6 days; the 12 epochs of `quick` are 12/250 of that, 6.9 hours."""
    assert said(Run(), 5.2) == ["this training takes about 6 days on this CPU; `recipe=quick` needs about 7 hours"]


def test_nothing_is_said_of_a_training_of_hours_or_on_a_gpu():
    assert said(Run(), 0.5) == [] and said(Run("cuda"), 5.2) == []


def test_a_dry_run_says_what_would_be_and_writes_nothing(cli, tmp_path):
    code, out, err = cli(*LINE.split())
    assert code == 0 and sorted(os.listdir(tmp_path)) in ([], ["cache"])
    assert "baseline, 122,570 parameters" in err and "digits: 1,442 train, 355 test" in err
    assert "an epoch takes" in out and "all 3" in out and "runs/baseline-ce-digits-1" in out
    code, out, err = cli(*LINE.split(), "--json", "--out", "mine")
    found = json.loads(out)
    assert code == 0 and found["run"] == "mine" and found["train_images"] == 1442 and not (tmp_path / "mine").exists()
    assert 0 < found["epoch_seconds"] * 2 < found["seconds"] * 1.01
    # 122,570 parameters and the BatchNorm buffers, twice the model (checkpoint, state) and AdamW's two moments, in fp32
    assert found["bytes"] == pytest.approx(4 * 122_570 * 4, rel=0.05)


def test_a_dry_run_refuses_what_a_run_refuses(cli, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    for more, word in ((["--out", "mine"], "no run of cifarnet"), (["--mixup", "0.2", "--loss", "arcface"], "--mixup")):
        code, out, err = cli(*LINE.split(), *more)
        assert code == 2 and out == "" and word in err
