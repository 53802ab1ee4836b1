"""The document of `cifarnet quality` -> tables and one sentence."""

import math
from typing import Any

from cifarnet.analysis.quality.verdict import signed
from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent, share


def print_quality(console: Terminal, document: dict[str, Any], figure: str) -> None:
    """The threshold, a row a score, the correlations with each degradation, and the sentence about the norm."""
    threshold = document["threshold"]
    counts = f"{plural(document['images'], 'image')}, {document['genuine_pairs']:,} genuine and "
    counts += plural(document["impostor_pairs"], "impostor pair")
    console.say((document["measured_on"], "bold"), f": {counts}")
    mark = "  (fewer than 30 such pairs: hardly known)" if document["few"] else ""
    reached = f"{share(document['achieved_fmr'])} reached, {share(document['far'])} asked for{mark}"
    rows: list[tuple[str, Cell]] = [
        ("threshold", f"{threshold:.6f}" if math.isfinite(threshold) else "∞: no observed score meets this FMR"),
        ("FMR (FAR)", reached),
        ("FNMR", (percent(document["fnmr"]), "bold")),
    ]
    console.print(Facts(rows))
    console.print()
    console.print(discard_table(document))
    if document["degradations"]:
        console.print()
        console.print(degradation_table(document))
    console.print()
    console.say((document["sentence"], "bold"))
    if figure:
        console.print()
        console.print(Facts([("figure", figure)]))


def discard_table(document: dict[str, Any]) -> Table:
    """Error against discard: a row a score, then random discard and the best possible."""
    limits = list(document["best"])
    columns = [Column("score", number=False), Column("FNMR after 20%", 2)]
    for limit, drop in zip(limits, ((1, 3), (5, 4)), strict=True):
        columns += [Column(f"pAUC {limit}", drop[0]), Column(f"of best {limit}", drop[1])]
    columns += [Column("than chance", number=False)]
    rows: list[list[Cell]] = []
    for name, one in document["scores"].items():
        row: list[Cell] = [name, percent(one["fnmr_after_discard"])]
        for limit in limits:
            row += [f"{one['pauc'][limit]:.4f}", way_to_best(one["share_of_best"][limit])]
        rows.append([*row, verdict_cell(one["against_chance"])])
    best, random = document["curve"]["best"][20], document["curve"]["random"][20]
    for name, after, areas, way in (
        ("random", random, {limit: document["random"][limit]["pauc"] for limit in limits}, "0%"),
        ("best possible", best, document["best"], "100%"),
    ):
        row = [(name, "dim"), (percent(after), "dim")]
        for limit in limits:
            row += [(f"{areas[limit]:.4f}", "dim"), (way, "dim")]
        rows.append([*row, ""])
    return Table(columns, rows, ("error against discard: genuine pairs of the least quality are left out first", "dim"))


def degradation_table(document: dict[str, Any]) -> Table:
    """Spearman's rho of each score with each degradation."""
    columns = [Column("score", number=False), *(Column(name) for name in document["degradations"])]
    rows: list[list[Cell]] = []
    for name in document["scores"]:
        rhos = [one["scores"][name]["rho"] for one in document["degradations"].values()]
        rows.append([name, *("–" if rho is None else signed(rho) for rho in rhos)])
    title = f"Spearman's ρ with the strength, {plural(document['degraded_images'], 'image')} (a quality falls: ρ < 0)"
    return Table(columns, rows, (title, "dim"))


def way_to_best(gone: float | None) -> str:
    """The way from random discard to the best possible, in percent."""
    return percent(gone, 1).replace("-", "−")


def verdict_cell(verdict: str) -> Cell:
    """The cell that compares a score with random orders of the images."""
    styles = {"better": "green", "worse": "red"}
    return {"as chance": "not better", "unknown": "–"}.get(verdict, verdict), styles.get(verdict, "")
