"""Results -> the blocks of a report: scores, published numbers, paired tests, costs, settings, figures."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cifarnet.analysis.complexity import measure
from cifarnet.analysis.plots.titles import has_own_loss
from cifarnet.analysis.report.beside_tables import beside_the_report, signed, spread
from cifarnet.analysis.report.document import Block, Heading, Paragraph, Picture, Table
from cifarnet.analysis.report.results import SCORES, Result, told_apart
from cifarnet.analysis.report.seeds import (
    SeedGroup,
    differences,
    group,
    paired_seeds,
    repeats,
    traits,
    unpaired_seeds,
    word,
)
from cifarnet.analysis.significance import Interval, Paired
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError
from cifarnet.core.percent import percent
from cifarnet.core.warn import warn

HEADS = ("accuracy", "precision", "recall", "F1", "AUROC", "AUPRC", "ECE")
DIGEST = re.compile(r"^([0-9a-f]{8})[0-9a-f]{8,}$")  # of the data: its beginning tells enough apart
Pair = tuple[str, str, Paired | str]  # names of two runs, and the test or the reason why there is none


def build(results: Sequence[Result], pairs: Sequence[Pair], pictures: Path, note: str = "") -> list[Block]:
    """The blocks of a report on these runs; figures are drawn into the folder `pictures`.

    Args:
        pairs: paired tests of the runs' predictions.
        note: what the reader must know of the data, for example that it is a copy.
    """
    groups = group(told_apart(results))
    blocks: list[Block] = [Paragraph(note)] if note else []
    blocks += [Heading("Runs"), runs_table(groups)]
    blocks += [Heading("Scores on the test split (%)"), scores_table(groups), Paragraph(SCORES_NOTE)]
    of_views: dict[str, list[str]] = {}
    for run in (run for one in groups for run in one.runs if run.views):
        of_views.setdefault(run.views, []).append(run.name)
    blocks += [Paragraph(VIEWS_NOTE.format(views, ", ".join(names))) for views, names in of_views.items()]
    if again := repeats(groups):
        blocks.append(Paragraph(repeats_words(again)))
    if differences_of_seeds := paired_seeds(groups):
        blocks += [Heading("Differences over the same seeds"), seeds_table(differences_of_seeds), Paragraph(SEEDS_NOTE)]
    if unpaired := unpaired_seeds(groups):
        blocks.append(Paragraph(unpaired_words(unpaired)))
    blocks += beside_the_report(groups)
    if pairs:
        blocks += [Heading("Paired tests"), pairs_table(pairs), Paragraph(PAIRS_NOTE)]
    blocks += [Heading("Costs"), costs_table(groups), Paragraph(COSTS_NOTE)]
    blocks += curves_blocks(groups, pictures)
    blocks += [Heading("Confusion matrices"), *confusion_blocks(groups, pictures)]
    return blocks


SCORES_NOTE = (
    "Precision, recall and F1 are means over the classes; AUROC and AUPRC are one-vs-rest means; ECE is the expected "
    "calibration error in 15 bins of equal width; these three are without a temperature. Where a row stands for several seeds: mean ± sample "
    "standard deviation."
)
VIEWS_NOTE = (
    "Here and below the accuracies are with the logits of {} averaged (--tta): {}. "
    "Prediction and exported file look at one view, whose scores are others: cifarnet eval measures them."
)
SEEDS_NOTE = (
    "Accuracy of the first minus that of the second, seed by seed, in percentage points: mean, sample standard deviation and "
    "95% interval of the mean (Student's t, n − 1 degrees of freedom). An interval without 0 in it tells the two apart. "
    "It is not corrected for the number of pairs: of 20 that do not differ about one is told apart by chance."
)
PAIRS_NOTE = "McNemar's exact test, two-sided, on the same test images: how many only one of the two runs gets right."
COSTS_NOTE = "1 MAC = 2 FLOPs; MACs are those of convolutions and matrix products."


def scores_table(groups: Sequence[SeedGroup]) -> Table:
    """A row a configuration, as Table 3.2."""
    rows = [[one.name, *(spread(one.score(name)) for name in SCORES)] for one in groups]
    return Table(["run", *HEADS], rows)


def repeats_words(again: Sequence[tuple[Result, Result]]) -> str:
    """Which runs repeat a seed, and how to have them counted instead."""
    named = "; ".join(f"{run.name} (seed {run.config.seed}, as {first.name})" for run, first in again)
    return f"A seed counts once, so that these runs stand alone: {named}. To count one of them, leave the other out."


def seeds_table(pairs: Sequence[tuple[str, str, Interval]]) -> Table:
    """A row a pair of configurations."""
    rows = []
    for first, second, one in pairs:
        ends = f"{signed(100 * one.low)} to {signed(100 * one.high)}" if one.defined else "none: all alike"
        rows.append([f"{first} / {second}", str(one.n), signed(100 * one.mean), percent(one.sd, unit=""), ends])
    return Table(["first / second", "seeds (n)", "mean difference", "sd", "95% interval"], rows)


def unpaired_words(unpaired: Sequence[tuple[str, str, list[int]]]) -> str:
    """Which seeds of which two configurations are not compared, why, and what to do."""
    named = "; ".join(f"{first} / {second} (seed {', '.join(map(str, seeds))})" for first, second, seeds in unpaired)
    return (
        f"Not compared, as the runs of the seed were trained on different images: {named}. The same data set in files of "
        "another order gives a seed other images; with --canonical-order it gives the same."
    )


def pairs_table(pairs: Sequence[Pair]) -> Table:
    """A row a pair of runs."""
    rows = []
    for first, second, test in pairs:
        if isinstance(test, str):
            rows.append([f"{first} / {second}", "–", "–", "–", "–", f"not tested: {test}"])
        else:
            counts = [test.both, test.only_first, test.only_second, test.neither]
            rows.append([f"{first} / {second}", *map(str, counts), f"{test.p:.2g}"])
    return Table(["first / second", "both right", "only first", "only second", "neither", "p"], rows)


def costs_table(groups: Sequence[SeedGroup]) -> Table:
    """A row a configuration: parameters and MACs, the mean time of a training."""
    rows = []
    for one in groups:
        seconds = sum(run.summary["seconds"] for run in one.runs) / len(one.runs)
        rows.append([one.name, *cost_cells(one.first), f"{seconds:,.0f}", one.first.summary["device"]])
    return Table(["run", "parameters", "× baseline", "GMACs of two images", "seconds", "device"], rows)


def cost_cells(run: Result) -> list[str]:
    """Parameters, their ratio to the baseline's, MACs; dashes of a model unknown here."""
    config, classes = run.config, len(run.classes)
    try:
        cost, baseline = measure(config, classes, batch=2), measure(TrainConfig(arch="baseline"), classes)
    except CifarnetError:
        return ["–"] * 3
    return [f"{cost.parameters:,}", f"{cost.parameters / baseline.parameters:.0f}", f"{cost.macs / 1e9:.7f}"]


