"""The files of `cifarnet verify`: the thresholds that are kept for two images, the figure, and a CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarnet.cli.common import messages
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import spared
from cifarnet.cli.verify_tables import csv_rows
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import plural
from cifarnet.storage.run_names import home_of

if TYPE_CHECKING:
    from cifarnet.analysis.unit_embeddings import Embedder
    from cifarnet.analysis.verify_images import Measured


@dataclass(frozen=True)
class Files:
    """Where a measurement goes beside the screen; None: not there.

    Args:
        thresholds: None: into the run's folder, where those of other images stay unless `overwrite`.
    """

    thresholds: Path | None
    csv: Path | None
    figure: Path | None
    overwrite: bool


def write_files(
    measured: "Measured", path: Path, embedder: "Embedder", files: Files
) -> tuple[dict[str, Any], dict[str, Path | None]]:
    """Writes the result of the checkpoint at `path`. Raises Failed where one of the files cannot be written.

    Returns:
        the document that --json prints; the files by name, None for those that are not written.
    """
    from cifarnet.models.digest import model_digests

    digests = model_digests(embedder.model)
    document: dict[str, Any] = {"checkpoint": str(path), "model_digest": digests[0]}
    document |= {"measured_on": measured.measured_on, "flip": embedder.flip} | measured.found.to_dict()
    if not measured.found.points:
        messages().say(no_points(len(measured.found.impostor)))
    kept = keep_thresholds(document, digests, home_of(path), files)
    if files.csv:
        write_rows(files.csv, *csv_rows(document))
    if files.figure:
        draw(measured, files.figure, embedder.info.config)
    return document, {"thresholds": kept, "figure": files.figure}


def keep_thresholds(document: dict[str, Any], digests: Sequence[str], home: Path | None, files: Files) -> Path | None:
    """Writes the thresholds where they are to be kept, and says where they are not; returns their file, or None.

    Args:
        document: the measurement. One without a threshold goes where the user named a file, and nowhere else.
        digests: of the model, as `model_digests` gives them.
        home: the run's folder.
    """
    from cifarnet.analysis.verification.stored import NAME, other_set, write_thresholds

    if files.thresholds:
        write_thresholds(files.thresholds, document)
        return files.thresholds
    if not document["operating_points"]:
        return None
    if home is None:
        messages().say("note: the thresholds are not kept; --out verification.json keeps them for two images")
        return None
    kept = home / NAME
    if not files.overwrite and (other := other_set(kept, document, digests)):
        fix = "--overwrite replaces them, --out keeps these elsewhere"
        messages().say(f"note: {kept} keeps the thresholds of {other}; {fix}")
        return None
    with spared(NAME, lambda text: messages().remark("warning", text), done="written"):
        write_thresholds(kept, document)
        return kept
    return None


def no_points(impostors: int) -> str:
    """The reason why there is no operating point, and so no threshold to keep."""
    from cifarnet.analysis.verification.rates import least_far

    pairs = f"{plural(impostors, 'impostor pair')} {'shows' if impostors == 1 else 'show'}"
    fix = f"; --far {least_far(impostors):.2g} is the least that they show" if impostors > 1 else ""
    return f"note: no threshold: {pairs} none of the usual FARs{fix}"


def draw(measured: "Measured", path: Path, config: TrainConfig) -> None:
    """Draws DET curve and histograms."""
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.analysis.plots.verification import draw_both
    from cifarnet.analysis.verification.rates import det_points

    found = measured.found
    curve = det_points(found.genuine, found.impostor)
    title = f"{title_of(config)}\n{measured.measured_on}"
    draw_both(curve, found.genuine, found.impostor, found.points, path, title)
