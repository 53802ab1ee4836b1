"""Anyone's embeddings, enrolled and searched: `cifarnet.identification`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cifarnet.analysis.identification.protocol import divide
from cifarnet.analysis.identification.rates import FPIR, OpenSet, Point, cmc, open_set
from cifarnet.analysis.identification.search import NOT_ENROLLED, Searches, search
from cifarnet.analysis.identification.templates import Templates, make_templates
from cifarnet.analysis.verification.rates import supports
from cifarnet.core.arrays import as_array, as_labels, as_rates
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_count


@dataclass(frozen=True, eq=False)
class Identification:
    """Probes that were searched in a gallery.

    Args:
        templates: what is enrolled.
        searches: each probe's candidates and rank.
        open_set: FPIR and DIR at any threshold.
        points: DIR at each FPIR that was asked for.
        cmc: float64 [k], the part of the mated searches with their mate at rank 1 … k.
    """

    templates: Templates = field(repr=False)
    searches: Searches = field(repr=False)
    open_set: OpenSet = field(repr=False)
    points: tuple[Point, ...]
    cmc: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The rates as plain JSON values."""
        return {
            "identities": len(self.templates),
            "templates": len(self.templates.vectors),
            "template": self.templates.kind,
            "mated_searches": len(self.open_set.mated),
            "non_mated_searches": len(self.open_set.non_mated),
            "operating_points": [point.to_dict() for point in self.points],
            "cmc": self.cmc.tolist(),
        }


def identification(
    gallery: Any,
    gallery_labels: Any,
    probes: Any,
    probe_labels: Any,
    *,
    template: str = "mean",
    fpir: Sequence[float] | float = FPIR,
    top: int = 5,
) -> Identification:
    """1:N identification, open set: enrols a gallery, searches probes in it, and measures DIR at FPIR, and the CMC.

    Args:
        gallery, probes: embeddings [n, D] and [N, D], tensors or anything numpy takes, rows of any length but zero.
        gallery_labels, probe_labels: identities [n] and [N], numbers or text. A probe whose identity is in the gallery is
            mated, any other is not.
        template: mean or max, see `make_templates`.
        fpir: false-positive identification rates at which DIR is given, or one; () for a closed set, without non-mated probes.
        top: candidates of a probe.

    Raises:
        Refused: embeddings without a direction, labels that do not fit, no mated probe, or fewer non-mated ones than an
            FPIR needs.
    """
    check_count("top", top)
    gallery, gallery_labels = as_array(gallery), as_labels(gallery_labels, "the labels of the gallery")
    probes, wanted = as_array(probes), as_labels(probe_labels, "the labels of the probes")
    try:
        enrolled, numbers = np.unique(gallery_labels, return_inverse=True)
    except TypeError as error:  # of objects that have no order
        why = "some cannot be compared with others"
        raise Refused("the labels of the gallery", why, "give numbers, or names") from error
    templates = make_templates(gallery, numbers, [str(name) for name in enrolled.tolist()], template)
    if wanted.ndim != 1 or kind_of(wanted) != kind_of(enrolled):
        why = f"they are {wanted.dtype} {list(wanted.shape)}, those of the gallery {enrolled.dtype}"
        raise Refused("the labels of the probes", why, "give labels of one kind, one for each embedding")
    places = np.searchsorted(enrolled, wanted).clip(max=len(enrolled) - 1)
    mates = np.where(enrolled[places] == wanted, places, NOT_ENROLLED)
    found = search(probes, templates, mates, top)
    rates = open_set(found)
    points = tuple(rates.at(rate) for rate in as_rates(fpir, "fpir"))
    return Identification(templates, found, rates, points, cmc(found.ranks, len(templates)))


def kind_of(labels: np.ndarray) -> str:
    """The kind of labels, compared with labels of the same kind alone; numbers of all types are one kind."""
    return "number" if labels.dtype.kind in "biuf" else labels.dtype.kind


def identify_split(
    embeddings: np.ndarray, labels: np.ndarray, images: int = 5, strangers: float = 0.5, seed: int = 0
) -> Identification:
    """A labelled set identified in a gallery of some of its identities (see `divide`), at those of `FPIR` that it supports.

    Raises:
        Refused: no enrolled identity has a second image; else as `make_templates`.
    """
    gallery, probes = divide(labels, images, strangers, seed)
    non_mated = int((~np.isin(labels[probes], labels[gallery])).sum())
    rates = [rate for rate in FPIR if supports(rate, non_mated)]
    return identification(embeddings[gallery], labels[gallery], embeddings[probes], labels[probes], fpir=rates)
