"""`cifarnet report RUN...`: finished runs -> the report's tables and figures as one document."""

import os
import re
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cifarnet.cli.common import messages, print_path, results
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.options import spoken
from cifarnet.core.errors import CifarnetError, Refused, plural
from cifarnet.data.registry import DATASETS
from cifarnet.storage.output import check_output, free_name, write_output

if TYPE_CHECKING:
    from torch import Tensor

    from cifarnet.analysis.report.results import Result
    from cifarnet.analysis.report.tables import Pair
    from cifarnet.data.identity import SplitIdentity

DEFAULT = Path("report.md")


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Folders of finished runs.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A file in .md, .html (one file, pictures inside) or .tex (default: report.md)."),
    ] = None,
    overwrite: Overwrite = False,
    title: Annotated[str, typer.Option(help="The document's title.")] = "Runs of cifarnet",
    note: Annotated[str, typer.Option(help="What the reader must know of the data.")] = "",
    data_dir: Annotated[
        str | None, typer.Option(help="Where the data is (default: the runs', else the cache).")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Paired tests of each two runs on the same data.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Put runs side by side: scores, published numbers, paired tests, costs, curves, confusion matrices.

    Examples:
        cifarnet report runs/latest
        cifarnet report runs/* --out report.html
    """
    from cifarnet.analysis.report import build, read_results, render
    from cifarnet.analysis.report.document import renderer
    from cifarnet.cli.report_lines import print_report

    if not runs:
        raise Refused("report", "no run is named", "for example: cifarnet report runs/latest")
    renderer(out or DEFAULT)  # a suffix that is no format is refused before any work
    out = check_output(out or (DEFAULT if overwrite else free_name(DEFAULT)), overwrite)
    kept = picture_folder(out, overwrite)
    finished, left_out = read_results(runs)
    if len(left_out) == 1 and not finished:
        raise left_out[0]
    notes = [f"left out: {spoken(str(error))}" for error in left_out]
    for note_of_run in [*notes, *(warning for result in finished for warning in result.warnings)]:
        messages().remark("warning", note_of_run)
    if not finished:
        raise Refused("report", f"none of {plural(len(left_out), 'run')} can be reported", "see the lines above")
    pairs = paired_tests(finished, data_dir, device) if test else []
    with TemporaryDirectory() as inside:
        blocks = build(finished, pairs, kept or Path(inside), note)
        write_output(out, render(title, blocks, out).encode())
    print_report(results(), finished, len(left_out))
    print_path(out)


def picture_folder(out: Path, overwrite: bool) -> Path | None:
    """The folder of a document's pictures, beside it; None of HTML, which holds them.

    Raises:
        Refused: another document's may be in it: it is there already, and `overwrite` is not given.
    """
    if out.suffix == ".html":
        return None
    stem = re.sub(r"[^\w.-]", "_", out.stem)  # a name that LaTeX can read too
    folder = out.parent / (f"{stem}_files" if out.suffix == ".md" else f"{stem}_{out.suffix[1:]}_files")
    if os.path.lexists(folder) and not overwrite:
        raise Refused(str(folder), "is there already", "add `overwrite` to replace its pictures, or name another file")
    return folder


def paired_tests(results: list["Result"], data_dir: str | None, device: str) -> list["Pair"]:
    """McNemar's test of each two runs on the same test images; where there is none, the reason why."""
    from cifarnet.analysis.significance import mcnemar

    answered: dict[Path, Answers | str] = {}
    pairs: list[Pair] = []
    for first, second in combinations(results, 2):
        recorded = first.source and second.source
        if not (recorded and first.source == second.source) and data_of(first) != data_of(second):
            continue
        if recorded and first.source != second.source:
            pairs.append((first.name, second.name, "their data differ"))
            continue
        for result in (first, second):
            if result.path not in answered:
                answered[result.path] = answers_of(result, data_dir, device)
        one, other = answered[first.path], answered[second.path]
        if isinstance(one, str) or isinstance(other, str):
            pairs.append((first.name, second.name, one if isinstance(one, str) else str(other)))
        elif not one.images.same_images(other.images):
            pairs.append((first.name, second.name, "their test images differ"))
        else:
            pairs.append((first.name, second.name, mcnemar(one.right, other.right)))
    return pairs


def data_of(result: "Result") -> tuple[str, tuple[Any, ...], str | None]:
    """The data of a run: two runs of the same are compared image by image."""
    config, row = result.config, DATASETS.get(result.config.dataset)
    options = tuple(getattr(config, name) for name in row.options) if row else ()
    return config.dataset, options, config.data_dir if row and row.from_files else None


class Answers(NamedTuple):
    """Which test images a run gets right, bool [N], in an order that follows from the images alone; and which these are."""

    right: "Tensor"
    images: "SplitIdentity"


def answers_of(result: "Result", data_dir: str | None, device: str) -> Answers | str:
    """The answers of the run's checkpoint, of as many views as its scores are of, or why these cannot be known."""
    from cifarnet.cli.inputs import classify_images, open_samples
    from cifarnet.data.dataset import Split
    from cifarnet.data.identity import identity_of_split
    from cifarnet.data.shaping import canonical_order
    from cifarnet.engine.views import VIEW_WEIGHTS

    if result.tta and result.summary.get("views") != len(VIEW_WEIGHTS):  # today's views would be other scores
        return f"of how many views of each image the scores of {result.name} are was not recorded"
    try:
        opened = open_samples(result.path, data_dir, "test", 0, 0, device)
        right = classify_images(opened, result.tta)
    except CifarnetError as error:
        messages().remark("warning", str(error))
        return error.why
    split = opened.loader.split
    # Two layouts of one set, or --canonical-order in one run alone, have the same images in another order.
    return Answers(right[canonical_order(split)] if isinstance(split, Split) else right, identity_of_split(split))