def runs_table(groups: Sequence[SeedGroup]) -> Table:
    """A row a run: what it is, its seed and epochs, and in what it differs from others here."""
    runs = [run for one in groups for run in one.runs]
    own = [traits(run) for run in runs]
    told = {"arch", "loss", "dataset", "epochs", "class names"}
    names = [name for name in differences(own) if name not in told and not name.startswith("loss ")]
    shown = list(dict.fromkeys(["batch_size", "lr", *names]))
    rows = [
        [run.name, *identity(run), *(DIGEST.sub(r"\1…", values.get(name, "–")) for name in shown)]
        for run, values in zip(runs, own, strict=True)
    ]
    return Table(["run", "architecture", "loss", "data set", "seed", "epochs", *shown], rows)


def identity(run: Result) -> list[str]:
    """Architecture, loss with its constants, data set, seed, and epochs (of how many, where it was to train longer)."""
    config, done = run.config, run.summary["epochs"]
    constants = ", ".join(f"{name} {word(value)}" for name, value in sorted(config.loss_options.items()))
    loss = f"{config.loss} ({constants})" if constants else config.loss
    epochs = str(done) if done == config.epochs else f"{done} of {config.epochs}"
    return [config.arch, loss, config.dataset, str(config.seed), epochs]


def curves_blocks(groups: Sequence[SeedGroup], pictures: Path) -> list[Block]:
    """The curves of all runs in one figure, where any was logged."""
    records = {run.name: run.records for one in groups for run in one.runs}
    own = [run.name for one in groups for run in one.runs if has_own_loss(run.config)]
    if not any(records.values()):
        return []

    def draw(path: Path) -> Path:
        from cifarnet.analysis.plots import curves

        return curves.draw(records, path, own_loss=own)

    return [Heading("Training"), picture(draw, pictures / "curves.png", "Training curves")]


def confusion_blocks(groups: Sequence[SeedGroup], pictures: Path) -> list[Block]:
    """A matrix a configuration (the first seed's)."""

    def draw(path: Path, run: Result) -> Path:
        from cifarnet.analysis.plots import confusion

        return confusion.draw({"": run.summary["test"]["confusion"]}, run.classes, path, run.name)

    firsts = [one.first for one in groups]
    return [
        picture(partial(draw, run=run), pictures / f"confusion-{number}.png", f"Confusion matrix of {run.name}")
        for number, run in enumerate(firsts, start=1)
    ]


def picture(draw: Callable[[Path], Path], path: Path, caption: str) -> Block:
    """The figure; where it cannot be drawn that is warned of, and stands in its place: the tables are good all the same."""
    try:
        return Picture(draw(path), caption)
    except Exception as error:
        why = f"{path.name} is not drawn: {error if isinstance(error, CifarnetError) else repr(error)[:300]}"
        warn(why)
        return Paragraph(f"{caption}: {why}")
