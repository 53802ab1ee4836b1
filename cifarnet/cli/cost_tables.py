"""Complexity -> tables."""

from typing import Any

from cifarnet.analysis.complexity import Complexity
from cifarnet.cli.table import Column, Table
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent


def model_table(rows: list[dict[str, Any]], baseline: Complexity) -> Table:
    """A row a model: parameters, MACs and FLOPs an image and a batch, memory, ratios to the baseline."""
    first = rows[0]
    size, batch, other = first["image_size"], first["batch"], baseline.image_size
    stem = next((f", stem {row['stem']}" for row in rows if row["stem"]), "")
    against = "× the baseline CNN" + (f" with its {other}×{other} images" if other != size else "")
    title = (
        f"{size}×{size} images, {plural(first['classes'], 'class')}{stem}, batch {batch}; 1 MAC = 2 FLOPs; {against}"
    )
    columns = [Column("model", number=False), Column("parameters"), Column("× parameters", 3)]
    columns += [Column("GMACs/image"), Column("GFLOPs/image", 4), Column("× MACs", 2)]
    columns += [Column("GMACs/batch", 1), Column("GFLOPs/batch", 6)] if batch > 1 else []
    columns += [Column("activations MB", 5), Column("weights MB", 7), Column("bf16 MB", 8)]
    cells = []
    for row in rows:
        line = [row["arch"], f"{row['parameters']:,}", ratio(row["parameters_ratio"])]
        line += [giga(row["macs_per_image"]), giga(row["flops_per_image"]), ratio(row["macs_ratio"])]
        line += [giga(row["macs"]), giga(row["flops"])] if batch > 1 else []
        line += [f"{row[name] / 1e6:,.2f}" for name in ("activation_bytes", "weight_bytes_fp32", "weight_bytes_bf16")]
        cells.append(line)
    return Table(columns, cells, (title, "dim"))


def time_table(rows: list[dict[str, Any]]) -> Table:
    """Measured latency and throughput of each model."""
    time = rows[0]["time"]
    images = plural(rows[0]["batch"], "image")
    title = f"forward passes of {images} on {time['device']}, {time['precision']}, channels_last: median"
    columns = [Column("model", number=False), Column("ms a pass"), Column("images a second"), Column("passes", 1)]
    cells = []
    for row in rows:
        time = row["time"]
        values = (f"{time['milliseconds']:.2f}", f"{time['images_per_second']:,.0f}", f"{time['repeats']:,}")
        cells.append((row["arch"], *values))
    return Table(columns, cells, (title, "dim"))


def layer_table(cost: Complexity) -> Table:
    """A row a layer."""
    columns = [Column("layer", number=False), Column("kind", 2, number=False)]
    if windows := any(layer.kernel for layer in cost.layers):
        columns += [Column("kernel", 5), Column("stride", 6), Column("padding", 7)]
    columns += [Column("output of an image", 3)]
    columns += [Column("parameters"), Column("MMACs"), Column("MFLOPs", 4), Column("share", 1)]
    cells = []
    for layer in cost.layers:
        macs = layer.macs / cost.batch
        output = "×".join(map(str, layer.output))
        counts = (f"{layer.parameters:,}", f"{macs / 1e6:,.3f}", f"{2 * macs / 1e6:,.3f}")
        kernel = f"{layer.kernel}×{layer.kernel}" if layer.kernel else ""
        window = (kernel, *("" if value is None else str(value) for value in (layer.stride, layer.padding)))
        cells.append(
            (
                layer.name,
                layer.kind,
                *(window if windows else ()),
                output,
                *counts,
                percent(layer.macs / cost.macs, 1),
            )
        )
    return Table(columns, cells, (cost.arch, "bold"))


def uncounted(costs: list[Complexity]) -> dict[str, int]:
    """The operators without a FLOP formula, with the most calls that one of the models makes of each."""
    calls: dict[str, int] = {}
    for cost in costs:
        for name, count in cost.uncounted.items():
            calls[name] = max(calls.get(name, 0), count)
    return calls


def giga(value: float) -> str:
    """In units of 10^9, seven digits after the point, as the report prints them."""
    return f"{value / 1e9:,.7f}"


def ratio(value: float) -> str:
    """A ratio to the baseline."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
