"""Numbers -> Rich tables."""

from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from cifarnet.core.errors import printable

CELL, ROW_NAME = 5, 16  # characters of a cell of the confusion matrix, and at most of the name before a row


def percent(value: float | None) -> str:
    """0.8765 -> 87.65%; what is not defined is a dash."""
    return "–" if value is None else f"{100 * value:.2f}%"


def summary_table(summary: dict[str, Any]) -> Table:
    """The end of a training run."""
    test = summary["test"]
    title = f"{summary['arch']} · {summary['loss']} · {summary['dataset']} · {summary['epochs']} epochs"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="dim")
    table.add_column()
    for name, value in score_rows(test):
        table.add_row(name, value)
    table.add_row("run", Text(summary["run"]))
    table.add_row("checkpoint", Text(summary["checkpoint"]))
    return table


def score_rows(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each score of a split."""
    rows = [("accuracy", f"[bold]{percent(scores['accuracy'])}[/] of {scores['images']:,} images")]
    if "confusion" not in scores:  # of many classes little is measured
        return [*rows, ("loss", f"{scores['loss']:.4f}")]
    if scores["top5"] is not None:
        rows.append(("top-5 accuracy", percent(scores["top5"])))
    macro = " / ".join(percent(scores[f"macro_{name}"]) for name in ("precision", "recall", "f1"))
    micro = " / ".join(percent(scores[f"micro_{name}"]) for name in ("precision", "recall", "f1"))
    rows += [("macro precision / recall / F1", macro), ("micro precision / recall / F1", micro)]
    rows += [
        ("AUROC (one-vs-rest, macro)", percent(scores["auroc"])),
        ("AUPRC (one-vs-rest, macro)", percent(scores["auprc"])),
    ]
    rows += [("expected calibration error", percent(scores["ece"])), ("loss", f"{scores['loss']:.4f}")]
    return rows


def class_table(scores: dict[str, Any]) -> Table:
    """Precision, recall and F1 of each class."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "images"):
        table.add_column(name, justify="right")
    for row in scores["classes"]:
        cells = (percent(row["precision"]), percent(row["recall"]), percent(row["f1"]), f"{row['images']:,}")
        table.add_row(Text(printable(row["name"])), *cells)
    return table


def confusion_tables(scores: dict[str, Any], width: int) -> list[Table]:
    """The row-normalised confusion matrix in percent: rows the true class, columns the predicted one.

    As many tables, one below the other, as it takes for all digits to stand in `width` characters.
    """
    names = [printable(row["name"]) for row in scores["classes"]]
    column = min(ROW_NAME, max(map(cell_len, names)))
    at_once = max(1, (width - column - 2) // (CELL + 1))
    return [
        confusion_part(scores["confusion"], names, range(start, min(start + at_once, len(names))))
        for start in range(0, len(names), at_once)
    ]


def confusion_part(counts: list[list[int]], names: list[str], columns: range) -> Table:
    """Some of the columns of the confusion matrix."""
    title = "true class ↓, predicted →, % of the row" if columns.start == 0 else ""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="dim", padding=0)
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=ROW_NAME)
    for predicted in columns:
        head = Text(set_cell_size(names[predicted], CELL).rstrip())
        table.add_column(head, justify="right", no_wrap=True, min_width=CELL)
    for index, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = max(sum(row), 1)
        table.add_row(Text(name), *(_cell(row[column] / total, column == index) for column in columns))
    return table


def _cell(part: float, diagonal: bool) -> str:
    if part == 0:
        return "[dim]·[/]"
    text = f"{100 * part:.1f}".replace("100.0", "100")
    return f"[bold green]{text}[/]" if diagonal else (f"[red]{text}[/]" if part >= 0.05 else text)


def prediction_table(records: list[dict[str, Any]]) -> Table:
    """File, class and probability of each prediction."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    table.add_column("")
    for record in records:
        name = printable(record["file"])
        for rank, (label, probability) in enumerate(zip(record["classes"], record["probabilities"], strict=True)):
            style = "bold" if rank == 0 else "dim"
            bar = "█" * round(20 * probability)
            table.add_row(
                Text(name if rank == 0 else ""),
                Text(printable(label), style),
                Text(f"{100 * probability:.2f}%", style),
                f"[cyan]{bar}[/]",
            )
    return table
