"""`cifarnet report runs/*`: what is no finished run is named and left out."""

import json
import re
import shutil

import pytest
from PIL import Image
from report_runs import write_run

from cifarnet.analysis.report.results import read_results
from cifarnet.analysis.report.seeds import group
from cifarnet.cli.report import paired_tests
from cifarnet.core.config import TrainConfig


def test_one_run_that_is_not_finished_costs_no_report(cli, tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "runs" / f"seed-{seed}", seed=seed)
    (tmp_path / "runs" / "[b]unfinished").mkdir()
    (tmp_path / "runs" / "[b]unfinished" / "config.json").write_text(json.dumps(TrainConfig().to_dict()))
    (tmp_path / "runs" / "latest").symlink_to("seed-2")
    code, out, err = cli(
        "report", *sorted(path.relative_to(tmp_path) for path in (tmp_path / "runs").iterdir()), "--no-test"
    )
    assert (code, out) == (
        0,
        "2 runs of 1 configuration, 1 left out\n"
        "cifar10: baseline-ce-cifar10 (2 runs), accuracy 50.00%, the same of all 2 seeds\n"
        "report.md\n",
    )
    assert err == (
        "warning: left out: runs/[b]unfinished: has no summary.json: the run has not ended; "
        "finish it with cifarnet train --resume\n"
    )
    text = (tmp_path / "report.md").read_text()
    assert re.findall(r"^\| (seed-\d|latest) \| baseline \| ce \| cifar10 \| (\d) \| 12 of 250 \|", text, re.MULTILINE) == [
        ("seed-1", "1"), ("seed-2", "2"),
    ]  # fmt: skip
    assert "baseline-ce-cifar10 (2 runs)" in text


def test_the_best_of_each_data_set_is_said_with_its_interval(cli, tmp_path):
    """Against textbook numbers: of 50 of 100 Wilson's interval is 40.4% to 59.6%; of 0.6 and 0.7 Student's is cut off at 0 and 1."""
    paths = [write_run(tmp_path / f"ce-{seed}", seed=seed) for seed in (1, 2)]
    paths += [
        write_run(tmp_path / name, loss="arcface", **options) for name, options in (("arc", {}), ("twin", {"lr": 0.1}))
    ]
    paths += [write_run(tmp_path / "digits", dataset="digits")]
    for path, accuracy in zip(paths, (0.6, 0.7, 0.5, 0.65, 0.5), strict=True):
        values = json.loads((path / "summary.json").read_text())
        values["test"]["accuracy"] = accuracy
        (path / "summary.json").write_text(json.dumps(values))

    def lines(*names):
        code, out, _ = cli("report", *names, "--no-test", "--out", "r.md", "--overwrite")
        assert code == 0
        return out.splitlines()

    assert lines("ce-1", "ce-2", "arc", "digits") == [
        "4 runs of 3 configurations",
        "best on cifar10: baseline-ce-cifar10 (2 runs), accuracy 65.00%, 95% interval 1.47% to 100.00% (Student's t, n = 2)",
        "best on digits: digits, accuracy 50.00%, 95% interval 40.38% to 59.62% (Wilson, 100 images)",
        "r.md",
    ]
    assert lines("arc") == [
        "1 run",
        "cifar10: arc, accuracy 50.00%, 95% interval 40.38% to 59.62% (Wilson, 100 images)",
        "r.md",
    ]
    assert lines("ce-1", "ce-2", "twin")[1].startswith(
        "best on cifar10: baseline-ce-cifar10 (2 runs) and 1 more, accuracy 65.00%"
    )
    # Two sets of images under one name are told apart, and none is better than the other.
    for name, digest in (("arc", "a" * 16), ("twin", "b" * 16)):
        values = json.loads((tmp_path / name / "summary.json").read_text())
        (tmp_path / name / "summary.json").write_text(
            json.dumps(values | {"source_digest": digest, "data_digest": digest})
        )
    assert [line.partition(",")[0] for line in lines("arc", "twin")[1:3]] == [
        "best on cifar10 aaaaaaaa: arc", "best on cifar10 bbbbbbbb: twin",
    ]  # fmt: skip


def test_an_error_only_where_none_is_left(cli, tmp_path):
    (tmp_path / "a").mkdir()
    assert cli("report", "a")[0::2] == (
        2,
        "error: a: is no run folder; name a run folder of cifarnet train\n",
    )
    code, out, err = cli("report", "a", "b")
    assert (code, out) == (2, "") and err.count("warning: left out: ") == 2
    assert err.endswith("error: report: none of 2 runs can be reported; see the lines above\n")
    assert not (tmp_path / "report.md").exists()


