"""Which runs a report takes, which of them are seeds of one cell, and what it says of each."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from report_runs import result, write_run
from scipy.stats import ttest_rel

from cifarnet.analysis.report.beside_tables import signed
from cifarnet.analysis.report.document import Paragraph, Table
from cifarnet.analysis.report.results import read_results
from cifarnet.analysis.report.seeds import group, paired_seeds, unpaired_seeds
from cifarnet.analysis.report.tables import build, seeds_table
from cifarnet.analysis.significance import student_interval
from cifarnet.core.config import TrainConfig


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.5}, "lr 0.5"),
        ({"epochs": 99}, "epochs 99"),
        ({"augment": "none"}, "augment none"),
        ({"loss_options": {"label_smoothing": 0.1}}, "loss label_smoothing 0.1"),
        ({"tta": True}, "tta several views of each image"),
    ],
)
def test_whatever_is_not_the_seed_is_another_cell_and_says_so(change, told):
    cells = [
        [result(f"{part}{seed}", 0.5, seed=seed, **options) for seed in (1, 2)]
        for part, options in (("a", {}), ("b", change))
    ]
    groups = group([*cells[0], *cells[1]])
    assert [one.runs for one in groups] == cells
    assert groups[1].name == f"baseline-ce-cifar10 (2 runs), {told}"
    assert groups[0].name.startswith("baseline-ce-cifar10 (2 runs), ") and groups[0].name != groups[1].name


def test_what_does_not_change_the_result_is_the_same_cell():
    loose = {"workers": [0, 4], "data_dir": ["/a", "/b"], "device": ["cpu", "cuda"]}
    loose |= {"checkpoint_every": [0, 100], "log_grad": [False, True]}
    for name, (one, other) in loose.items():
        (cell,) = group([result("a", 0.5, seed=1, **{name: one}), result("b", 0.6, seed=2, **{name: other})])
        assert cell.name == "baseline-ce-cifar10 (2 runs)"


def with_summary(one, **values):
    return replace(one, summary=one.summary | values)


def test_runs_on_other_data_or_in_other_precision_are_other_cells():
    one, two = (result(f"a{seed}", 0.5, seed=seed, data_dir=f"/{seed}") for seed in (1, 2))
    for field, values in {"data_digest": ["1" * 64, "2" * 64, None], "precision": ["fp32", "bf16"]}.items():
        results = [with_summary(run, **{field: value}) for value in values for run in (one, two)]
        assert [len(cell.runs) for cell in group(results)] == [2] * len(values)  # at two places, the same data or not
    # Of a folder whose content nobody recorded the place is all that is known.
    assert len(group([result("a", 0.5, dataset="folder", data_dir=where) for where in ("/a", "/b")])) == 2
    more = result("b", 0.5)
    more.summary["test"]["images"] = 99
    assert len(group([one, more])) == 2


def test_the_report_says_what_each_run_is(tmp_path):
    options = {"loss_options": {"scale": 16.0}, "epochs": 20, "seed": 3}
    results = [result("a", 0.5, loss="arcface", **options), result("b", 0.6, dataset="digits", epochs=12, lr=0.25)]
    results[1].summary["data_digest"] = "0123456789abcdef" * 4
    (table, *_) = [block for block in build(results, [], tmp_path / "files") if isinstance(block, Table)]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert rows[0] | {
        "run": "a", "architecture": "baseline", "loss": "arcface (scale 16.0)", "data set": "cifar10", "seed": "3",
        "epochs": "12 of 20", "data": "unrecorded",
    } == rows[0]  # fmt: skip
    assert rows[1] | {"data set": "digits", "seed": "17", "epochs": "12", "lr": "0.25", "data": "01234567…"} == rows[1]


def test_the_difference_of_two_losses_over_the_same_seeds():
    """Against scipy's interval of the paired t-test; a seed that only one of them has does not count."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.uniform(0.5, 0.9, (2, 4))
    runs = [result(f"a{seed}", value, seed=seed) for seed, value in enumerate(ours)]
    runs += [result(f"b{seed}", value, seed=seed, loss="arcface") for seed, value in reversed(list(enumerate(theirs)))]
    runs += [
        result("more", 0.1, seed=9),
        result("c", 0.5, seed=1, loss="cosface"),
        result("d", 0.5, seed=1, dataset="digits"),
    ]
    ((first, second, found),) = paired_seeds(group(runs))
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (first, second) == ("baseline-ce-cifar10 (5 runs)", "baseline-arcface-cifar10 (4 runs)") and found.n == 4
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.sd) == pytest.approx(((ours - theirs).mean(), (ours - theirs).std(ddof=1)))
    (row,) = seeds_table([(first, second, found)]).rows
    assert row[1] == "4" and row[2] == signed(100 * found.mean)
    assert student_interval([0.5]) is None


