"""Runs beside the report's numbers: published, ours and the difference of each score, cost and confusion matrix."""

from collections.abc import Sequence
from statistics import mean, stdev

from cifarnet.analysis.complexity import measure
from cifarnet.analysis.report.document import Block, Heading, Paragraph, Table
from cifarnet.analysis.report.hard_labels import hard_label_scores
from cifarnet.analysis.report.published import Cell, cell_of, class_names, costs, inconsistencies
from cifarnet.analysis.report.results import Result
from cifarnet.analysis.report.seeds import SeedGroup
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError
from cifarnet.core.percent import percent

Score = tuple[float, float | None] | None  # mean over the seeds, and its deviation; None where it is not defined

EXACT_IMAGES = "The report's numbers are of the exact images of CIFAR-10, one seed, the model of the last epoch."
HARD_LABELS = (
    "The report's AUROC and AUPRC of the baseline are of hard labels: 1 for the predicted class and 0 for all others, not "
    "probabilities. They follow from its confusion matrix alone (Table {table}: AUROC {auroc}, AUPRC {auprc}), and "
    "are to be put beside ours of hard labels. Those of its other models are higher than their matrices alone can give."
)
COSTS_NOTE = (
    "Of a batch of two images. Table 3.9 prints giga as tera. Its FLOPs also count BatchNorm, ReLU and pooling; ours are two "
    "for each MAC of convolutions and matrix products."
)
CONFUSION_NOTE = "Parts of a true class's images, in %; a row is a true class, a column a predicted one."


def beside_the_report(groups: Sequence[SeedGroup]) -> list[Block]:
    """The blocks for those of `groups` that the report has a cell for, and for the networks whose costs it has."""
    known = [(one, cell) for one in groups if (cell := cell_of(one.first.config))]
    blocks: list[Block] = []
    if known:
        blocks += [Heading("Beside the report's scores (%)"), scores_table(known), *map(Paragraph, notes(known))]
    if rows := cost_rows(groups):
        head = ["network", "cost", "published", "ours", "difference"]
        blocks += [Heading("Beside the report's costs (Table 3.9)"), Table(head, rows), Paragraph(COSTS_NOTE)]
    matrices = [block for one, cell in known for block in confusion_blocks(one, cell)]
    if matrices:
        blocks += [Heading("Beside the report's confusion matrices"), Paragraph(CONFUSION_NOTE), *matrices]
    return blocks


def notes(known: Sequence[tuple[SeedGroup, Cell]]) -> list[str]:
    """Notes on the published numbers that stand here."""
    cells = list({cell.name: cell for _, cell in known}.values())
    found = [EXACT_IMAGES]
    for cell in cells:
        if cell.hard_labels and cell.confusion:
            auroc, auprc = hard_label_scores(cell.confusion)
            found.append(
                HARD_LABELS.format(
                    table=cell.confusion_table, auroc=percent(auroc, unit=""), auprc=percent(auprc, unit="")
                )
            )
    wrong = [sentence for cell in cells for sentence in inconsistencies(cell)]
    if wrong:
        found.append("The report does not agree with itself in these places: " + " ".join(wrong))
    return found


def scores_table(known: Sequence[tuple[SeedGroup, Cell]]) -> Table:
    """A row a score: published, ours, the difference."""
    head = ["run", "in the report", "score", "published", "ours", "difference", "epochs there", "epochs here"]
    rows = []
    for one, cell in known:
        epochs = [str(cell.epochs), str(one.first.summary["epochs"])]
        for name, published, ours in score_rows(one, cell):
            there = f"{cell.name} (Table {cell.table})"
            rows.append([one.name, there, name, *three(published, ours), *epochs])
    return Table(head, rows)


