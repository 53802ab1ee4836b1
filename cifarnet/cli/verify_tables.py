"""The result of `cifarnet verify` on a screen and in files: operating points, EER, and the thresholds that are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import spared
from cifarnet.cli.options import spoken
from cifarnet.cli.table import Column, Facts, Table
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import Failed, plural
from cifarnet.core.percent import percent, share
from cifarnet.storage.run_names import home_of

if TYPE_CHECKING:
    from cifarnet.analysis.verify_images import Asked, Measured
    from cifarnet.models.classifier import Classifier
    from cifarnet.models.model_info import ModelInfo

MARK = "* fewer than 30 impostor pairs are accepted at this FAR: the rate is hardly known"
FEW = "fewer than 30 genuine pairs: TAR and EER are hardly known"
NONE = "no observed score has so low an FMR: the threshold is infinite, nothing is accepted"


def report(
    measured: "Measured",
    asked: "Asked",
    path: Path,
    model: "Classifier",
    info: "ModelInfo",
    csv: Path | None,
    figure: Path | None,
    out: Path | None,
    overwrite: bool,
    json_output: bool,
) -> None:
    """Says what was left out, writes the files, prints the result. In the run's folder thresholds of other images stay.

    Raises:
        Failed: some images could not be used; all else is done.
    """
    from cifarnet.analysis.unit_embeddings import model_digests
    from cifarnet.analysis.verification.stored import NAME, other_set, write_thresholds

    say_files(measured.remarks, measured.errors)
    digests = model_digests(model)
    document: dict[str, Any] = {"checkpoint": str(path), "model_digest": digests[0]}
    document |= {"measured_on": measured.measured_on, "flip": asked.flip} | measured.found.to_dict()
    home = home_of(path)
    kept = out or (home / NAME if home else None)
    if not measured.found.points:
        kept = out  # thresholds that are there stay
        messages().say(no_points(len(measured.found.impostor)))
    if kept and out is None and not overwrite and (other := other_set(kept, document, digests)):
        fix = "--overwrite replaces them, --out keeps these elsewhere"
        messages().say(f"note: {kept} keeps the thresholds of {other}; {fix}")
        kept = None
    elif kept and out is None:
        with spared(NAME, lambda text: messages().remark("warning", text.replace("drawn", "written"))):
            write_thresholds(kept, document)
    elif kept:
        write_thresholds(kept, document)
    elif measured.found.points:
        messages().say("note: the thresholds are not kept; --out verification.json keeps them for two images")
    if csv:
        write_rows(csv, *csv_rows(document))
    if figure:
        draw(measured, figure, info)
    if json_output:
        print_json(document)
    else:
        print_verification(results(), document, {"thresholds": kept, "figure": figure})
    if measured.errors:
        count = len(measured.errors)
        raise Failed(
            "verify", f"{plural(count, 'file')} could not be used", "see the lines above; the rest is measured"
        )


def no_points(impostors: int) -> str:
    """The reason why there is no operating point, and so no threshold to keep."""
    from cifarnet.analysis.verification.rates import least_far

    pairs = plural(impostors, "impostor pair")
    fix = f"; --far {least_far(impostors):.2g} is the least that they show" if impostors > 1 else ""
    return f"note: no threshold: {pairs} show none of the usual FARs{fix}"


def draw(measured: "Measured", path: Path, info: "ModelInfo") -> None:
    """Draws DET curve and histograms."""
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.analysis.plots.verification import draw_both
    from cifarnet.analysis.verification.rates import det_points

    found = measured.found
    curve = det_points(found.genuine, found.impostor)
    title = f"{title_of(info.config)}\n{measured.measured_on}"
    draw_both(curve, found.genuine, found.impostor, found.points, path, title)


def say_files(remarks: list[str], errors: list[str]) -> None:
    """Prints remarks and errors of image files on stderr, a line each."""
    for remark in remarks:
        messages().remark("warning", remark)
    for error in errors:
        messages().remark("error", spoken(error))


def span(interval: Sequence[float] | None) -> str:
    """An interval in percent."""
    return " – ".join(percent(end, unit="") for end in interval) if interval else "–"


def print_verification(console: Terminal, document: dict[str, Any], files: Mapping[str, Path | None]) -> None:
    """The table of operating points, and the scores that have no threshold."""
    counts = f"{plural(document['images'], 'image')} of {document['identities']:,} identities"
    pairs = f"{document['genuine_pairs']:,} genuine and {document['impostor_pairs']:,} impostor pairs"
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
        lost = f"; {useless:,} of them have no genuine or no impostor pair" if useless else ""
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
