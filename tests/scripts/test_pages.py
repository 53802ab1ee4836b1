"""The tables of measurements in README and docs/ show the numbers of docs/results/*.json, rounded as they stand there."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![\w^.])-?\d+(?:\.\d+)?")
HEADS = [
    *("bench_head_cpu", "bench_head_cpu_1thread", "bench_head_cpu_avx2", "bench_head_cpu_avx2_1thread"),
    *(
        "bench_head_cpu_zen4",
        "bench_head_cpu_zen4_1thread",
        "bench_head_cpu_zen4_pair",
        "bench_head_cpu_zen4_pair_1thread",
    ),
]
UNSAID = {  # what the rows of a search have in common stands above its table, or is the recipe's own
    "recipe_search": {"--loss"},
    "margin_search": {"quick", "--epochs", "8", "--stem", "imagenet", "--loss", "ce", "--margin", "0.05"},
    "rate_search": {"quick"},
    "speed_search": {"speed"},
}


def kept(name):
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def rows(page):
    """The cells of each row of a page's tables."""
    lines = [line[1:].strip().removesuffix("|") for line in (ROOT / page).read_text().splitlines() if line[:1] == "|"]
    return [[cell.strip(" *`") for cell in line.split("|")] for line in lines]


def is_shown(page, first, values):
    """Does a row begin with these cells, and have these numbers behind them, each rounded as it is written there?"""
    for cells in rows(page):
        numbers = NUMBER.findall(" ".join(cells[len(first) :]).replace(",", ""))
        if cells[: len(first)] == list(first) and len(numbers) == len(values):
            digits = [len(number.partition(".")[2]) for number in numbers]
            near = (abs(float(n) - v) <= 0.5001 / 10**d for n, v, d in zip(numbers, values, digits, strict=True))
            if all(near):
                return True
    return False


def test_a_number_that_differs_in_its_last_digit_is_found():
    assert is_shown("docs/data.md", ("CSV of the same PNG",), [12.81, 2.98])
    assert not is_shown("docs/data.md", ("CSV of the same PNG",), [12.81, 3.06])
    assert not is_shown("docs/data.md", ("CSV of the same PNG",), [12.81])


def test_a_spread_heads_sizes():
    page, results = "docs/head_parallel.md", kept("bench_scale_cpu")
    for one in results["rows"]:
        first = f"{one['C']:,}", one["name"], str(one["ranks"])
        weights = one["C"] * one["D"] * 4 / 1e6 / one["ranks"]
        seconds = [one["median_s"], one["fastest_s"], one["processor_s"]]
        assert is_shown(page, first, [*seconds, one["step_mb"], one["training_mb"], weights]), first
    for fit in results["fit"]:
        values = [fit[name] for name in ("seconds", "processor", "step_memory", "training_memory")]
        assert is_shown(page, (fit["name"], str(fit["ranks"])), values), fit
    memory = kept("bench_memory_cpu")
    assert is_shown(page, (f"{memory['classes']:,}",), [memory["peak_mb"], memory["peak_in_weights"]])


def test_a_spread_heads_kernels():
    cases = {(one["loss"], one["case"]): one for one in kept("bench_shard_cpu")["rows"]}
    for loss in {loss for loss, _ in cases}:
        ratios = [cases[loss, case][name] for case in ("kernels", "torch") for name in ("ratio", "fastest_ratio")]
        values = [cases[loss, "operator"]["median_s"], *ratios, cases[loss, "sampled"]["ratio"]]
        assert is_shown("docs/head_parallel.md", (loss,), values), loss


@pytest.mark.parametrize("name", HEADS)
def test_the_heads_times(name):
    """Three digits, and whole milliseconds from 100 on; at 100,000 classes the memory too."""
    shapes: dict = {}
    for one in kept(name)["rows"]:
        times = [float(f"{ms:.3g}") if ms < 100 else ms for ms in (one["median_ms"], one["fastest_ms"])]
        memory = [one["memory_mb"] / 1000] if one["C"] == 100_000 and "floor" not in one["name"] else []
        shapes.setdefault((one["N"], one["D"], one["C"]), {})[one["name"]] = [*times, *memory]
    ways = ["cifarnet", "eager", "torch.compile", "textbook", "insightface", "floor (3 products)"]
    for shape, found in shapes.items():
        values = [number for way in ways for number in found.get(way, [])]
        assert is_shown("docs/kernels.md", (", ".join(f"{n:,}" for n in shape),), values), shape


@pytest.mark.parametrize("name", ["calibration", "calibration_resnet18"])
def test_the_calibration(name):
    page, scores = "docs/calibration.md", ("energy", "energy, T = 1", "largest logit", "largest probability")
    for one in kept(name):
        values = [100 * one["accuracy"], one["fitted"]["temperature"]]
        for score, factor in (("ece", 100), ("brier", 1), ("nll", 1)):
            values += [factor * one[when][score] for when in ("before", "after")]
        first = [cells[:2] for cells in rows(page) if len(cells) == 7 and cells[1].startswith(one["loss"])]
        assert any(is_shown(page, cells, values) for cells in first), one["loss"]
        for kind, seen in one["strangers"].items():
            found = [100 * seen["scores"][score]["fpr95"] for score in scores]
            assert is_shown(page, ("", "", kind), [100 * seen["rejected"], *found]), (one["loss"], kind)


def test_the_seconds_of_each_layout():
    named = ("official binary", "Python batches", "parquet of PNG", "folder of 60,000 PNG", "CSV of the same PNG")
    for words, one in zip((*named, "tar shards of PNG"), kept("layouts").values(), strict=True):
        values = [one[name] for name in ("first", "later", "peer") if one[name] is not None]
        assert is_shown("docs/data.md", (words,), values), words


def test_the_readmes_images_a_second():
    fast, slow = kept("bench_train_cpu"), kept("bench_train_cpu_no_amx")
    ours, bare, theirs = (
        [statistics.median(one["images_per_second"][way]) for one in (fast, slow)]
        for way in ("cifarnet", "bare", "report")
    )
    share = 100 * fast["cifarnet_over_bare"]
    first = "cifarnet train`, with its data, augmentation and checks"
    assert is_shown("README.md", (first,), [ours[0], share, ours[1]])
    assert is_shown("README.md", ("a bare loop that does nothing else",), bare)
    assert is_shown("README.md", ("the report's kind of loop (PIL, DataLoader, fp32 NCHW)",), theirs)


@pytest.mark.parametrize("name", UNSAID)
def test_a_searchs_rows(name):
    """A row has a run's flags, in any order, and its accuracy on held-out images."""
    for run in kept(name)["runs"]:
        if "code not kept" in run["flags"]:
            continue  # told in words
        flags = {run["recipe"], *run["flags"].split()} - UNSAID[name]
        accuracy = f"{100 * run['val_accuracy']:.2f}"
        found = [cells[0] for cells in rows("docs/recipes.md") if any(accuracy in cell for cell in cells[1:])]
        assert any(flags <= {*re.sub("[`(),]", "", cell).split(), *UNSAID[name]} for cell in found), run["flags"]
