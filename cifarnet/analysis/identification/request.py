"""A request to `cifarnet identify`, checked before any image is read; and the threshold that follows from it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifarnet.analysis.identification.folders import Pictures, find_identities, find_pictures
from cifarnet.analysis.identification.gallery_file import Gallery, in_words, kept_threshold, read_gallery, stored_point
from cifarnet.analysis.identification.rates import FPIR, Point, check_fpir
from cifarnet.analysis.identification.seen import content_of, copies
from cifarnet.analysis.identification.templates import KINDS
from cifarnet.core.errors import Refused, printable
from cifarnet.core.percent import share


@dataclass(frozen=True)
class Request:
    """A gallery, probes to search in it, and rates.

    Args:
        source: the folder or file of the gallery.
        gallery: what is in it: images to enrol, or a gallery that is enrolled already.
        probes: images to search; None only enrols.
        template: mean or max.
        rates: FPIRs at which DIR is given.
        asked: whether these were asked for; then the first sets the threshold.
        threshold: given in its place.
        top: candidates of a probe.
    """

    source: Path
    gallery: Pictures | Gallery
    probes: Pictures | None
    template: str
    rates: tuple[float, ...]
    asked: bool
    threshold: float | None
    top: int

    def in_both(self, searched: Collection[str]) -> int:
        """How many files are searched that are enrolled too, or are copies of one that is; 0 where that is not known.

        Args:
            searched: the names of the probes that could be used: an empty file is no copy of an empty file.
        """
        names = set(searched)
        probes = [file for file in self.probes.files if str(file) in names] if self.probes else []
        if isinstance(self.gallery, Gallery):
            known = set() if self.gallery.contents is None else set(map(bytes, self.gallery.contents))
            return sum(content_of(file) in known for file in probes) if known else 0
        enrolled = len(self.gallery.files)
        groups = copies([*self.gallery.files, *probes])
        return sum(sum(place >= enrolled for place in places) for places in groups if min(places) < enrolled)


def make_request(
    gallery: Path | None,
    probes: Path | None,
    *,
    template: str | None = None,
    fpir: Sequence[float] | None = None,
    threshold: float | None = None,
    top: int = 5,
    enrol_only: bool = False,
    mates_needed: bool = False,
) -> Request:
    """The request, once it is known that it can be met as far as names and numbers of files tell.

    Args:
        gallery: a folder with a folder of images an identity, or a file of `write_gallery`.
        probes: an image, or a folder of images, in folders with the identity's name where that is known.
        template: None: mean, or that of the file.
        fpir: None: `FPIR`, as far as the probes support them; else all of these must be.
        enrol_only: the gallery itself is wanted, so that there may be no probes.
        mates_needed: a probe's identity must be enrolled.

    Raises:
        Refused: nothing is there, it has another shape, or the probes do not support an FPIR that is asked for.
    """
    if gallery is None:
        fix = "name a folder that holds a folder of images for each identity, or a saved gallery"
        raise Refused("gallery", "none is given", fix)
    if probes is None and not enrol_only:
        raise Refused(
            "probes", "none are given", "name an image or a folder of images, or only enrol, with `save_gallery`"
        )
    if template is not None and template not in KINDS:
        raise Refused("template", f"'{template}' is not known", f"choose from {', '.join(KINDS)}")
    known = read_gallery(gallery) if gallery.is_file() else find_identities(gallery)
    kind = known.templates.kind if isinstance(known, Gallery) else "mean"
    if isinstance(known, Gallery) and template not in (None, kind):
        fix = "leave `template` out, or enrol the images again"
        raise Refused("template", f"{printable(gallery)} holds {kind} templates", fix)
    searched = find_pictures(probes, "probes") if probes is not None else None
    request = Request(gallery, known, searched, template or kind, tuple(fpir or FPIR), bool(fpir), threshold, top)
    if searched is not None:
        check_searches(request, searched, mates_needed=mates_needed)
    return request


def check_searches(request: Request, probes: Pictures, *, mates_needed: bool) -> None:
    """Refuses FPIRs that are asked for and that the probes do not support, and probes without mates that are needed."""
    known = request.gallery
    stored = stored_point(known, request.rates) if isinstance(known, Gallery) else None
    mated, non_mated = probes.counts(set(known.templates.names if isinstance(known, Gallery) else known.identities))
    if mates_needed and not mated:
        fix = "name the folders in `probes` as those in the gallery"
        raise Refused("figure", "no probe shows an identity that is enrolled", fix)
    if not request.asked or (stored and not non_mated):
        return
    if not non_mated:
        held = [f"{point.asked:g}" for point in known.points] if isinstance(known, Gallery) else []
        why = "no probe is known to show an identity that is not enrolled"
        why += f", and the gallery has thresholds for {', '.join(held)} alone" if held else ""
        raise Refused("fpir", why, "add folders of other identities to `probes`, or give `threshold`")
    for rate in request.rates:
        check_fpir(rate, non_mated)


def chosen_threshold(request: Request, gallery: Gallery, points: Sequence[Point]) -> tuple[float | None, str]:
    """The score from which on a probe is taken for its first candidate, and where it comes from, in words; None: none.

    What is asked for comes first, then what the gallery keeps, then what these probes say.

    Args:
        points: measured on these probes.
    """
    if request.threshold is not None:
        return request.threshold, "as given"
    if not request.asked and (kept := kept_threshold(gallery)):
        return kept
    if points:
        return points[0].threshold, f"FPIR {share(points[0].fpir)} of these probes"
    if request.asked and (point := stored_point(gallery, request.rates)):
        return point.threshold, in_words(point)
    return None, "none"
