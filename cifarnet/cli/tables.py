"""Numbers -> Rich tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from cifarnet.core.errors import printable

if TYPE_CHECKING:
    from cifarnet.storage.runs import RunFacts


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


def runs_table(runs: "Sequence[RunFacts]") -> Table:
    """A row a run."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "recipe", "model", "loss", "data"):
        table.add_column(name)
    for name in ("seed", "accuracy", "epochs"):
        table.add_column(name, justify="right")
    table.add_column("state")
    table.add_column("started")
    for facts in runs:
        texts = (facts.name, facts.recipe or "–", facts.arch, facts.loss, facts.dataset, str(facts.seed))
        figures = (
            percent(facts.accuracy),
            f"{facts.epochs_done}/{facts.epochs_asked}",
            facts.state,
            facts.started[:16],
        )
        table.add_row(*(Text(printable(text)) for text in (*texts, *figures)))
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


def confusion_table(scores: dict[str, Any]) -> Table:
    """The row-normalised confusion matrix in percent: rows the true class, columns the predicted one."""
    names = [row["name"] for row in scores["classes"]]
    table = Table(
        box=box.SIMPLE_HEAD, title="true class ↓, predicted →, % of the row", title_style="dim", padding=(0, 1)
    )
    table.add_column("")
    for name in names:
        table.add_column(Text(printable(name)[:5]), justify="right", no_wrap=True)
    for index, (name, row) in enumerate(zip(names, scores["confusion"], strict=True)):
        total = max(sum(row), 1)
        cells = [_cell(count / total, column == index) for column, count in enumerate(row)]
        table.add_row(Text(printable(name)), *cells)
    return table


def _cell(part: float, diagonal: bool) -> str:
    if part == 0:
        return "[dim]·[/]"
    text = f"{100 * part:.1f}"
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