def score_rows(one: SeedGroup, cell: Cell) -> list[tuple[str, float | None, Score]]:
    """Name, the report's value (None: it has none of this kind), ours."""
    rows: list[tuple[str, float | None, Score]] = [("accuracy", cell.accuracy, one.score("accuracy"))]
    for place, name in enumerate(("auroc", "auprc")):
        published, shown = getattr(cell, name), name.upper()
        if cell.hard_labels:
            rows.append((f"{shown} of hard labels", published, hard(one, place)))
            rows.append((f"{shown} of probabilities", None, one.score(name)))
        else:
            rows.append((shown, published, one.score(name)))
    return rows


def hard(one: SeedGroup, place: int) -> Score:
    """AUROC (0) or AUPRC (1) of hard labels: mean and deviation over the seeds."""
    values = [hard_label_scores(run.summary["test"]["confusion"])[place] for run in one.runs]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return mean(numbers), stdev(numbers) if len(numbers) > 1 else None


def three(published: float | None, ours: Score) -> list[str]:
    """Published, ours and the difference, in percent; a dash where there is none."""
    there = percent(published, unit="")
    both = published is not None and ours is not None
    return [there, spread(ours), signed(100 * (ours[0] - published)) if both else "–"]  # type: ignore[index, operator]


def spread(score: Score) -> str:
    """Percent with its deviation where there is one."""
    if score is None:
        return "–"
    value, deviation = score
    return percent(value, unit="") + ("" if deviation is None else f" ± {percent(deviation, unit='')}")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign."""
    value = round(value, digits)
    return f"{value:+,.{digits}f}".replace("-", "−") if value else "0"


def cost_rows(groups: Sequence[SeedGroup]) -> list[list[str]]:
    """Three rows a network of Table 3.9 that is here, each network once."""
    rows = []
    for arch, run in {one.first.config.arch: one.first for one in groups if comparable(one.first)}.items():
        try:
            cost = measure(run.config, len(run.classes), batch=2)
        except CifarnetError:
            continue
        known = costs()[arch]
        change = signed(cost.parameters - known.parameters, 0)
        rows.append([arch, "parameters", f"{known.parameters:,}", f"{cost.parameters:,}", change])
        for name, there, ours in (("GFLOPs", known.gflops, cost.flops / 1e9), ("GMACs", known.gmacs, cost.macs / 1e9)):
            rows.append([arch, name, f"{there:.4f}", f"{ours:.4f}", signed(ours - there, 4)])
    return rows


def comparable(run: Result) -> bool:
    """True for a network of Table 3.9: ten classes, 32 pixels, its stem, a linear head on the features."""
    config: TrainConfig = run.config
    plain = config.embed_dim == 0 and config.loss in ("ce", "focal") and config.stem == "small"
    return plain and config.arch in costs() and len(run.classes) == 10 and config.image_size == 32


def confusion_blocks(one: SeedGroup, cell: Cell) -> list[Block]:
    """The two matrices, three rows a class; nothing where the report has none or the classes are not in its order."""
    names = class_names()
    if cell.confusion is None or any(run.classes != names for run in one.runs):
        return []
    ours = mean_rows(one)
    rows = []
    for name, there, here in zip(names, cell.confusion, ours, strict=True):
        rows.append([f"{name}, published", *(percent(part, 1, "") for part in there)])
        rows.append([f"{name}, ours", *(percent(part, 1, "") for part in here)])
        rows.append([f"{name}, difference", *(signed(100 * (b - a), 1) for a, b in zip(there, here, strict=True))])
    title = f"{one.name} beside {cell.name} (Table {cell.confusion_table})"
    return [Paragraph(title), Table(["true class", *names], rows)]


def mean_rows(one: SeedGroup) -> list[list[float]]:
    """The confusion matrix, each row divided by its sum, the mean over the seeds."""
    found = []
    for run in one.runs:
        found.append([[count / max(sum(row), 1) for count in row] for row in run.summary["test"]["confusion"]])
    return [[mean(values) for values in zip(*rows, strict=True)] for rows in zip(*found, strict=True)]
