"""`cifarnet identify`: a gallery of known identities and probe images -> candidates, answers, open-set rates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, print_path, results, say_files
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.rates import parse_rates
from cifarnet.core.errors import Failed, Refused, plural
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from cifarnet.analysis.identification.pictures import Identified


def identify(
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run folder or checkpoint (default: runs/latest, else the model in the package)."),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Who is known: a folder with a folder an identity, or a saved gallery.")
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option(help="Who is searched: an image, or a folder of them, in a folder an identity where known."),
    ] = None,
    save_gallery: Annotated[
        Path | None, typer.Option(help="Keep the gallery and its thresholds in this .safetensors file.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Of an identity: mean embedding, or max, the best of all (default: mean).")
    ] = None,
    fpir: Annotated[
        str | None, typer.Option(help="False-positive identification rates; the first sets τ (default: 0.01,0.1).")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="τ itself, a cosine (default: by --fpir, else the gallery's).")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=10**4, help="Candidates of a probe.")] = 5,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored image's features to each image's.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    figure: Annotated[Path | None, typer.Option(help="Draw the CMC, and DIR over FPIR (PNG, SVG or PDF).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line a probe: answer, candidates, scores.")] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Search images in a gallery: who is it, or nobody who is enrolled? With the rates, where identities are known.

    Examples:
        cifarnet identify --gallery known --probes photo.jpg
        cifarnet identify --gallery known --probes photos --threshold 0.5
        cifarnet identify --gallery known --probes labelled --figure cmc.png
        cifarnet identify --gallery known --save-gallery known.safetensors
    """
    from cifarnet.analysis.identification import pictures
    from cifarnet.analysis.identification.gallery_file import write_gallery
    from cifarnet.analysis.identification.request import make_request
    from cifarnet.analysis.plots.style import check_path
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.analysis.unit_embeddings import Embedder
    from cifarnet.cli.headline import say_model
    from cifarnet.core.devices import pick_device
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    target, rates = pick_device(device), parse_rates("--fpir", fpir, "0.01,0.1", one_too=True)
    if probes is None and (csv or figure):
        raise Refused("--csv" if csv else "--figure", "is about probes, and none are given", "add --probes")
    csv, save_gallery = (check_output(path, overwrite) if path else None for path in (csv, save_gallery))
    figure = check_output(check_path(figure), overwrite) if figure else None
    request = make_request(
        gallery,
        probes,
        template=template,
        fpir=rates,
        threshold=threshold,
        top=top,
        enrol_only=save_gallery is not None,
        mates_needed=figure is not None,
    )
    path, console, told = default_checkpoint(run), messages(), Told()
    model, info = load_model(path)
    say_model(console, path, model, info, named=run is not None)
    with console.status("enrolling and searching"):
        found = pictures.identify(Embedder(model, info, target, flip), request, told)
    if save_gallery is not None:
        write_gallery(save_gallery, pictures.to_save(found.gallery, request.gallery))
    if csv is not None:
        write_csv(csv, found)
    if figure is not None:
        draw(found, figure, title_of(info.config))
    if json_output:
        print_json({"checkpoint": str(path), **found.to_dict()})
    else:
        from cifarnet.cli.identify_tables import print_identified

        print_identified(results(), found, request.rates)
        for written in filter(None, (save_gallery, figure)):
            print_path(written)
    if told.errors:
        raise Failed("identify", f"{plural(told.errors, 'image')} could not be used", "see the lines above")


class Told:
    """Says on stderr what is told of files, and counts the errors."""

    def __init__(self) -> None:
        self.errors = 0

    def __call__(self, errors: list[str], remarks: list[str]) -> None:
        """A line for each."""
        self.errors += len(errors)
        say_files(errors, remarks)


def write_csv(path: Path, found: "Identified") -> None:
    """A line a probe: file, identity, answer (empty: not enrolled), then name and score of each candidate."""
    records = found.records()
    ranks = range(1, 1 + max(len(record["candidates"]) for record in records))
    header = ["file", "identity", "answer", *(name for n in ranks for name in (f"candidate_{n}", f"score_{n}"))]
    rows: list[list[Any]] = []
    for record in records:
        pairs = [cell for one in record["candidates"] for cell in (one["name"], one["score"])]
        rows.append([record["file"], record["identity"] or "", record["answer"] or "", *pairs])
    write_rows(path, header, rows)


def draw(found: "Identified", path: Path, title: str) -> None:
    """The CMC, and DIR over FPIR where there are non-mated probes."""
    from cifarnet.analysis.plots import identification as picture

    assert found.probes is not None and found.cmc is not None
    gallery = found.gallery
    shown = f"{plural(gallery.images, 'image')} of {len(gallery.templates):,} enrolled ({gallery.templates.kind})"
    picture.draw(found.cmc, found.probes.rates, found.points, path, f"{title}\n{shown}")
