"""Results -> the blocks of a report: scores, published numbers, paired tests, costs, settings, figures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cifarnet.analysis.complexity import measure
from cifarnet.analysis.plots import confusion, curves
from cifarnet.analysis.report.document import Block, Heading, Paragraph, Picture, Table
from cifarnet.analysis.report.published import COSTS, published_accuracy
from cifarnet.analysis.report.results import SCORES, Result, SeedGroup, group
from cifarnet.analysis.significance import Paired
from cifarnet.core.config import TrainConfig

HEADS = ("accuracy", "precision", "recall", "F1", "AUROC", "AUPRC", "ECE")
Pair = tuple[str, str, Paired | str]  # names of two runs, and the test or the reason why there is none


def build(results: Sequence[Result], pairs: Sequence[Pair], pictures: Path, note: str = "") -> list[Block]:
    """The blocks of a report on these runs; figures are drawn into the folder `pictures`.

    Args:
        pairs: paired tests of the runs' predictions.
        note: what the reader must know of the data, for example that it is a copy.
    """
    groups = group(results)
    blocks: list[Block] = [Paragraph(note)] if note else []
    blocks += [Heading("Scores on the test split (%)"), scores_table(groups), Paragraph(SCORES_NOTE)]
    if rows := published_rows(groups):
        head = ["run", "published", "accuracy there", "ours", "difference", "epochs there", "epochs here"]
        blocks += [Heading("Beside the published accuracies (%)"), Table(head, rows), Paragraph(PUBLISHED_NOTE)]
    if pairs:
        blocks += [Heading("Paired tests"), pairs_table(pairs), Paragraph(PAIRS_NOTE)]
    blocks += [Heading("Costs"), costs_table(groups), Paragraph(COSTS_NOTE)]
    blocks += [Heading("Training"), *training_blocks(groups, pictures)]
    blocks += [Heading("Confusion matrices"), *confusion_blocks(groups, pictures)]
    return blocks


SCORES_NOTE = (
    "Precision, recall and F1 are means over the classes; AUROC and AUPRC are one-vs-rest means; ECE is the expected "
    "calibration error in 15 bins. Where a row stands for several seeds: mean ± sample standard deviation."
)
PUBLISHED_NOTE = "The published accuracies are of the exact images of CIFAR-10."
PAIRS_NOTE = "McNemar's exact test, two-sided, on the same test images: how many only one of the two runs gets right."
COSTS_NOTE = (
    "1 MAC = 2 FLOPs; MACs are those of convolutions and matrix products. The published MACs (Table 3.9) are those of a "
    "batch of two images, printed there as TMACs: in truth GMACs."
)


def scores_table(groups: Sequence[SeedGroup]) -> Table:
    """A row a configuration, as Table 3.2."""
    rows = [[one.name, *(spread(one.score(name)) for name in SCORES)] for one in groups]
    return Table(["run", *HEADS], rows)


def spread(score: tuple[float, float | None] | None) -> str:
    """Percent with its deviation where there is one."""
    if score is None:
        return "–"
    value, deviation = score
    return f"{100 * value:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def published_rows(groups: Sequence[SeedGroup]) -> list[list[str]]:
    """Runs for which the report has an accuracy."""
    rows = []
    for one in groups:
        known, ours = published_accuracy(one.first.config), one.score("accuracy")
        if known is not None and ours is not None:
            cells = [known.name, f"{100 * known.value:.2f}", spread(ours), signed(100 * (ours[0] - known.value))]
            rows.append([one.name, *cells, str(known.epochs), str(one.first.summary["epochs"])])
    return rows


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.2f}".replace("-", "−")


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
    """A row a configuration: parameters and MACs, with Table 3.9 beside them."""
    rows = []
    for one in groups:
        config, classes = one.first.config, len(one.first.classes)
        cost = measure(config, classes, batch=2)
        baseline = measure(TrainConfig(arch="baseline"), classes)
        known = COSTS.get(config.arch) if comparable(config, classes) else None
        seconds = sum(run.summary["seconds"] for run in one.runs) / len(one.runs)
        cells = [f"{cost.parameters:,}", f"{cost.parameters / baseline.parameters:.0f}"]
        cells += [f"{known.parameters:,}" if known else "–", f"{cost.macs / 1e9:.7f}"]
        cells += [f"{known.gmacs_of_two:.4f}" if known else "–", f"{seconds:,.0f}", one.first.summary["device"]]
        rows.append([one.name, *cells])
    head = ["run", "parameters", "× baseline", "published", "GMACs of two images", "published", "seconds", "device"]
    return Table(head, rows)


def comparable(config: TrainConfig, classes: int) -> bool:
    """True for a model of Table 3.9: ten classes, 32 pixels, its stem, a linear head on the features."""
    plain = config.embed_dim == 0 and config.loss in ("ce", "focal")
    return plain and classes == 10 and config.image_size == 32 and config.stem == "small"


def training_blocks(groups: Sequence[SeedGroup], pictures: Path) -> list[Block]:
    """How the runs were trained where they differ, and their curves."""
    names = [
        item.name for item in dataclasses.fields(TrainConfig) if item.name not in ("data_dir", "device", "workers")
    ]
    values = {name: [getattr(run.config, name) for one in groups for run in one.runs] for name in names}
    shown = [name for name in names if len(set(map(str, values[name]))) > 1 or name in ("epochs", "batch_size", "lr")]
    runs = [run for one in groups for run in one.runs]
    rows = [[run.name, *(word(getattr(run.config, name)) for name in shown)] for run in runs]
    blocks: list[Block] = [Table(["run", *shown], rows)]
    records = {
        run.name if run.name not in [r.name for r in runs[:i]] else str(run.path): run.records
        for i, run in enumerate(runs)
    }
    if any(records.values()):
        blocks.append(Picture(curves.draw(records, pictures / "curves.png"), "Training curves"))
    return blocks


def word(value: object) -> str:
    """An option's value as people write it."""
    return "–" if value is None else str(value)


def confusion_blocks(groups: Sequence[SeedGroup], pictures: Path) -> list[Block]:
    """A matrix a configuration (the first seed's)."""
    blocks: list[Block] = []
    for number, one in enumerate(groups, start=1):
        run = one.first
        path = confusion.draw(
            run.summary["test"]["confusion"], run.classes, pictures / f"confusion-{number}.png", run.name
        )
        blocks.append(Picture(path, f"Confusion matrix of {run.name}"))
    return blocks
