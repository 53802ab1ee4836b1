"""`cifarnet quality` and `visualize quality`: what comes out, and one line for what is wrong."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from cifarnet.cli import run
from cifarnet.data import load

TRAIN = "train --dataset digits --arch baseline --epochs 1 --loss ce --device cpu --precision fp32 -q --out"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / "run"
    assert run([*TRAIN.split(), str(folder)]) == 0
    return folder


def test_tables_files_and_one_json_document(made, cli):
    line = ["quality", made, "--far", "0.01", "--degrade", "Resize", "--samples", "30", "--device", "cpu"]
    code, out, err = cli(*line, "--csv", "q.csv", "--figure", "q.png")
    assert (
        code == 0 and "355 images, 6,126 genuine and 56,709 impostor pairs" in out and "On these images the norm" in out
    )
    assert "max-cosine" in out and "best possible" in out and "resize" in out and "q.png" in out
    assert "ce has no prototypes on a sphere; max-cosine and margin are cosines to the rows of W" in err
    code, out, _ = cli(*line, "--json", "--scores", "NORM,max_cosine")
    document = json.loads(out)
    rows = list(csv.DictReader(Path("q.csv").read_text().splitlines()))
    assert [row["score"] for row in rows] == ["norm", "max-cosine", "margin", "entropy"]
    for row in rows[:2]:
        score = document["scores"][row["score"]]
        assert float(row["pauc_0.2"]) == score["pauc"]["0.2"]
        assert float(row["rho_resize"]) == document["degradations"]["resize"]["scores"][row["score"]]["rho"]
    assert set(document["scores"]) == {"norm", "max-cosine"} and document["degraded_images"] == 30
    assert Image.open("q.png").size[0] > 1000
    code, out, _ = cli("visualize", "quality", made, "--far", "0.01", "--degrade", "none", "--data-out", "n.json")
    assert code == 0 and out.strip().endswith("quality.png")
    drawn = json.loads(Path("n.json").read_text())["error_against_discard"]
    assert drawn["scores"]["norm"] == document["curve"]["scores"]["norm"] and len(drawn["best"]) == 100


def test_the_training_split_is_measured_where_it_is_asked_for(made, cli):
    line = ["--split", "train", "--scores", "norm", "--degrade", "none", "--far", "0.01", "--device", "cpu", "--json"]
    code, out, _ = cli("quality", made, *line)
    document = json.loads(out)
    assert code == 0 and document["images"] == len(load("digits").train.labels)
    assert document["measured_on"] == "digits train, 10 seen classes"


def test_wrong_input_is_one_line(made, cli):
    for words, message in (
        ("--scores brightness", "--scores: 'brightness' is not known; choose from norm, max-cosine"),
        ("--scores ,", "--scores: none is named"),
        ("--scores nrom", "did you mean norm?"),
        ("--degrade fog", "--degrade: 'fog' is not known; choose from blur"),
        ("--degrade none,blur", "--degrade: names none, and others"),
        ("--far 0.7", "--far: 0.7 is out of range; give a finite number above 0 and at most 0.5"),
        ("--far 1e-6", "--far: 1e-06 is less than one of 56,709 impostor pairs; give at least 1.8e-05"),
        ("--classes unseen", "--classes: the run held no classes out"),
        ("--split val", "--split: the run held no validation images out"),
        ("--figure x.gif", "'.gif' is no format"),
    ):
        for command in ("quality",) if "--figure" in words else ("quality", "visualize quality"):
            code, out, err = cli(*command.split(), made, *words.split())
            errors = [line for line in err.splitlines() if line.startswith("error: ")]
            assert code == 2 and out == "" and len(errors) == 1 and message in errors[0], (command, err)
    code, _, err = cli("quality")
    assert code == 2 and err.startswith("error: runs: there is no run yet")