def test_the_interval_of_a_difference_is_not_cut_off():
    """Of -0.9 and 0.1: -0.4 ± 12.7062 · 0.5, Student's t(0.975, 1); it says that two seeds tell nothing."""
    ours, theirs = (0.05, 0.55), (0.95, 0.45)
    runs = [result(f"a{seed}", value, seed=seed) for seed, value in enumerate(ours)]
    runs += [result(f"b{seed}", value, seed=seed, loss="arcface") for seed, value in enumerate(theirs)]
    (row,) = seeds_table(paired_seeds(group(runs))).rows
    assert row[2:] == ["−40.00", "70.71", "−675.31 to +595.31"]


def test_seeds_that_are_all_alike_have_no_interval():
    """They were said to differ by exactly so much, from so much to so much."""
    runs = [result(f"a{seed}", value, seed=seed) for seed, value in enumerate((0.8, 0.9, 0.7))]
    runs += [result(f"b{seed}", value, seed=seed, loss="arcface") for seed, value in enumerate((0.7, 0.8, 0.6))]
    (pair,) = paired_seeds(group(runs))
    assert seeds_table([pair]).rows[0][2:] == ["+10.00", "0.00", "none: all alike"]
    found = student_interval([0.8] * 3)
    assert found.mean == pytest.approx(0.8) and not found.defined and student_interval([0.8, 0.8, 0.79]).defined


def drawn(name, accuracy, seed, images="", **options):
    """A run whose training images its seed drew out of one data set; `images` tells them apart where not the seed does."""
    one = result(name, accuracy, seed=seed, **options)
    return with_summary(one, data_digest=(images or str(seed)) * 16, source_digest="f" * 16)


@pytest.mark.parametrize("shaping", [{"imbalance": 100.0}, {"label_noise": 0.2}, {"subset": 50}, {"val_fraction": 0.1}])
def test_seeds_that_draw_their_images_are_compared_seed_by_seed(shaping):
    ours, theirs = (0.5, 0.7, 0.6), (0.4, 0.65, 0.45)
    runs = [drawn(f"ce{seed}", value, seed, **shaping) for seed, value in enumerate(ours)]
    runs += [drawn(f"arc{seed}", value, seed, loss="arcface", **shaping) for seed, value in enumerate(theirs)]
    groups = group(runs)
    names = ["baseline-ce-cifar10 (3 runs)", "baseline-arcface-cifar10 (3 runs)"]
    assert [one.name for one in groups] == names
    ((first, second, found),) = paired_seeds(groups)
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert [first, second, found.n] == [*names, 3] and found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert unpaired_seeds(groups) == []


def test_runs_of_a_seed_that_saw_different_images_are_not_paired(tmp_path):
    options = {"imbalance": 100.0}
    runs = [drawn(f"ce{seed}", 0.5 + seed / 10, seed, **options) for seed in (0, 1, 2)]
    runs += [drawn("arc0", 0.9, 0, images="a", loss="arcface", **options)]
    runs += [drawn(f"arc{seed}", 0.4, seed, loss="arcface", **options) for seed in (1, 2, 3)]
    ((first, second, found),) = paired_seeds(group(runs))
    assert found.n == 2 and found.mean == pytest.approx((0.2 + 0.3) / 2)  # of seeds 1 and 2
    assert unpaired_seeds(group(runs)) == [(first, second, [0])]
    (said,) = [
        one.text for one in build(runs, [], tmp_path) if isinstance(one, Paragraph) and "Not compared" in one.text
    ]
    assert f"different images: {first} / {second} (seed 0)." in said
    # Two tails of different length are two data sets, and nobody expects them to be compared; nor is one seed compared.
    other = [drawn(f"b{seed}", 0.5, seed, images=f"{seed + 5}", imbalance=10.0) for seed in (0, 1, 2)]
    assert paired_seeds(group([*runs[:3], *other])) == unpaired_seeds(group([*runs[:3], *other])) == []
    assert unpaired_seeds(group([*runs[:3], runs[3]])) == []


