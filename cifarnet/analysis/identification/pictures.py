"""Pictures through a model: a gallery that is enrolled, and probes that are searched in it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cifarnet.analysis.identification.folders import Pictures
from cifarnet.analysis.identification.gallery_file import Gallery, check_model
from cifarnet.analysis.identification.rates import OpenSet, Point, cmc, open_set
from cifarnet.analysis.identification.request import Request, chosen_threshold
from cifarnet.analysis.identification.search import NOT_ENROLLED, Searches, search
from cifarnet.analysis.identification.seen import contents_of, trained_on
from cifarnet.analysis.identification.templates import make_templates
from cifarnet.analysis.unit_embeddings import Embedder, UnitEmbeddings, embed_files
from cifarnet.analysis.verification.rates import NOISE, supports
from cifarnet.core.errors import Failed, plural, printable
from cifarnet.models.digest import model_digest, model_digests

# Told of files: errors, each of which leaves one out, and remarks.
Tell = Callable[[list[str], list[str]], object]


@dataclass(frozen=True, eq=False)
class Probes:
    """Probes that were searched.

    Args:
        names: of the images, fit for a terminal.
        identities: of each, "" where it is not known.
        searches: candidates and rank of each.
    """

    names: tuple[str, ...]
    identities: list[str]
    searches: Searches

    @cached_property
    def rates(self) -> OpenSet:
        """The scores behind the rates: those of the probes whose identity is known."""
        return open_set(self.searches, [name != "" for name in self.identities])


@dataclass(frozen=True, eq=False)
class Identified:
    """The answer to a request.

    Args:
        gallery: with the thresholds in it, those that were set now or those that it came with.
        probes: None where there were none.
        points: DIR at each FPIR that the probes support, measured on them.
        threshold: from which on a probe is taken for its first candidate; None: always.
        origin: where it comes from, in words.
    """

    gallery: Gallery
    probes: Probes | None
    points: tuple[Point, ...]
    threshold: float | None
    origin: str

    @property
    def level(self) -> float | None:
        """The threshold as these probes meet it: one that was set on others takes a score that differs by `NOISE` for it."""
        set_here = any(point.threshold == self.threshold for point in self.points)
        return self.threshold if self.threshold is None or set_here else self.threshold - NOISE

    @property
    def answers(self) -> list[str | None]:
        """The identity that each probe is taken for; None: nobody who is enrolled."""
        if self.probes is None:
            return []
        names, found, level = self.gallery.templates.names, self.probes.searches, self.level
        best = zip(found.candidates[:, 0].tolist(), found.scores[:, 0].tolist(), strict=True)
        return [names[first] if level is None or score >= level else None for first, score in best]

    @property
    def cmc(self) -> np.ndarray | None:
        """The CMC, where a probe's identity is enrolled."""
        mated = self.probes is not None and len(self.probes.rates.mated)
        return cmc(self.probes.searches.ranks, len(self.gallery.templates)) if self.probes and mated else None

    @property
    def at_threshold(self) -> dict[str, float | None] | None:
        """FPIR and DIR of these probes at the threshold, as far as they are defined; None where neither is."""
        level = self.level
        if self.probes is None or level is None:
            return None
        rates = self.probes.rates
        fpir = float(rates.fpir(level)) if len(rates.non_mated) else None
        found = float(rates.dir(level)) if len(rates.mated) else None
        return None if fpir is None and found is None else {"fpir": fpir, "dir": found}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values: the gallery, the rates as far as they are defined, a record a probe."""
        templates = self.gallery.templates
        kind = {"template": templates.kind, "flip": self.gallery.flip, "model_digest": self.gallery.model}
        document: dict[str, Any] = {"identities": len(templates), "images": self.gallery.images, **kind}
        if self.probes is None:
            return {"gallery": document}
        rates = self.probes.rates
        return {
            "gallery": document,
            "threshold": self.threshold if self.threshold is None or math.isfinite(self.threshold) else None,
            "threshold_origin": self.origin,
            "at_threshold": self.at_threshold,
            "mated_searches": len(rates.mated),
            "non_mated_searches": len(rates.non_mated),
            "operating_points": [point.to_dict() for point in self.points],
            "cmc": None if self.cmc is None else self.cmc.tolist(),
            "probes": self.records(),
        }

    def records(self) -> list[dict[str, Any]]:
        """A record a probe: file, identity and rank of the mate where these are known, answer, candidates."""
        assert self.probes is not None
        names, found, records = self.gallery.templates.names, self.probes.searches, []
        for row, answer in enumerate(self.answers):
            pairs = zip(found.candidates[row].tolist(), found.scores[row].tolist(), strict=True)
            candidates = [{"name": names[place], "score": score} for place, score in pairs]
            known = {"identity": self.probes.identities[row] or None, "rank": int(found.ranks[row]) or None}
            records.append({"file": self.probes.names[row], **known, "answer": answer, "candidates": candidates})
        return records


def identify(embedder: Embedder, request: Request, tell: Tell) -> Identified:
    """Carries out a request. A picture that cannot be used is told of and left out; the others are done.

    Raises:
        Refused: the gallery is another model's, or embeddings cancel out. Failed: no picture can be used.
    """
    if isinstance(request.gallery, Gallery):
        gallery = request.gallery
        check_model(request.source, gallery, model_digests(embedder.model), embedder.flip)
    else:
        gallery = enrol(embedder, request.gallery, request.template, tell)
    if request.probes is None:
        threshold = gallery.threshold if request.threshold is None else request.threshold
        return Identified(replace(gallery, threshold=threshold), None, (), None, "none")
    probes = search_pictures(embedder, gallery, request.probes, request.top, tell)
    if both := request.in_both(probes.names):
        same = f"{plural(both, 'probe')} {'is' if both == 1 else 'are'} in the gallery too"
        tell([], [f"{same}: what scores and rates come out of that says nothing"])
    if any(probes.identities):
        tell([], trained_on({*gallery.templates.names, *probes.identities}, embedder.info.classes))
    rates = probes.rates
    points = tuple(rates.at(rate) for rate in request.rates if supports(rate, len(rates.non_mated)))
    threshold, origin = chosen_threshold(request, gallery, points)
    gallery = replace(gallery, points=points or gallery.points, threshold=threshold)
    return Identified(gallery, probes, points, threshold, origin)


def enrol(embedder: Embedder, pictures: Pictures, template: str, tell: Tell) -> Gallery:
    """The gallery of pictures; an identity of which none can be used is left out. Raises as `identify`."""
    names = sorted(set(pictures.identities))
    places = {name: place for place, name in enumerate(names)}
    found = embed(embedder, pictures, [places[name] for name in pictures.identities], names, tell)
    if not len(found):
        raise Failed("gallery", "none of its images can be used", "see the lines above")
    there, numbers = np.unique(found.labels, return_inverse=True)
    lost = sorted(set(range(len(names))) - set(there.tolist()))
    tell([], [f"{printable(names[one])}: is not enrolled, none of its images can be used" for one in lost])
    templates = make_templates(found.vectors, numbers, [names[place] for place in there], template)
    return Gallery(templates, model_digest(embedder.model), embedder.flip, len(found))


def to_save(gallery: Gallery, enrolled: Pictures | Gallery) -> Gallery:
    """The gallery with the digests of its files, where it was enrolled now: to make them, each file is read once more."""
    return replace(gallery, contents=contents_of(enrolled.files)) if isinstance(enrolled, Pictures) else gallery


def search_pictures(embedder: Embedder, gallery: Gallery, pictures: Pictures, top: int, tell: Tell) -> Probes:
    """Pictures searched in a gallery. Raises as `identify`."""
    places = {name: place for place, name in enumerate(gallery.templates.names)}
    found = embed(embedder, pictures, range(len(pictures.files)), (), tell)
    if not len(found):
        raise Failed("probes", "none of the images can be used", "see the lines above")
    identities = [pictures.identities[place] for place in found.labels]
    mates = [places.get(name, NOT_ENROLLED) for name in identities]
    return Probes(found.names, identities, search(found.vectors, gallery.templates, mates, top))


def embed(
    embedder: Embedder, pictures: Pictures, labels: Sequence[int], names: Sequence[str], tell: Tell
) -> UnitEmbeddings:
    """The embeddings of those that can be used, each with its label; the others are told of."""
    found, errors, remarks = embed_files(embedder, pictures.files, labels, names)
    tell(errors, remarks)
    return found
