"""Complexity -> Rich tables."""

from typing import Any

from rich import box
from rich.table import Table

from cifarnet.analysis.complexity import Complexity


def model_table(rows: list[dict[str, Any]]) -> Table:
    """A row a model: parameters, MACs and FLOPs an image and a batch, memory, ratios to the baseline."""
    first = rows[0]
    batch = first["batch"]
    stem = next((f", stem {row['stem']}" for row in rows if row["stem"]), "")
    size, classes = first["image_size"], first["classes"]
    title = f"{size}x{size} images, {classes} classes{stem}, batch {batch}; 1 MAC = 2 FLOPs; × baseline"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="dim", title_justify="left", padding=(0, 1))
    table.add_column("\nmodel", no_wrap=True)
    names = ["\nparameters", "\n×", "GMACs\n/image", "GFLOPs\n/image", "\n×"]
    names += ["GMACs\n/batch", "GFLOPs\n/batch"] if batch > 1 else []
    names += ["activ.\nMB/batch", "weights MB\nfp32", "\nbf16"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{row['parameters']:,}", ratio(row["parameters_ratio"])]
        cells += [giga(row["macs_per_image"]), giga(row["flops_per_image"]), ratio(row["macs_ratio"])]
        cells += [giga(row["macs"]), giga(row["flops"])] if batch > 1 else []
        cells += [f"{row[name] / 1e6:,.2f}" for name in ("activation_bytes", "weight_bytes_fp32", "weight_bytes_bf16")]
        table.add_row(row["arch"], *cells)
    return table


def time_table(rows: list[dict[str, Any]]) -> Table:
    """Measured latency and throughput of each model."""
    time = rows[0]["time"]
    title = (
        f"forward passes of {rows[0]['batch']} images on {time['device']}, {time['precision']}, channels_last: median"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="dim", title_justify="left", padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for name in ("ms a pass", "images a second", "passes"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        time = row["time"]
        cells = (f"{time['milliseconds']:.2f}", f"{time['images_per_second']:,.0f}", f"{time['repeats']}")
        table.add_row(row["arch"], *cells)
    return table


def layer_table(cost: Complexity) -> Table:
    """A row a layer."""
    table = Table(box=box.SIMPLE_HEAD, title=cost.arch, title_style="bold", title_justify="left")
    for name in ("layer", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("output of an image", "parameters", "MMACs", "MFLOPs", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in cost.layers:
        macs = layer.macs / cost.batch
        cells = [
            "×".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{macs / 1e6:.3f}",
            f"{2 * macs / 1e6:.3f}",
        ]
        table.add_row(layer.name, layer.kind, *cells, f"{100 * layer.macs / cost.macs:.1f}%")
    return table


def giga(value: float) -> str:
    """In units of 10^9, seven digits after the point, as the report prints them."""
    return f"{value / 1e9:.7f}"


def ratio(value: float) -> str:
    """A ratio to the baseline."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
