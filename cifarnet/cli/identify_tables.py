"""The tables of an identification."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent, share

if TYPE_CHECKING:
    from cifarnet.analysis.identification.pictures import Identified
    from cifarnet.analysis.identification.rates import Point

SHOWN = 50  # probes in the table; of more the others are in --csv and --json
NOBODY = "not enrolled"
MARK = "* fewer than 30 non-mated searches pass at this FPIR: the rate is hardly known"


def print_identified(console: Terminal, found: "Identified", asked: Sequence[float]) -> None:
    """A row a probe, then the gallery, the threshold, and the rates as far as they are defined."""
    templates = found.gallery.templates
    images = f"{plural(found.gallery.images, 'image')}, {templates.kind} template{'s' * (templates.kind == 'max')}"
    rows: list[tuple[str, Cell]] = [
        ("gallery", f"{len(templates):,} identit{'y' if len(templates) == 1 else 'ies'}, {images}")
    ]
    if found.probes is not None:
        console.print(probe_table(found))
        if (more := len(found.probes.names) - SHOWN) > 0:
            console.say((f"and {plural(more, 'probe')} more: all of them with --csv or --json", "dim"))
        console.print()
        rows += rate_rows(found, asked)
    console.print(Facts(rows))
    if any(point.few for point in found.points):
        console.say((MARK, "dim"))


def probe_table(found: "Identified") -> Table:
    """Probe, answer, best score and the candidates after the first, of the first probes."""
    assert found.probes is not None
    names, searches, identities = found.gallery.templates.names, found.probes.searches, found.probes.identities
    labelled = any(identities)
    columns = [Column("probe", number=False), Column("answer", number=False), Column("score")]
    columns += [Column("is", drop=1, number=False)] * labelled + [Column("candidates", drop=2, number=False)]
    rows: list[list[Cell]] = []
    for row, answer in enumerate(found.answers[:SHOWN]):
        pairs = list(zip(searches.candidates[row].tolist(), searches.scores[row].tolist(), strict=True))
        candidates = ", ".join(f"{names[place]} {score:.3f}" for place, score in pairs)
        identity = identities[row]
        right = answer == (identity if identity in names else None)
        style = "" if not identity else "green" if right else "red"
        cells: list[Cell] = [found.probes.names[row], (answer or NOBODY, style), f"{pairs[0][1]:.3f}"]
        rows.append([*cells, *([identity] * labelled), candidates])
    return Table(columns, rows)


def rate_rows(found: "Identified", asked: Sequence[float]) -> list[tuple[str, Cell]]:
    """Probes by kind, the threshold, DIR at each FPIR, and the ranks."""
    assert found.probes is not None
    rates, level = found.probes.rates, found.threshold
    mated, others = len(rates.mated), len(rates.non_mated)
    unknown = len(found.probes.names) - mated - others
    kinds = [(mated, "enrolled"), (others, "not enrolled"), (unknown, "not known")]
    rows: list[tuple[str, Cell]] = [("probes", ", ".join(f"{count:,} {name}" for count, name in kinds if count))]
    first = "none: every probe is taken for its first candidate"
    rows.append(("threshold τ", first if level is None else f"{shown(level)}, {found.origin}"))
    rows += [point_row(point, mated) for point in found.points]
    missing = [rate for rate in asked if rate not in [point.asked for point in found.points]]
    if others:
        there = "there is 1" if others == 1 else f"there are {others:,}"
        needs = "needs {:,} probes that are not enrolled; " + there
        rows += [(f"DIR at FPIR {share(rate)}", needs.format(math.ceil(1 / rate))) for rate in missing]
    reached = found.at_threshold
    if reached and level not in [point.threshold for point in found.points]:
        rows.append(("at τ", f"DIR {percent(reached['dir'])}, FPIR {share(reached['fpir'])}"))
    curve = found.cmc
    if curve is not None:
        ranks = [rank for rank in (1, 5, 10, 20) if rank <= len(curve)]
        rows.append(
            (f"mate at rank {', '.join(map(str, ranks))}", " / ".join(percent(curve[rank - 1]) for rank in ranks))
        )
    return rows


def point_row(point: "Point", mated: int) -> tuple[str, Cell]:
    """DIR at one FPIR."""
    name = f"DIR at FPIR {share(point.asked)}{'*' * point.few}"
    if math.isinf(point.threshold):
        return name, "0.00%: no observed score has so low an FPIR, τ is infinite, nobody is accepted"
    value = percent(point.dir) if mated else "–"
    return name, f"{value} at τ = {point.threshold:.4f}, FPIR {share(point.fpir)}"


def shown(threshold: float) -> str:
    """A threshold; infinity as ∞."""
    return "∞" if math.isinf(threshold) else f"{threshold:.4f}"