def test_the_name_of_the_document_is_no_markup(cli, tmp_path):
    write_run(tmp_path / "run")
    name = "r%{}](x) [1]"
    for suffix in ("md", "tex"):
        assert cli("report", "run", "--no-test", "--out", f"{name}.{suffix}")[0] == 0
        (found,) = re.findall(
            r"\(([^()]*)/confusion-1.png\)|detokenize\{(.*?)/confusion-1.png\}",
            (tmp_path / f"{name}.{suffix}").read_text(),
        )
        folder = "".join(found)
        assert re.fullmatch(r"[\w.-]+", folder) and (tmp_path / folder / "confusion-1.png").exists()


def test_scores_of_six_views_are_said_to_be_and_paired_as_they_are(cli, tmp_path):
    """Card, hub metadata, export's card, report and summary say it; McNemar's counts come to the accuracies in the table."""
    line = "train --dataset digits --arch baseline --epochs 2 --lr 3e-3 --device cpu --precision fp32 -q --tta"
    code, out, _ = cli(*line.split(), "--out", "a")
    assert code == 0 and "measured on" in out and "six views of each image (--tta)" in out
    assert cli(*line.split(), "--seed", "5", "--out", "b")[0] == 0
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab"]
    assert [(one["tta"], one["views"]) for one in summaries] == [(True, 6), (True, 6)]

    results = read_results([tmp_path / "a", tmp_path / "b"])[0]
    [(_, _, paired)] = paired_tests(results, None, "cpu")
    assert len(group(results)) == 1
    right = [paired.both + paired.only_first, paired.both + paired.only_second]
    assert [count / 355 for count in right] == pytest.approx([one["test"]["accuracy"] for one in summaries])

    assert cli("report", "a", "--out", "r.md", "--no-test")[0] == 0
    assert "six views of each image averaged (--tta): a." in (tmp_path / "r.md").read_text().replace("\\", "")
    del summaries[0]["tta"]  # of a run of before this was recorded its options tell
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summaries[0]))
    assert cli("card", "a", "--out", "card.md")[0] == 0
    card = (tmp_path / "card.md").read_text()
    assert 'name: "accuracy, the logits of six views of each image averaged (--tta)"' in card
    assert "the exported file look at one view" in card.replace("\\", "")
    del summaries[0]["views"]  # and whether it was measured on two or on six nobody knows
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summaries[0]))
    assert cli("card", "a", "--out", "card.md", "--overwrite")[0] == 0
    assert "accuracy, the logits of several views of each image averaged" in (tmp_path / "card.md").read_text()
    assert cli("report", "a", "b", "--out", "r.md", "--no-test", "--overwrite")[0] == 0
    told = (tmp_path / "r.md").read_text().replace("\\", "")
    assert "several views of each image averaged (--tta): a." in told
    assert "six views of each image averaged (--tta): b." in told
    results = read_results([tmp_path / "a", tmp_path / "b"])[0]
    why = "of how many views of each image the scores of a are was not recorded"
    assert paired_tests(results, None, "cpu") == [("a", "b", why)]
    assert len(group(results)) == 2  # nor are they averaged, though they differ in their seeds alone
    out = cli("runs", ".")[1]
    assert "a: measured on several views" in out and "b: measured on six views" in out
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summaries[0] | {"tta": False}))
    assert cli("card", "a", "--out", "card.md", "--overwrite")[0] == 0
    assert "six views" not in (tmp_path / "card.md").read_text()


def test_data_that_has_moved_is_read_where_data_dir_says(cli, tmp_path):
    """A run and its copy are right on the same images."""
    for number in range(40):
        folder = tmp_path / "own" / ("train", "test")[number % 2] / ("dark", "light")[number // 20]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (6 * number, 6 * number, 6 * number)).save(folder / f"{number}.png")
    line = "train --dataset folder --data-dir own --workers 0 --arch baseline --epochs 1 --batch-size 10 --device cpu"
    assert cli(*line.split(), "--precision", "fp32", "-q", "--out", "a")[0] == 0
    shutil.copytree("a", "b")
    (tmp_path / "own").rename(tmp_path / "moved")
    code, _, err = cli("report", "a", "b", "--data-dir", "moved", "--device", "cpu", "--out", "r.md")
    right = round(20 * json.loads((tmp_path / "a" / "summary.json").read_text())["test"]["accuracy"])
    assert code == 0 and "warning" not in err
    assert f"| a / b | {right} | 0 | 0 | {20 - right} | 1 |" in (tmp_path / "r.md").read_text()
