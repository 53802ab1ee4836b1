"""A gallery <-> one safetensors file: templates, names, the digest of the model that made them, and thresholds set on it."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from cifarnet import __version__
from cifarnet.analysis.identification.rates import Point
from cifarnet.analysis.identification.templates import KINDS, Templates
from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, printable
from cifarnet.core.percent import share
from cifarnet.storage.output import write_output
from cifarnet.storage.safetensors_header import read_header

FORMAT = "cifarnet-gallery-1"
OTHER = "take another gallery, or enrol the images again"


@dataclass(frozen=True, eq=False)
class Gallery:
    """The known identities that probes are compared with.

    Args:
        templates: the identities.
        model: digest of the model that made the embeddings (`model_digest`).
        flip: whether the mirrored images' features were added.
        images: that were enrolled.
        points: thresholds that were set on this gallery, with the rates that they had then.
        threshold: the one that was in force when it was saved, given or one of these, or infinite; None: none was.
        contents: uint8 [N, 32], SHA-256 of the enrolled files; None of a gallery that was saved without.
    """

    templates: Templates
    model: str
    flip: bool
    images: int
    points: tuple[Point, ...] = ()
    threshold: float | None = None
    contents: np.ndarray | None = None


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Writes a gallery, replaced as a whole. Raises Failed where it cannot be written."""
    templates = gallery.templates
    facts = {
        "template": templates.kind,
        "names": list(templates.names),
        "model": gallery.model,
        "flip": gallery.flip,
        "images": gallery.images,
        # No score meets an infinite threshold: there is no rate to keep it for.
        "points": [asdict(point) for point in gallery.points if math.isfinite(point.threshold)],
        "threshold": gallery.threshold,  # infinity too: nobody was accepted
        "cifarnet": __version__,
    }
    tensors = {"templates": templates.vectors, "owners": templates.owners.astype(np.int64)}
    if gallery.contents is not None:
        tensors["contents"] = gallery.contents
    write_output(path, save(tensors, {"format": FORMAT, "gallery": json.dumps(facts)}))


def read_gallery(path: Path) -> Gallery:
    """The gallery in a file; nothing in it is taken on trust.

    Raises:
        Refused: no such file, a pickle, no gallery, or a broken one.
    """
    try:
        metadata = read_header(path).get("__metadata__")
    except Refused as error:
        raise Refused(error.what, error.why, "name a folder, or what `save_gallery` wrote") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise Refused(printable(path), "is no gallery file", "name a folder, or what `save_gallery` wrote")
    try:
        facts = json.loads(metadata.get("gallery", ""))
        with safetensors.safe_open(path, framework="numpy") as file:
            vectors, owners = file.get_tensor("templates"), file.get_tensor("owners")
            # The file is no mapping: it has `keys` alone.
            contents = file.get_tensor("contents") if "contents" in file.keys() else None  # noqa: SIM118
        return replace(parsed(facts, vectors, owners), contents=checked_contents(contents))
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(printable(path), f"is broken ({printable(str(error))})", OTHER) from error


def parsed(facts: dict[str, Any], vectors: np.ndarray, owners: np.ndarray) -> Gallery:
    """The gallery of a file's parts. Raises ValueError, KeyError or TypeError where they are not what they should be."""
    if not isinstance(facts, dict) or not facts.keys() >= {"names", "template", "model", "flip", "images", "points"}:
        raise ValueError("its metadata is not complete")
    names, kind = facts["names"], facts["template"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise ValueError("its names are not texts")
    names = tuple(map(composed, names))  # two forms of one name would be two identities that no probe tells apart
    if len(set(names)) != len(names) or kind not in KINDS:
        raise ValueError("a name stands twice" if kind in KINDS else "its kind of template is not known")
    if (
        vectors.dtype != np.float32
        or vectors.ndim != 2
        or owners.dtype != np.int64
        or owners.shape != vectors.shape[:1]
    ):
        raise ValueError("its tensors have another shape or type")
    if not np.array_equal(np.unique(owners), np.arange(len(names))) or (np.diff(owners) < 0).any():
        raise ValueError("its templates do not belong to its names")
    if kind == "mean" and len(owners) != len(names):
        raise ValueError("an identity has several means")
    if not np.allclose(np.einsum("nd,nd->n", vectors, vectors), 1, atol=1e-3):  # nor are NaN
        raise ValueError("its templates are not of length one")
    if (
        not isinstance(facts["model"], str)
        or not isinstance(facts["flip"], bool)
        or not isinstance(facts["images"], int)
    ):
        raise ValueError("its facts are not usable")
    points = tuple(checked_point(point) for point in facts["points"])
    threshold = facts.get("threshold", points[0].threshold if points else None)  # the first files had no such key
    if threshold is not None and not (
        isinstance(threshold, float | int) and (-2 < threshold < 2 or threshold == math.inf)
    ):
        raise ValueError("its threshold is no number")
    templates = Templates(vectors, owners, names, kind)
    return Gallery(templates, facts["model"], facts["flip"], facts["images"], points, threshold)


def checked_contents(contents: np.ndarray | None) -> np.ndarray | None:
    """The digests of the enrolled files, where a file holds them. Raises ValueError where they are none."""
    if contents is not None and (contents.dtype != np.uint8 or contents.ndim != 2 or contents.shape[1] != 32):
        raise ValueError("its digests have another shape or type")
    return contents


def checked_point(values: dict[str, Any]) -> Point:
    """A threshold that a file holds. Raises ValueError or TypeError."""
    if not isinstance(values, dict) or values.keys() != {one.name for one in fields(Point)}:
        raise ValueError("its thresholds are not usable")
    point = Point(**values)
    rates = (point.asked, point.fpir, point.threshold)
    if not all(isinstance(rate, float | int) and -2 < rate < 2 for rate in rates) or not isinstance(point.dir, float):
        raise ValueError("its thresholds are not numbers")
    return point


def check_model(path: Path, gallery: Gallery, digests: Sequence[str], flip: bool) -> None:
    """Refuses a gallery of another model than that with these digests (`model_digests`), or made with another `flip`."""
    if gallery.model not in digests:
        theirs, ours = printable(gallery.model[:12]), digests[0][:12]
        why = f"was made by another model (digest {theirs}…, this one's is {ours}…): their embeddings do not compare"
        raise Refused(printable(path), why, "name that model with `run`, or enrol the images again")
    if gallery.flip != flip:
        how = "with" if gallery.flip else "without"
        fix = "add `flip`" if gallery.flip else "leave `flip` out"
        raise Refused(printable(path), f"was made {how} mirrored images", f"{fix}, or enrol the images again")


def stored_point(gallery: Gallery, asked: Sequence[float]) -> Point | None:
    """The threshold that the gallery holds for the first of these rates, as far as it has one."""
    return next((point for rate in asked for point in gallery.points if math.isclose(point.asked, rate)), None)


def kept_threshold(gallery: Gallery) -> tuple[float, str] | None:
    """The threshold that was in force when the gallery was saved, and where it came from, in words; None: none was."""
    threshold = gallery.threshold
    if threshold is None:
        return None
    point = next((point for point in gallery.points if point.threshold == threshold), None)
    return threshold, in_words(point) if point else "kept in the gallery"


def in_words(point: Point) -> str:
    """Where a threshold comes from that a gallery holds."""
    return f"kept in the gallery, FPIR {share(point.fpir)} when it was set"
