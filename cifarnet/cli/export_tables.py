"""The screen of `cifarnet export`: the file, and what its check found."""

from typing import Any

from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent


def print_export(console: Terminal, done: dict[str, Any]) -> None:
    """The file, then what the check found beside what it allows."""
    size = done["input"]["shape"][1]
    kind = f"ONNX, opset {done['opset']}" if done["format"] == "onnx" else "torch.export"
    rows: list[tuple[str, Cell]] = [
        ("file", (done["file"], "bold")),
        ("format", f"{kind}, {done['precision']}, {done['bytes'] / 1e6:.2f} MB"),
        ("input", f"images: uint8 RGB [N, {size}, {size}, 3]"),
        ("outputs", "probabilities, logits, embedding"),
        ("checked on", done["checked_on"]),
        ("card", done["card"] or "none"),
    ]
    console.print(Facts(rows))
    console.print()
    columns = [Column("file against model", number=False), Column("found"), Column("allowed")]
    console.print(Table(columns, parity_rows(done["parity"], done["precision"])))
    for one in done["parity"]["changed"]:
        gap = f"a gap of {one['gap']:.2g} between the logits"
        console.say((f"image {one['image']}: {one['model']} became {one['file']}, {gap}", "dim"))
    if (more := done["parity"]["changes"] - len(done["parity"]["changed"])) > 0:
        console.say((f"and {plural(more, 'image')} more", "dim"))


def parity_rows(found: dict[str, Any], precision: str) -> list[tuple[str, str, str]]:
    """Name, what was found, what is allowed."""
    from cifarnet.analysis.export.parity import AGREEMENT, COSINE, KEPT

    exact = precision == "fp32"
    near = found["near_ties"]
    ties = f" ({near} of them {'a near-tie' if near == 1 else 'near-ties'})" if exact and found["changes"] else ""
    most = 0 if exact else int((1 - AGREEMENT[precision]) * found["images"] + 1e-9)
    rows = [
        (
            "largest difference of a logit",
            f"{found['logit_difference']:.2g}",
            f"{found['logit_allowed']:.2g}" if exact else "–",
        ),
        ("largest difference of a probability", f"{found['probability_difference']:.2g}", "–"),
        (
            "1 − least cosine of the embeddings",
            f"{max(0.0, 1 - found['cosine']):.2g}",
            f"{1 - COSINE:.0e}" if exact else "–",
        ),
        (f"images with another class{ties}", f"{found['changes']:,}", f"{most:,}"),
    ]
    if found["accuracy"]:
        before, after = found["accuracy"]
        least = "–" if exact else f"≥ {percent(KEPT * before)}"
        rows.append((f"accuracy (the model's: {percent(before)})", percent(after), least))
    return rows
