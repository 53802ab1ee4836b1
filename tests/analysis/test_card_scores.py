"""The card of a checkpoint has that checkpoint's scores, whichever of its run's the summary is of."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cifarnet.engine import validate

TRAIN = "train --dataset digits --arch baseline --epochs 2 --lr 3e-3 --val-fraction 0.2 --device cpu --precision fp32"


def test_best_and_last_have_their_own_accuracy(cli, monkeypatch):
    """As `cifarnet eval` measures it; the first epoch is made the best."""
    evaluate_on, held_out = validate.evaluate_on, iter((0.9, 0.1))

    def measured(run, name, *more):
        scores = evaluate_on(run, name, *more)
        return replace(scores, accuracy=next(held_out)) if name == "validation" else scores

    monkeypatch.setattr(validate, "evaluate_on", measured)
    assert cli(*TRAIN.split(), "-q", "--out", "run")[0] == 0
    found, expected = {}, {}
    for name in ("best", "last"):
        code, out, _ = cli("eval", f"run/{name}.safetensors", "--device", "cpu", "--json")
        expected[name] = pytest.approx(json.loads(out)["accuracy"], abs=1e-6)
        assert code == 0 and cli("card", f"run/{name}.safetensors", "--out", f"{name}.md")[0] == 0
        results = ModelCard(Path(f"{name}.md").read_text()).data.eval_results
        found[name] = next(one.metric_value for one in results if one.metric_type == "accuracy")
    assert found == expected and found["best"] != expected["last"]
