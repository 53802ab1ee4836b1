"""verification.json: the thresholds that were measured for a model, kept for the comparison of two images."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Refused, printable
from cifarnet.core.fields import is_number
from cifarnet.storage.output import write_output
from cifarnet.storage.run_files import read_json

NAME = "verification.json"
USUAL = 0.01  # the FAR that is decided at where none is asked for and this one was measured
MEASURE = "measure them with cifarnet verify RUN"


@dataclass(frozen=True)
class Threshold:
    """A threshold of a model (infinity: none accepts anything), how it was set, and the FMR that it had.

    far: asked for; measured_on: in words; flip: the scores are of embeddings with the mirrored image's added.
    """

    threshold: float
    far: float
    fmr: float
    measured_on: str
    flip: bool


def write_thresholds(path: Path, document: dict[str, Any]) -> None:
    """Writes what `cifarnet verify` measured, with the model's digest in it. Raises Failed where it cannot be written."""
    write_output(path, (json.dumps(document, indent=2) + "\n").encode())


def other_set(path: Path, document: dict[str, Any], digests: Sequence[str]) -> str | None:
    """On what the thresholds in a file were measured, for the same model and on something else than `document`'s; else None.

    Args:
        digests: of the model, as `models.digest.model_digests` gives them.
    """
    try:
        there = read_json(path, MEASURE)
    except Refused:
        return None
    if not isinstance(there, dict) or there.get("model_digest") not in digests:
        return None
    measured_on = printable(str(there.get("measured_on", "")))
    return measured_on if measured_on != printable(document["measured_on"]) else None


def read_threshold(
    path: Path, digests: Sequence[str], far: float | None = None, within: Path | None = None
) -> Threshold:
    """The threshold of a model at a FAR.

    Args:
        digests: of the model, as `models.digest.model_digests` gives them.
        far: None takes 0.01, or where that was not measured the first that was.
        within: the run folder that the file belongs to.

    Raises:
        Refused: the file cannot be read or is none of ours, is of another model, or has no such FAR.
    """
    document = read_json(path, MEASURE, within)
    broken = Refused(printable(path), "is no verification.json of cifarnet", MEASURE)
    if not isinstance(document, dict) or not isinstance(document.get("operating_points"), list):
        raise broken
    if document.get("model_digest") not in digests:
        raise Refused(printable(path), "its thresholds are those of another model", MEASURE)
    points = {}
    for row in document["operating_points"]:
        if not (isinstance(row, dict) and {"far", "threshold", "fmr"} <= row.keys()):
            raise broken
        threshold = math.inf if row["threshold"] is None else row["threshold"]
        if not all(is_number(value) for value in (row["far"], row["fmr"])) or not isinstance(threshold, (int, float)):
            raise broken
        points[float(row["far"])] = float(threshold), float(row["fmr"])
    if not points:
        raise Refused(printable(path), "holds no threshold: it is of too few pairs for any FAR", MEASURE)
    chosen = far if far is not None else USUAL if USUAL in points else next(iter(points))
    if chosen not in points:
        known = ", ".join(f"{one:g}" for one in points)
        raise Refused(
            "far", f"{chosen:g} was not measured", f"choose from {known}, or measure it with cifarnet verify RUN"
        )
    measured_on = str(document.get("measured_on", ""))
    return Threshold(points[chosen][0], chosen, points[chosen][1], printable(measured_on), document.get("flip") is True)
