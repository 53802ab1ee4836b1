"""Scores and predictions -> tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent
from cifarnet.core.view_words import views_in_words

MATRIX_CLASSES = 20  # of more the confusion matrix is no screen but a picture
LEFT_OUT = "the confusion matrix does not fit here: see the picture, or --json"

if TYPE_CHECKING:
    from cifarnet.storage.runs import RunFacts


def of_views(views: Any) -> str:
    """The note on scores with --tta: which are of several views and which are not; `views` as in `views_in_words`."""
    return f"{views_in_words(views)} (--tta); predict and export use one: see cifarnet eval"


def print_summary(console: Terminal, summary: dict[str, Any]) -> None:
    """The end of a training run."""
    epochs, calibration = plural(summary["epochs"], "epoch"), summary["calibration"]
    console.say((f"{summary['arch']} · {summary['loss']} · {summary['dataset']} · {epochs}", "bold"))
    if calibration is None:
        words = f"not calibrated: {summary['not_calibrated']}"
    else:
        words = f"temperature {calibration['temperature']:.3g}, of {plural(calibration['images'], 'held-out image')}"
    rows = [*score_rows(summary["test"], calibrated=calibration is not None), ("probabilities", words)]
    rows += [("measured on", of_views(summary.get("views")))] if summary.get("tta") else []
    rows += [("run", summary["run"]), ("checkpoint", summary["checkpoint"])]
    console.print(Facts(rows))


def runs_table(runs: "Sequence[RunFacts]") -> Table:
    """A row a run."""
    columns = [Column("run", number=False), Column("recipe", 5, number=False), Column("model", 2, number=False)]
    columns += [Column("loss", 3, number=False), Column("data", 4, number=False), Column("seed", 6), Column("accuracy")]
    columns += [Column("epochs", 1), Column("state", number=False), Column("started", 7)]
    rows = []
    for facts in runs:
        epochs, started = f"{facts.epochs_done}/{facts.epochs_asked}", facts.started[:16].replace("T", " ")
        rows.append([facts.name, facts.recipe or "–", facts.arch, facts.loss, facts.dataset, str(facts.seed)])
        rows[-1] += [percent(facts.accuracy), epochs, facts.state, started]
    return Table(columns, rows)


def score_rows(scores: dict[str, Any], calibrated: bool = False) -> list[tuple[str, Cell]]:
    """Name and value of each score of a split; of a `calibrated` model which of them are without its temperature."""
    rows: list[tuple[str, Cell]] = []
    rows.append(("accuracy", (f"{percent(scores['accuracy'])} of {plural(scores['images'], 'image')}", "bold")))
    if "confusion" not in scores:  # of many classes little is measured
        return [*rows, ("loss", f"{scores['loss']:.4f}")]
    if scores["top5"] is not None:
        rows.append(("top-5 accuracy", percent(scores["top5"])))
    macro = " / ".join(percent(scores[f"macro_{name}"]) for name in ("precision", "recall", "f1"))
    micro = " / ".join(percent(scores[f"micro_{name}"]) for name in ("precision", "recall", "f1"))
    rows += [("macro precision / recall / F1", macro), ("micro precision / recall / F1", micro)]
    found = scores.get("calibration", {})
    # One class against the rest: an image's place among the others depends on the temperature.
    plain = " (no temperature)" if calibrated or found.get("fitted") else ""
    for name in ("auroc", "auprc"):
        value = scores[name]
        rows.append((f"{name.upper()} (one-vs-rest, macro)", percent(value) + (plain if value is not None else "")))
    if "before" not in found:
        error = f"{percent(scores['ece'])} (15 bins of equal width, no temperature)"
        return [*rows, ("expected calibration error", error), ("loss", f"{scores['loss']:.4f}")]
    return [*rows, *calibration_rows(found)]


def calibration_rows(found: dict[str, Any]) -> list[tuple[str, Cell]]:
    """How well probabilities are calibrated, before and after the temperature where there is one."""
    fitted, before, after = found["fitted"], found["before"], found["after"] or {}
    words = "not calibrated"
    if fitted:
        words = f"temperature {fitted['temperature']:.3g}, of {plural(fitted['images'], 'held-out image')}"
    rows: list[tuple[str, Cell]] = [("calibration", words)]
    for name, key in (("  expected calibration error", "ece"), ("  Brier score", "brier"), ("  loss (nats)", "nll")):
        values = [row[key] for row in (before, after) if row]
        bins = " (15 bins of equal numbers of images)" if key == "ece" else ""  # of equal width it is another number
        rows.append((name, " → ".join(percent(value) if key == "ece" else f"{value:.4f}" for value in values) + bins))
    return rows


def class_table(scores: dict[str, Any]) -> Table:
    """Precision, recall and F1 of each class."""
    columns = [Column("class", number=False)]
    columns += [Column(name, drop) for name, drop in (("precision", 2), ("recall", 3), ("F1", 0), ("images", 1))]
    rows = [
        (row["name"], percent(row["precision"]), percent(row["recall"]), percent(row["f1"]), f"{row['images']:,}")
        for row in scores["classes"]
    ]
    return Table(columns, rows)


def confusion_table(scores: dict[str, Any], terminal: Terminal) -> Table | None:
    """The row-normalised confusion matrix in percent: rows the true class, columns the predicted one.

    The columns are headed by the names of the classes, or by numbers where that takes too much room; None where even those
    do not fit the terminal, or there are many classes: a part of a matrix is none.
    """
    names = [row["name"] for row in scores["classes"]]
    if len(names) > MATRIX_CLASSES:
        return None
    numbers = [str(index) for index in range(len(names))]
    labelled = [f"{index:>{len(numbers[-1])}} {name}" for index, name in enumerate(names)]
    for heads, labels in ((names, names), (numbers, labelled)):
        columns = [Column("", number=False), *(Column(name) for name in heads)]
        rows: list[list[Cell]] = []
        for index, (label, row) in enumerate(zip(labels, scores["confusion"], strict=True)):
            total = max(sum(row), 1)
            rows.append([label, *(_cell(count / total, column == index) for column, count in enumerate(row))])
        table = Table(columns, rows, ("true class ↓, predicted →, % of the row", "dim"), gap=1)
        if table.fits(terminal):
            return table
    return None


def _cell(part: float, diagonal: bool) -> Cell:
    if part == 0:
        return "·", "dim"
    return percent(part, 1, ""), "bold green" if diagonal else "red" if part >= 0.05 else ""


def print_scores(console: Terminal, scores: dict[str, Any], figure: str) -> None:
    """The tables of an evaluation; of many classes the few scores alone."""
    digest, source = scores["data_digest"] or "–", scores["source_digest"]
    digests = digest if source in (digest, None) else f"{digest} of {source}"
    console.print(Facts([*score_rows(scores), ("data digest", digests)]))
    if "confusion" not in scores:
        return
    console.print()
    console.print(class_table(scores))
    console.print()
    matrix = confusion_table(scores, console)
    console.print(matrix if matrix else console.text((LEFT_OUT, "dim")))
    if figure:
        console.print()
        console.print(Facts([("confusion matrix", figure)]))


def prediction_table(records: list[dict[str, Any]], least: float | None = None) -> Table:
    """File, class and probability of each prediction; of images with a score below `least`, that they are none of the classes."""
    columns = [Column("image", number=False), Column("class", number=False)]
    columns += [Column("probability"), Column("", drop=1, number=False)]
    rows: list[list[Cell]] = []
    for record in records:
        if record["unknown"] and least is not None:
            rows.append([record["file"], ("none of these", "bold"), f"score {record['unknown_score']:.3g}"])
            rows[-1].append((f"the classes begin at {least:.3g}", "dim"))
            continue
        for rank, (label, probability) in enumerate(zip(record["classes"], record["probabilities"], strict=True)):
            style = "dim" if rank else "bold"
            value, bar = percent(probability), "█" * round(20 * probability)
            rows.append(["" if rank else record["file"], (label, style), (value, style), (bar, "cyan")])
    return Table(columns, rows)
