"""`cifarnet verify A B`: two images -> their score, and whether a threshold that was measured takes them for one identity."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarnet.cli.common import messages, print_json, results, say_files
from cifarnet.cli.table import Facts
from cifarnet.cli.terminal import Cell, Terminal
from cifarnet.core.errors import Failed, Refused
from cifarnet.storage.run_names import home_of

if TYPE_CHECKING:
    from cifarnet.analysis.unit_embeddings import Embedder
    from cifarnet.analysis.verification.stored import Threshold


def compare(
    images: list[Path],
    path: Path,
    embedder: "Embedder",
    fars: list[float] | None,
    thresholds: Path | None,
    json_output: bool,
) -> None:
    """Scores two images and decides by a stored threshold.

    Args:
        path: of the checkpoint.
        embedder: its model; mirrored images are added where they were for the threshold.
        fars: the one FAR to decide at; None: as `read_threshold`.
        thresholds: the file that holds them; None: that of the run.

    Raises:
        Refused: thresholds that cannot be used. Failed: an image that cannot be used.
    """
    from cifarnet.analysis.verification.stored import NAME, read_threshold
    from cifarnet.analysis.verify_images import score_two
    from cifarnet.models.digest import model_digests

    home = home_of(path)
    place = thresholds or (home / NAME if home and (home / NAME).exists() else None)
    known = None
    if place:
        far = fars[0] if fars else None
        known = read_threshold(place, model_digests(embedder.model), far, within=None if thresholds else path.parent)
    elif fars:
        raise Refused("far", "no threshold was measured for this model", "measure it with cifarnet verify RUN")
    score, errors, remarks = score_two(replace(embedder, flip=bool(known and known.flip)), images)
    say_files(errors, remarks)
    if score is None:
        raise Failed("verify", f"{len(errors)} of 2 files could not be used", "see the lines above")
    document = comparison(str(path), [str(image) for image in images], score, known)
    if json_output:
        print_json(document)
    else:
        print_comparison(results(), document)
    if known is None:
        messages().say("note: no threshold was measured for this model; cifarnet verify RUN measures and keeps one")


def comparison(checkpoint: str, images: Sequence[str], score: float, known: "Threshold | None") -> dict[str, Any]:
    """The score and the decision, as plain JSON values; without a threshold no decision (null)."""
    from cifarnet.analysis.verification.rates import accepts

    document: dict[str, Any] = {"checkpoint": checkpoint, "images": list(images), "score": score, "decision": None}
    if known is None:
        return document | {"threshold": None, "far": None, "fmr": None, "measured_on": None}
    document["decision"] = "same" if accepts(known.threshold, score) else "different"
    values = {"threshold": known.threshold, "far": known.far, "fmr": known.fmr}
    return document | values | {"measured_on": known.measured_on}


def print_comparison(console: Terminal, document: dict[str, Any]) -> None:
    """Score, decision, threshold, and the FMR that it had."""
    from cifarnet.core.percent import share

    rows: list[tuple[str, Cell]] = [("score", f"{document['score']:.4f}")]
    if document["decision"]:
        threshold = document["threshold"]
        rows.append(("decision", (document["decision"], "bold")))
        rows.append(("threshold", f"{threshold:.4f}" if threshold < 1e9 else "∞: no observed score had so low an FMR"))
        reached = f"{share(document['fmr'])} on {document['measured_on']} (FAR asked: {share(document['far'])})"
        rows.append(("its FMR", reached))
    console.print(Facts(rows))
