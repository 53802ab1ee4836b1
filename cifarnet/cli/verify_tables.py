"""The result of `cifarnet verify` as tables: operating points, EER and the other scores, and the rows of its CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent, share

MARK = "* fewer than 30 impostor pairs are accepted at this FAR: the rate is hardly known"
FEW = "fewer than 30 genuine pairs: TAR and EER are hardly known"
NONE = "no observed score has so low an FMR: the threshold is infinite, nothing is accepted"


def span(interval: Sequence[float] | None) -> str:
    """An interval in percent."""
    return " – ".join(percent(end, unit="") for end in interval) if interval else "–"


def print_verification(console: Terminal, document: dict[str, Any], files: Mapping[str, Path | None]) -> None:
    """The table of operating points, and the scores that have no threshold."""
    counts = f"{plural(document['images'], 'image')} of {plural(document['identities'], 'identity')}"
    pairs = f"{document['genuine_pairs']:,} genuine and {plural(document['impostor_pairs'], 'impostor pair')}"
    console.say((document["measured_on"], "bold"), f": {counts}, {pairs}")
    console.print()
    points, boot = document["operating_points"], document["bootstrap"]
    columns = [Column("FAR asked"), Column("threshold"), Column("FMR reached (FAR)", 2), Column("TAR")]
    columns += [Column("95% interval", 1)] if boot else []
    rows: list[list[Cell]] = []
    for point in points:
        threshold = "∞" if point["threshold"] is None else f"{point['threshold']:.4f}"
        mark = "*" if point["fewer_than_30"] else " " if any(one["fewer_than_30"] for one in points) else ""
        rows.append([f"{share(point['far'])}{mark}", threshold, share(point["fmr"])])
        rows[-1] += [percent(point["tar"]), *([span(point["tar_interval"])] if boot else [])]
    if rows:
        console.print(Table(columns, rows))
    for text, wanted in ((MARK, "fewer_than_30"), (NONE, None)):
        if any(point[wanted] if wanted else point["threshold"] is None for point in points):
            console.say((text, "dim"))
    if document["genuine_pairs"] < 30:
        console.say((FEW, "dim"))
    console.print()
    console.print(Facts([*facts_of(document), *((name, str(path)) for name, path in files.items() if path)]))


def facts_of(document: dict[str, Any]) -> list[tuple[str, Cell]]:
    """Name and value of each score that has no threshold."""
    boot, folds, apart = document["bootstrap"], document["folds"], document["d_prime"]
    eer = percent(document["eer"]) + (f"   95% interval {span(document['eer_interval'])}" if boot else "")
    rows: list[tuple[str, Cell]] = [("EER", (eer, "bold")), ("AUC", f"{document['auc']:.4f}")]
    rows.append(("d'", "–" if apart is None else f"{apart:.2f}"))
    if folds:
        mean, error, count = folds["mean"], folds["standard_error"], len(folds["accuracies"])
        rows.append(
            ("accuracy by folds", f"{percent(mean)} ± {percent(error, unit='')} (standard error, {count} folds)")
        )
    if boot:
        paired, all_of_them = boot["identities_with_pairs"], document["identities"]
        which = plural(paired, "identity") + (" that have a genuine pair" if paired < all_of_them else "")
        few = f"images within the {which}, which are too few to be drawn"
        of = few if boot["of"] == "images" else "identities"
        useless = boot["resamples"] - boot["used"]
        lost = (
            f"; {useless:,} of them {'has' if useless == 1 else 'have'} no genuine or no impostor pair"
            if useless
            else ""
        )
        rows.append(("intervals", f"{boot['resamples']:,} resamples of {of}{lost}"))
    return rows


def csv_rows(document: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The header, and a row for each FAR; what is not defined is empty."""
    header = ["far", "threshold", "fmr", "tar", "tar_low", "tar_high", "fewer_than_30"]
    rows = []
    for point in document["operating_points"]:
        low, high = point["tar_interval"] or (None, None)
        rows.append([point["far"], point["threshold"], point["fmr"], point["tar"], low, high, point["fewer_than_30"]])
    return header, rows