def test_a_seed_counts_once_whatever_the_order_of_the_runs(tmp_path):
    """A copy of a run, and a second training of one seed, are no more seeds; they are shown, each by itself."""
    ours = [result("a0", 0.5, seed=0), result("a1", 0.6, seed=1), result("a1-again", 0.8, seed=1, device="cuda")]
    ours += [result("copy", 0.5, seed=0)]
    theirs = [result(f"b{seed}", 0.4, seed=seed, loss="arcface") for seed in (0, 1)]
    for runs in permutations(ours):
        groups = group([*runs, *theirs])
        assert [len(one.runs) for one in groups] == [2, 1, 1, 2]
        assert groups[0].name == "baseline-ce-cifar10 (2 runs)" and {one.name for one in groups[1:3]} == {
            "a1-again",
            "copy",
        }
        assert groups[0].score("accuracy") == pytest.approx((0.55, 0.1 / 2**0.5))
        ((_, _, found),) = paired_seeds(groups)
        assert found.n == 2 and found.mean == pytest.approx(0.15)
    (said,) = [
        one.text for one in build(ours, [], tmp_path) if isinstance(one, Paragraph) and "counts once" in one.text
    ]
    assert "alone: a1-again (seed 1, as a1); copy (seed 0, as a0)." in said
    assert not any("counts once" in str(block) for block in build(theirs, [], tmp_path / "other"))


def test_only_seeds_in_common_are_compared(tmp_path):
    ours, theirs = {0: 0.9, 1: 0.5, 2: 0.6, 3: 0.7}, {4: 0.1, 3: 0.5, 2: 0.5, 1: 0.2}
    runs = [result(f"a{seed}", value, seed=seed) for seed, value in ours.items()]
    runs += [result(f"b{seed}", value, seed=seed, loss="arcface") for seed, value in theirs.items()]
    blocks = build(runs, [], tmp_path)
    (row,) = next(block for block in blocks if isinstance(block, Table) and "seeds (n)" in block.header).rows
    assert row[1:4] == ["3", "+20.00", "10.00"]  # 30, 10 and 20 points
    assert any(isinstance(one, Paragraph) and "not corrected for the number of pairs" in one.text for one in blocks)


def test_what_is_no_finished_run_is_left_out(tmp_path):
    good = [write_run(tmp_path / name) for name in ("a", "b")]
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "note.txt").write_text("")
    (write_run(tmp_path / "broken") / "summary.json").write_text("{")
    (write_run(tmp_path / "unknown") / "config.json").write_text('{"no such option": 1}')
    names = [*sorted(tmp_path.iterdir()), tmp_path / ("x" * 5000), tmp_path / "a", tmp_path / "a/."]
    results, errors = read_results(names)
    assert [one.path for one in results] == good and len(errors) == 7
    assert all(str(error).startswith(str(tmp_path)) for error in errors)


def test_runs_of_one_name_are_told_apart(tmp_path):
    results, _ = read_results([write_run(tmp_path / folder / "run") for folder in ("one", "two")])
    assert [one.name for one in results] == ["one/run", "two/run"]


def test_a_figure_that_cannot_be_drawn_costs_no_report(tmp_path):
    (tmp_path / "files").write_text("in the way")
    one = replace(result("a", 0.5), records=[{"epoch": 1, "lr": 0.1}])
    with pytest.warns(UserWarning, match="curves.png is not drawn"), pytest.warns(match="confusion-1.png is not drawn"):
        blocks = build([one], [], tmp_path / "files")
    assert sum(isinstance(block, Table) for block in blocks) >= 3
    assert len([block for block in blocks if isinstance(block, Paragraph) and "is not drawn" in block.text]) == 2


def test_a_model_that_is_unknown_here_has_no_costs(tmp_path):
    one = replace(result("a", 0.5), config=TrainConfig(arch="resnet1001"))
    tables = [block for block in build([one], [], tmp_path / "files") if isinstance(block, Table)]
    assert [table.rows[0][1:4] for table in tables if table.header[1] == "parameters"] == [["–"] * 3]
